"""CARMS and double control variates: their formulas as loops, deliberate mistakes in them, and refusals."""

import math

import torch
from naive_formulas import jacobian, onehot, per_latent, sampled_code, score, softmax, value_and_slope, with_gumbel
from torch import nn

from estimators import Estimate, Estimator, replace_gradient
from estimators.base import check_count
from estimators.carms import _places, _questions
from estimators.gumbel import one_hot, sample_classes

# The formulas.


def copula(p, n):
    """P(u_1 < p, u_2 < p) of two of n uniforms."""
    return max(0.0, 2 * p ** (1 / (n - 1)) - 1) ** (n - 1)


def joint_probability(probs, c, other, n):
    """P(D_1 = c, D_2 = c') for one latent, by following the questions one after the other."""
    order = sorted(range(len(probs)), key=lambda k: probs[k])
    joint, left, ended = 1.0, 1.0, False
    for k in order:
        p = probs[k] / left if k != order[-1] else 1.0
        both = copula(p, n)
        if ended:  # one code is decided: the other goes on alone
            if k in (c, other):
                return joint * p
            joint *= 1 - p
        elif k in (c, other):
            joint *= p - both
            ended = True
        else:
            joint *= 1 - 2 * p + both
        left -= probs[k]
    raise AssertionError("both classes are among those asked for")


def carms(estimator, logits_BLK, cost, seed=0):
    """1/(2n(n−1)) Σ_{i≠j} (f_i − f_j) π π'/P(D_i, D_j) (D_i − D_j), P from the joint law itself."""
    n, (n_examples, n_latents, n_categories) = estimator.n_samples, logits_BLK.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        e_SBLI = (
            torch.empty((n, n_examples, n_latents, n_categories - 1), dtype=logits_BLK.dtype).uniform_().log_().neg_()
        )
    result_BLK = torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        probs = [softmax(x_K).tolist() for x_K in theta_LK]
        codes = []
        for i in range(n):
            code = []
            for latent in range(n_latents):
                order, left = sorted(range(n_categories), key=lambda k, latent=latent: probs[latent][k]), 1.0
                chosen = order[-1]
                for question, k in enumerate(order[:-1]):
                    e_S = e_SBLI[:, b, latent, question]
                    u = (1 - e_S[i] / e_S.sum()) ** (n - 1)
                    if u < probs[latent][k] / left:
                        chosen = k
                        break
                    left -= probs[latent][k]
                code.append(chosen)
            codes.append(code)
        f = [value_and_slope(cost, torch.stack([onehot(k, n_categories) for k in code]))[0] for code in codes]
        for i in range(n):
            for j in range(n):
                for latent in range(n_latents):
                    c, other = codes[i][latent], codes[j][latent]
                    if c != other:
                        joint = joint_probability(probs[latent], c, other, n)
                        ratio = probs[latent][c] * probs[latent][other] / joint
                        difference_K = onehot(c, n_categories) - onehot(other, n_categories)
                        result_BLK[b, latent] += (f[i] - f[j]) * ratio * difference_K / (2 * n * (n - 1))
    return result_BLK


def double_cv(estimator, logits_BLK, gumbel_SBLK, cost):
    """Each code's cost and its baseline, both less the prediction from the slopes at the other codes."""
    n, eta, result_BLK = len(gumbel_SBLK), estimator.eta.item(), torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        pi_LK = torch.stack([softmax(x_K) for x_K in theta_LK])
        codes = [sampled_code(theta_LK, noise_BLK[b]) for noise_BLK in gumbel_SBLK]
        values, slopes = zip(*(value_and_slope(cost, z_LK) for z_LK in codes), strict=True)
        reduced = []
        for i in range(n):
            others_LK = sum(slopes[j] for j in range(n) if j != i) / (n - 1)
            reduced.append(values[i] - eta * float((others_LK * (codes[i] - pi_LK)).sum()))
        for i in range(n):
            baseline = sum(reduced[j] for j in range(n) if j != i) / (n - 1)
            result_BLK[b] += (reduced[i] - baseline) * score(theta_LK, codes[i]) / n
        result_BLK[b] += eta * per_latent([jacobian(p_K) for p_K in pi_LK], sum(slopes) / n)
    return result_BLK


NAIVE = {"carms": carms, "double_cv": with_gumbel(double_cv)}
SETTINGS: dict[str, list[dict[str, object]]] = {
    "carms": [{"n_samples": 2}, {"n_samples": 9}],
    "double_cv": [{"eta": 1.0, "n_samples": 2}, {"eta": 1.0}, {"eta": 1.7}],
}
BAD_NUMBERS = (math.nan, math.inf, True, "1", None)
REFUSED = [
    *(("double_cv", {"eta": bad}, f"double_cv: expected eta >= 0, got {bad!r}.") for bad in (-0.1, *BAD_NUMBERS)),
    *(
        ("double_cv", {"control_lr": bad}, f"double_cv: expected control_lr > 0, got {bad!r}.")
        for bad in (0.0, -1e-3, *BAD_NUMBERS)
    ),
]

# Mutants: one deliberate mistake each.


class CopulaTemplate(Estimator):
    """CARMS with places to break; unbroken, it passes every check."""

    name, unbiased, relaxes, black_box, min_samples = "carms", True, False, True, 2

    def __init__(self, *, n_samples=4):
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=2)

    def questions(self, logits_BLK):
        return _questions(logits_BLK)

    def places(self, log_yes_BLI):
        return _places(log_yes_BLI, self.n_samples)

    def both(self, yes_BLI):
        n = self.n_samples
        return (2 * yes_BLI ** (1 / (n - 1)) - 1).clamp(min=0) ** (n - 1)

    def no_no(self, yes_BLI, both_BLI):
        return (1 - yes_BLI) ** 2 / (1 - 2 * yes_BLI + both_BLI).clamp(min=1e-12)

    def yes_no(self, yes_BLI, both_BLI):
        return yes_BLI * (1 - yes_BLI) / (yes_BLI - both_BLI).clamp(min=1e-12)

    def n_pairs(self):
        return self.n_samples * (self.n_samples - 1)

    def forward(self, logits_BLK, cost):
        log_yes_BLI, order_BLK = self.questions(logits_BLK)
        place_SBL = self.places(log_yes_BLI)
        class_SBL = order_BLK.expand(self.n_samples, -1, -1, -1).gather(-1, place_SBL[..., None])[..., 0]
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        yes_BLI = log_yes_BLI.exp().clamp(min=1e-30, max=1 - 1e-7)
        both_BLI = self.both(yes_BLI)
        no_no_BLI, yes_no_BLI = self.no_no(yes_BLI, both_BLI), self.yes_no(yes_BLI, both_BLI)
        fixed_SB = cost_SB.detach().to(yes_BLI.dtype)
        advantage_SBL = torch.zeros(place_SBL.shape, dtype=yes_BLI.dtype)
        for i in range(self.n_samples):
            for j in range(self.n_samples):
                first_BL, differ_BL = torch.minimum(place_SBL[i], place_SBL[j]), place_SBL[i] != place_SBL[j]
                weight_BL = torch.ones_like(advantage_SBL[0])
                for question in range(yes_BLI.shape[-1]):
                    weight_BL = weight_BL * torch.where(first_BL > question, no_no_BLI[..., question], 1.0)
                    weight_BL = weight_BL * torch.where(first_BL == question, yes_no_BLI[..., question], 1.0)
                gap_B1 = (fixed_SB[i] - fixed_SB[j])[:, None]
                advantage_SBL[i] += torch.where(differ_BL, gap_B1 * weight_BL, 0.0) / self.n_pairs()
        chosen_SBL = logits_BLK.expand(self.n_samples, -1, -1, -1).gather(-1, class_SBL[..., None])[..., 0]
        cost_B = cost_SB.mean(0)
        linear_B = (advantage_SBL * chosen_SBL).sum((0, -1)).to(cost_B.dtype)
        return Estimate(replace_gradient(cost_B, cost_B + linear_B))


class CopulaWithoutWeights(CopulaTemplate):
    """Coupled codes, taken for independent ones."""

    def no_no(self, yes_BLI, both_BLI):
        return torch.ones_like(yes_BLI)

    def yes_no(self, yes_BLI, both_BLI):
        return torch.ones_like(yes_BLI)


class CopulaForgetsTheEarlierQuestions(CopulaTemplate):
    def no_no(self, yes_BLI, both_BLI):
        return torch.ones_like(yes_BLI)


class CopulaForgetsTheDecidingQuestion(CopulaTemplate):
    def yes_no(self, yes_BLI, both_BLI):
        return torch.ones_like(yes_BLI)


class CopulaOfIndependentUniforms(CopulaTemplate):
    """Independent codes with the weights of coupled ones."""

    def places(self, log_yes_BLI):
        uniform_SBLI = torch.rand((self.n_samples, *log_yes_BLI.shape), dtype=log_yes_BLI.dtype)
        return (uniform_SBLI.log() >= log_yes_BLI).cumprod(-1).sum(-1)


class CopulaOfTwo(CopulaTemplate):
    """The joint law of a pair of two, max(0, 2p − 1), for a pair of n."""

    def both(self, yes_BLI):
        return (2 * yes_BLI - 1).clamp(min=0)


class CopulaExponentOfN(CopulaTemplate):
    """(1 − ϖ)^n: not uniform."""

    def places(self, log_yes_BLI):
        e_SBLI = torch.empty((self.n_samples, *log_yes_BLI.shape), dtype=log_yes_BLI.dtype).uniform_().log_().neg_()
        log_u_SBLI = self.n_samples * torch.log1p(-e_SBLI / e_SBLI.sum(0))
        return (log_u_SBLI >= log_yes_BLI).cumprod(-1).sum(-1)


class CopulaFromTheMostProbable(CopulaTemplate):
    """Questions in the wrong order: with n = 2, pairs that can never meet."""

    def __init__(self, *, n_samples=2):
        super().__init__(n_samples=n_samples)

    def questions(self, logits_BLK):
        log_probs_BLK = logits_BLK.detach().to(torch.promote_types(logits_BLK.dtype, torch.float32)).log_softmax(-1)
        sorted_BLK, order_BLK = log_probs_BLK.clamp(min=-1e30).sort(dim=-1, descending=True)
        log_left_BLK = sorted_BLK.flip(-1).logcumsumexp(-1).flip(-1)
        return (sorted_BLK - log_left_BLK)[..., :-1], order_BLK


class CopulaAveragesOverEqualPairs(CopulaTemplate):
    """1/n² in the place of 1/(n(n − 1))."""

    def n_pairs(self):
        return self.n_samples**2


class CopulaClassesUnsorted(CopulaTemplate):
    """Classes found by their place among the questions are reported as if they had not been sorted."""

    def questions(self, logits_BLK):
        log_yes_BLI, order_BLK = super().questions(logits_BLK)
        return log_yes_BLI, torch.arange(order_BLK.shape[-1]).expand_as(order_BLK)


class TaylorTemplate(Estimator):
    """Double control variates with places to break; unbroken, it passes every check."""

    name, unbiased, relaxes, min_samples = "double_cv", True, False, 2

    def __init__(self, *, eta=1.0, n_samples=4, control_lr=1e-3):
        super().__init__()
        self.eta = nn.Parameter(torch.tensor(float(eta)), requires_grad=False)
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=2)
        self.control_lr = control_lr

    def slope_for_each(self, slope_SBLK):
        return (slope_SBLK.sum(0) - slope_SBLK) / (self.n_samples - 1)

    def baseline(self, cost_SB, reduced_SB):
        return (reduced_SB.sum(0) - reduced_SB) / (self.n_samples - 1)

    def added_back(self, slope_SBLK, probs_BLK):
        slope_BLK = slope_SBLK.mean(0)
        return probs_BLK * (slope_BLK - (probs_BLK * slope_BLK).sum(-1, keepdim=True))

    def forward(self, logits_BLK, cost):
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK).requires_grad_()
        cost_SB = self.evaluate(cost, z_SBLK)
        if not torch.is_grad_enabled():
            return Estimate(cost_SB.mean(0))
        (slope_SBLK,) = torch.autograd.grad(cost_SB.sum(), z_SBLK, retain_graph=True)
        dtype = torch.promote_types(logits_BLK.dtype, torch.float32)
        probs_BLK, slope_SBLK = logits_BLK.detach().to(dtype).softmax(-1), slope_SBLK.to(dtype)
        deviation_SBLK, eta = z_SBLK.detach() - probs_BLK, self.eta.item()
        fixed_SB = cost_SB.detach().to(dtype)
        reduced_SB = fixed_SB - eta * (self.slope_for_each(slope_SBLK) * deviation_SBLK).sum((-1, -2))
        advantage_SB = reduced_SB - self.baseline(fixed_SB, reduced_SB)
        gradient_BLK = (advantage_SB[..., None, None] * deviation_SBLK).mean(0)
        gradient_BLK = gradient_BLK + eta * self.added_back(slope_SBLK, probs_BLK)
        cost_B = cost_SB.mean(0)
        linear_B = (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-1, -2)).to(cost_B.dtype)
        return Estimate(replace_gradient(cost_B, cost_B + linear_B))


class TaylorWithItsOwnSlope(TaylorTemplate):
    """The slope at the code itself is among those that predict it: not independent, biased."""

    def slope_for_each(self, slope_SBLK):
        return slope_SBLK.mean(0, keepdim=True)


class TaylorNotAddedBack(TaylorTemplate):
    def added_back(self, slope_SBLK, probs_BLK):
        return torch.zeros_like(probs_BLK)


class TaylorAddedBackTwice(TaylorTemplate):
    def added_back(self, slope_SBLK, probs_BLK):
        return 2 * super().added_back(slope_SBLK, probs_BLK)


class TaylorJacobianDiagonal(TaylorTemplate):
    """π(1 − π), the binary formula, class by class."""

    def added_back(self, slope_SBLK, probs_BLK):
        return probs_BLK * (1 - probs_BLK) * slope_SBLK.mean(0)


class TaylorSingle(TaylorTemplate):
    """One control variate, not two: the baseline is the mean cost of the others. Unbiased."""

    def baseline(self, cost_SB, reduced_SB):
        return super().baseline(cost_SB, cost_SB)


class TaylorBaselineOfAll(TaylorTemplate):
    """The baseline has the code itself in it."""

    def baseline(self, cost_SB, reduced_SB):
        return reduced_SB.mean(0)


RIGHT = [CopulaTemplate, TaylorTemplate]
MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls not in RIGHT
]
