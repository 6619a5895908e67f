"""DisARM, ARSM and the unordered-set estimator: their formulas as loops, deliberate mistakes in them, and refusals."""

import math
from itertools import permutations

import torch
from naive_formulas import onehot, score, softmax, value_and_slope

from estimators import Estimate, Estimator, replace_gradient
from estimators.base import check_count
from estimators.gumbel import log_prob, one_hot, sample_classes
from estimators.unordered_set import draw_set, leave_one_out

# The formulas.


def value(cost, class_L, n_categories):
    """f of one code, given as class numbers."""
    return value_and_slope(cost, torch.stack([onehot(int(k), n_categories) for k in class_L]))[0]


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def uniforms(shape):
    """u = σ(log E − log E'), E and E' ~ Exp(1), which is how the pairs draw their uniforms."""
    e, other = torch.empty((2, *shape), dtype=torch.float64).uniform_().log_().neg_()
    return e / (e + other)


def disarm(theta_LK, u_L1, cost):
    """For each variable ½ (f(b) − f(b̃)) 1[b ≠ b̃] (−1)^b̃ σ(|φ|), φ = θ_1 − θ_0."""
    phi = [theta_K[1] - theta_K[0] for theta_K in theta_LK]
    b = [int(1 - u < sigmoid(x)) for x, u in zip(phi, u_L1[:, 0], strict=True)]
    b_tilde = [int(u < sigmoid(x)) for x, u in zip(phi, u_L1[:, 0], strict=True)]
    half = (value(cost, b, 2) - value(cost, b_tilde, 2)) / 2
    result_LK = torch.zeros_like(theta_LK)
    for latent, x in enumerate(phi):
        if b[latent] != b_tilde[latent]:
            gradient = half * (-1) ** b_tilde[latent] * sigmoid(abs(x))
            result_LK[latent] = gradient * torch.tensor([-1.0, 1.0], dtype=theta_LK.dtype)
    return result_LK


def break_stick(phi_I, u_I):
    """The class that the answers 1[1 − u < σ(φ)] lead to."""
    for i, (phi, u) in enumerate(zip(phi_I, u_I, strict=True)):
        if 1 - u < sigmoid(phi):
            return i
    return len(phi_I)


def disarm_sb(theta_LK, u_LI, cost):
    """For each stick ½ (f(z) − f(z̃)) E[2u − 1 | the answers on which the codes depend]: the mean of u over its range,
    in which every answer that was asked stays the same."""
    n_latents, n_categories = theta_LK.shape
    phi_LI = torch.stack(
        [torch.stack([x_K[i] - x_K[i + 1 :].exp().sum().log() for i in range(n_categories - 1)]) for x_K in theta_LK]
    )
    z = [break_stick(phi_I, u_I) for phi_I, u_I in zip(phi_LI, u_LI, strict=True)]
    z_tilde = [break_stick(phi_I, 1 - u_I) for phi_I, u_I in zip(phi_LI, u_LI, strict=True)]
    half = (value(cost, z, n_categories) - value(cost, z_tilde, n_categories)) / 2
    result_LK = torch.zeros_like(theta_LK)
    for latent in range(n_latents):
        for i in range(n_categories - 1):
            p, u, low, high = sigmoid(phi_LI[latent, i]), u_LI[latent, i], 0.0, 1.0
            if z[latent] >= i:  # was asked 1 − u < p
                low, high = (max(low, 1 - p), high) if 1 - u < p else (low, min(high, 1 - p))
            if z_tilde[latent] >= i:  # was asked u < p
                low, high = (low, min(high, p)) if u < p else (max(low, p), high)
            slope_K = torch.zeros(n_categories, dtype=torch.float64)  # of φ_i
            slope_K[i] = 1.0
            slope_K[i + 1 :] = -theta_LK[latent, i + 1 :].exp() / theta_LK[latent, i + 1 :].exp().sum()
            result_LK[latent] += half * (low + high - 1) * slope_K
    return result_LK


def averaged(formula):
    """Average a formula for one pair over the pairs, example by example."""

    def gradient(estimator, logits_BLK, cost, seed=0):
        n_examples, n_latents, n_categories = logits_BLK.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            u_SBLI = uniforms((estimator.n_samples, n_examples, n_latents, n_categories - 1))
        result_BLK = torch.zeros_like(logits_BLK)
        for b, theta_LK in enumerate(logits_BLK):
            for u_BLI in u_SBLI:
                result_BLK[b] += formula(theta_LK, u_BLI[b], cost) / estimator.n_samples
        return result_BLK

    return gradient


def arsm(estimator, logits_BLK, cost, seed=0):
    """g_lc = Σ_j (F_cj − mean_m F_mj)(1/K − ϖ_lj), every F by exchanging the noise itself."""
    n_latents, n_categories = logits_BLK.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        e_SBLK = torch.empty((estimator.n_samples, *logits_BLK.shape), dtype=logits_BLK.dtype).uniform_().log_().neg_()
    result_BLK = torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        for e_BLK in e_SBLK:
            dirichlet_LK = torch.stack([e_K / e_K.sum() for e_K in e_BLK[b]])
            table = torch.zeros(n_categories, n_categories, dtype=torch.float64)
            for c in range(n_categories):
                for j in range(n_categories):
                    exchanged_LK = dirichlet_LK.clone()
                    exchanged_LK[:, c], exchanged_LK[:, j] = dirichlet_LK[:, j], dirichlet_LK[:, c]
                    code = [int((w_K.log() - x_K).argmin()) for w_K, x_K in zip(exchanged_LK, theta_LK, strict=True)]
                    table[c, j] = value(cost, code, n_categories)
            for latent in range(n_latents):
                for c in range(n_categories):
                    for j in range(n_categories):
                        advantage = table[c, j] - sum(table[m, j] for m in range(n_categories)) / n_categories
                        term = advantage * (1 / n_categories - dirichlet_LK[latent, j])
                        result_BLK[b, latent, c] += term / estimator.n_samples
    return result_BLK


def beam(theta_LK, noise_LSK, n_samples):
    """Codes without replacement: each prefix with the perturbed log-probability of its best code."""
    prefixes = [((), 0.0, -noise_LSK[0][0, 0].log().item())]
    for x_K, noise_SK in zip(theta_LK, noise_LSK[1:], strict=True):
        longer = []
        for (code, log_q, maximum), noise_K in zip(prefixes, noise_SK, strict=True):
            log_q_K = log_q + softmax(x_K).log()
            gumbel_K = log_q_K - noise_K.log()
            given_K = -(math.exp(-maximum) - torch.exp(-gumbel_K.max()) + torch.exp(-gumbel_K)).log()
            longer += [((*code, k), log_q_K[k].item(), given_K[k].item()) for k in range(len(x_K))]
        prefixes = sorted(longer, key=lambda item: -item[2])[:n_samples]
    return [(code, math.exp(log_q)) for code, log_q, _ in prefixes]


def set_probability(wanted, taken, q):
    """Probability that the next codes, after those in `taken`, are `wanted`: over all orders in which they may come."""
    total = 0.0
    for order in permutations(wanted):
        probability, left = 1.0, 1.0 - sum(q[s] for s in taken)
        for s in order:
            probability *= q[s] / left
            left -= q[s]
        total += probability
    return total


def unordered_set(estimator, logits_BLK, cost, seed=0):
    """Σ_s q(s) R(S, s) [f(s) − Σ_t q(t) R_s(S, t) f(t)] ∇ log q(s), with set probabilities from their definition."""
    n, (n_examples, n_latents, n_categories) = estimator.n_samples, logits_BLK.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shapes = [(1, n_examples, 1)] + [
            (1, n_examples, min(n, n_categories**latent), n_categories) for latent in range(n_latents)
        ]
        root, *noise = [torch.empty(shape, dtype=logits_BLK.dtype).uniform_().log_().neg_()[0] for shape in shapes]
    result_BLK = torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        codes = beam(theta_LK, [root[b : b + 1], *(each[b] for each in noise)], n)
        everything, q = set(range(n)), [probability for _, probability in codes]
        f = [value(cost, code, n_categories) for code, _ in codes]
        for s, (code, _) in enumerate(codes):
            ratio = set_probability(everything - {s}, {s}, q) / set_probability(everything, set(), q)
            baseline = q[s] * f[s]
            for t in everything - {s}:
                second = set_probability(everything - {s, t}, {s, t}, q) / set_probability(everything - {s}, {s}, q)
                baseline += q[t] * second * f[t]
            z_LK = torch.stack([onehot(k, n_categories) for k in code])
            result_BLK[b] += q[s] * ratio * (f[s] - baseline) * score(theta_LK, z_LK)
    return result_BLK


NAIVE = {
    "disarm": averaged(disarm),
    "disarm_sb": averaged(disarm_sb),
    "arsm": arsm,
    "unordered_set": unordered_set,
}
SETTINGS: dict[str, list[dict[str, object]]] = {"unordered_set": [{"n_samples": 2}, {"n_samples": 6}]}
REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("unordered_set", {"n_samples": 13}, "unordered_set: expected n_samples <= 12, got 13."),
    ("arsm", {"n_sample": 2}, "arsm: expected parameters among n_samples, got 'n_sample'. Did you mean 'n_samples'?"),
]

# Mutants: one deliberate mistake each.


class PairTemplate(Estimator):
    """Stick-breaking DisARM with places to break; unbroken, it passes every check."""

    name, unbiased, relaxes, black_box = "disarm_sb", True, False, True

    def __init__(self, *, n_samples=1):
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents, n_categories):
        return 2 * self.n_samples

    def sticks(self, theta_BLK):
        later_BLI = [theta_BLK[..., i + 1 :].logsumexp(-1) for i in range(theta_BLK.shape[-1] - 1)]
        return theta_BLK[..., :-1] - torch.stack([*later_BLI, theta_BLK[..., 0]], -1)[..., :-1]

    def noise(self, phi_BLI):
        e = (
            torch.empty((2, self.n_samples, *phi_BLI.shape), dtype=phi_BLI.dtype)
            .uniform_()
            .log_()
            .neg_()
            .clamp_(min=1e-37)
        )
        return e[0].log() - e[1].log()

    def twin(self, noise_SBLI):
        return -noise_SBLI

    def reached(self, class_PSBL, index_I):
        return class_PSBL[..., None] >= index_I

    def coupled(self, yes_PSBLI, p_BLI):
        return (yes_PSBLI[0] - yes_PSBLI[1]) * torch.maximum(p_BLI, 1 - p_BLI)

    def delta(self, yes_PSBLI, reached_PSBLI, p_BLI):
        first, second = reached_PSBLI
        coupled = first * second * self.coupled(yes_PSBLI, p_BLI)
        single = first * ~second * (yes_PSBLI[0] - p_BLI) - ~first * second * (yes_PSBLI[1] - p_BLI)
        return coupled + single

    def forward(self, logits_BLK, cost):
        self.check_shape(*logits_BLK.shape[1:])
        phi_BLI = self.sticks(logits_BLK.to(torch.promote_types(logits_BLK.dtype, torch.float32)))
        fixed_BLI = phi_BLI.detach()
        noise_SBLI = self.noise(fixed_BLI)
        yes_PSBLI = (torch.stack([noise_SBLI, self.twin(noise_SBLI)]) > -fixed_BLI).to(fixed_BLI.dtype)
        class_PSBL = (1 - yes_PSBLI).cumprod(-1).sum(-1).long()
        cost_SB = self.evaluate(cost, one_hot(class_PSBL.flatten(0, 1), like=logits_BLK))
        reached_PSBLI = self.reached(class_PSBL, torch.arange(phi_BLI.shape[-1]))
        delta_SBLI = self.delta(yes_PSBLI, reached_PSBLI, fixed_BLI.sigmoid())
        first_SB, second_SB = cost_SB.detach().to(fixed_BLI.dtype).chunk(2)
        half_SB = (first_SB - second_SB) / 2
        linear_B = (phi_BLI * (half_SB[..., None, None] * delta_SBLI).mean(0)).sum((-1, -2)).to(cost_SB.dtype)
        return Estimate(replace_gradient(cost_SB.mean(0), cost_SB.mean(0) + linear_B))


class SBSticksThatNobodyReached(PairTemplate):
    """DisARM of the K − 1 binary variables, whether a code depends on them or not: unbiased, but noisy."""

    def reached(self, class_PSBL, index_I):
        return torch.ones((*class_PSBL.shape, len(index_I)), dtype=torch.bool)


class SBOnlySticksThatBothReached(PairTemplate):
    def delta(self, yes_PSBLI, reached_PSBLI, p_BLI):
        return reached_PSBLI[0] * reached_PSBLI[1] * self.coupled(yes_PSBLI, p_BLI)


class SBScoreOfDependentCodes(PairTemplate):
    """½ (f(z) − f(z̃)) (∇log q(z) − ∇log q(z̃)), as if the codes were independent."""

    def delta(self, yes_PSBLI, reached_PSBLI, p_BLI):
        first, second = reached_PSBLI * (yes_PSBLI - p_BLI)
        return first - second


class SBSingleSticksCoupled(PairTemplate):
    """Where one code reached a stick, its term is that for both, with the answer nobody asked for."""

    def delta(self, yes_PSBLI, reached_PSBLI, p_BLI):
        return (reached_PSBLI[0] | reached_PSBLI[1]) * self.coupled(yes_PSBLI, p_BLI)


class SBReachedOneTooFew(PairTemplate):
    """z > i for z >= i: the stick that ended the code is left out."""

    def reached(self, class_PSBL, index_I):
        return class_PSBL[..., None] > index_I


class SBSticksOfProbabilities(PairTemplate):
    """φ_i = log π_i / (1 − π_i) of all classes, not of the later ones."""

    def sticks(self, theta_BLK):
        log_probs_BLK = theta_BLK.log_softmax(-1)
        return (log_probs_BLK - (-log_probs_BLK.clamp(max=-1e-6).exp()).log1p())[..., :-1]


class SBSticksInReverse(PairTemplate):
    """Log-odds against the earlier classes."""

    def sticks(self, theta_BLK):
        return -super().sticks(theta_BLK.flip(-1)).flip(-1)


class SBTwinsOfSameNoise(PairTemplate):
    def twin(self, noise_SBLI):
        return noise_SBLI


class SBTwinsIndependent(PairTemplate):
    """Not antithetic at all, with the weight of antithetic pairs."""

    def twin(self, noise_SBLI):
        return self.noise(noise_SBLI[0])


class SBOneUniformForAllSticks(PairTemplate):
    def noise(self, phi_BLI):
        return super().noise(phi_BLI)[..., :1].expand(self.n_samples, *phi_BLI.shape)


class BinaryTemplate(PairTemplate):
    """DisARM with places to break: stick-breaking with one stick."""

    name = "disarm"

    def check_shape(self, n_latents, n_categories):
        if n_categories != 2:
            raise ValueError(f"disarm: expected n_categories = 2, got {n_categories}. Use disarm_sb.")


class BinaryWithoutSigma(BinaryTemplate):
    """½ (f(b) − f(b̃)) (b − b̃)."""

    def coupled(self, yes_PSBLI, p_BLI):
        return yes_PSBLI[0] - yes_PSBLI[1]


class BinarySigmaOfSignedLogit(BinaryTemplate):
    """σ(φ) for σ(|φ|)."""

    def coupled(self, yes_PSBLI, p_BLI):
        return (yes_PSBLI[0] - yes_PSBLI[1]) * p_BLI


class BinaryWithoutSign(BinaryTemplate):
    """1[b ≠ b̃] without (−1)^b̃."""

    def coupled(self, yes_PSBLI, p_BLI):
        return super().coupled(yes_PSBLI, p_BLI).abs()


class BinaryARM(BinaryTemplate):
    """ARM, ½ (f(b) − f(b̃)) (2u − 1), before it is averaged over u: unbiased, but not DisARM."""

    def noise(self, phi_BLI):
        self.kept = super().noise(phi_BLI)
        return self.kept

    def coupled(self, yes_PSBLI, p_BLI):
        return 2 * self.kept.sigmoid() - 1


class BinaryLeaveOneOut(BinaryTemplate):
    """The score function of two codes, as if they were independent."""

    def coupled(self, yes_PSBLI, p_BLI):
        return yes_PSBLI[0] - yes_PSBLI[1]

    def twin(self, noise_SBLI):
        return self.noise(noise_SBLI[0])


class BinaryNoiseSharedByLatents(BinaryTemplate):
    def noise(self, phi_BLI):
        return super().noise(phi_BLI)[:, :, :1].expand(self.n_samples, *phi_BLI.shape)


class SwapTemplate(Estimator):
    """ARSM with places to break; unbroken, it passes every check."""

    name, unbiased, relaxes, black_box = "arsm", True, False, True

    def __init__(self, *, n_samples=1):
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents, n_categories):
        return self.n_samples * (1 + n_categories * (n_categories - 1) // 2)

    def noise(self, logits_BLK):
        dtype = torch.promote_types(logits_BLK.dtype, torch.float32)
        return torch.empty((self.n_samples, *logits_BLK.shape), dtype=dtype).uniform_().log_().neg_().clamp_(min=1e-37)

    def exchange(self, e_SBLK, c, j):
        order = list(range(e_SBLK.shape[-1]))
        order[c], order[j] = j, c
        return e_SBLK[..., order]

    def classes(self, e_SBLK, logits_BLK):
        return (e_SBLK.log() - logits_BLK).argmin(-1)

    def baseline(self, table_SBKK):
        return table_SBKK.mean(-2, keepdim=True)

    def weight(self, dirichlet_SBLK):
        return 1 / dirichlet_SBLK.shape[-1] - dirichlet_SBLK

    def gradient(self, advantage_SBKK, weight_SBLK):
        return (advantage_SBKK[:, :, None] * weight_SBLK[..., None, :]).sum(-1)

    def forward(self, logits_BLK, cost):
        n_categories, e_SBLK, fixed_BLK = logits_BLK.shape[-1], self.noise(logits_BLK), logits_BLK.detach()
        cost_SB = self.evaluate(cost, one_hot(self.classes(e_SBLK, fixed_BLK), like=fixed_BLK))
        table_SBKK = cost_SB.detach().to(e_SBLK.dtype)[..., None, None].repeat(1, 1, n_categories, n_categories)
        for c in range(n_categories):
            for j in range(c):
                class_SBL = self.classes(self.exchange(e_SBLK, c, j), fixed_BLK)
                exchanged_SB = self.evaluate_classes(cost, class_SBL, like=fixed_BLK)
                table_SBKK[..., c, j] = table_SBKK[..., j, c] = exchanged_SB.to(e_SBLK.dtype)
        weight_SBLK = self.weight(e_SBLK / e_SBLK.sum(-1, keepdim=True))
        gradient_BLK = self.gradient(table_SBKK - self.baseline(table_SBKK), weight_SBLK).mean(0)
        cost_B = cost_SB.mean(0)
        linear_B = (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-1, -2)).to(cost_B.dtype)
        return Estimate(replace_gradient(cost_B, cost_B + linear_B))


class SwapWithoutBaseline(SwapTemplate):
    """Σ_j F_cj (1/K − ϖ_j) and nothing subtracted, so that the sum over classes is not 0."""

    def baseline(self, table_SBKK):
        return 0.0


class SwapBaselineOfTheCode(SwapTemplate):
    """f(D) is subtracted: unbiased for two classes, not ARSM."""

    def baseline(self, table_SBKK):
        return table_SBKK[..., :1, :1]


class SwapARS(SwapTemplate):
    """ARS with one reference class: unbiased, without the merge."""

    def gradient(self, advantage_SBKK, weight_SBLK):
        n_categories = weight_SBLK.shape[-1]
        return n_categories * advantage_SBKK[:, :, None, :, 0] * weight_SBLK[..., :1]


class SwapOnlyInTheFirstLatent(SwapTemplate):
    def exchange(self, e_SBLK, c, j):
        exchanged_SBLK = super().exchange(e_SBLK, c, j)
        return torch.cat([exchanged_SBLK[:, :, :1], e_SBLK[:, :, 1:]], dim=2)


class SwapOfLogitsToo(SwapTemplate):
    """Class names are exchanged, not the noise: θ moves with ϖ."""

    def exchange(self, e_SBLK, c, j):
        return e_SBLK, c, j

    def classes(self, e_SBLK, logits_BLK):
        if not isinstance(e_SBLK, tuple):
            return super().classes(e_SBLK, logits_BLK)
        e_SBLK, c, j = e_SBLK
        class_SBL = super().classes(e_SBLK, logits_BLK)
        return torch.where(class_SBL == c, j, torch.where(class_SBL == j, c, class_SBL))


class SwapArgmax(SwapTemplate):
    """D = argmax(log ϖ + θ), as if ϖ were a Gumbel variable."""

    def classes(self, e_SBLK, logits_BLK):
        return (e_SBLK.log() + logits_BLK).argmax(-1)


class SwapWeightOfWrongSign(SwapTemplate):
    def weight(self, dirichlet_SBLK):
        return -super().weight(dirichlet_SBLK)


class SwapMeanOverExchanges(SwapTemplate):
    """The mean over j in the place of the sum."""

    def gradient(self, advantage_SBKK, weight_SBLK):
        return super().gradient(advantage_SBKK, weight_SBLK) / weight_SBLK.shape[-1]


class SwapExponentialNoise(SwapTemplate):
    """The exponential variables are not normalised to a Dirichlet sample."""

    def weight(self, dirichlet_SBLK):
        scale = torch.empty_like(dirichlet_SBLK[..., :1]).uniform_().log_().neg_()
        return 1 / dirichlet_SBLK.shape[-1] - dirichlet_SBLK * dirichlet_SBLK.shape[-1] * scale


class SetTemplate(Estimator):
    """The unordered-set estimator with places to break; unbroken, it passes every check."""

    name, unbiased, relaxes, black_box, min_samples = "unordered_set", True, False, True, 2

    def __init__(self, *, n_samples=4):
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=2)

    def check_shape(self, n_latents, n_categories):
        if n_categories**n_latents < self.n_samples:
            raise ValueError("unordered_set: too few codes")

    def draw(self, logits_BLK):
        return draw_set(logits_BLK, self.n_samples)

    def weights(self, log_q_SB, log_rest_B):
        return leave_one_out(log_q_SB, log_rest_B)

    def reported(self, weight_SB, cost_SB):
        return (weight_SB * cost_SB).sum(0)

    def baseline(self, share_SSB, weight_SB, cost_SB):
        return (share_SSB * cost_SB).sum(1)

    def forward(self, logits_BLK, cost):
        self.check_shape(*logits_BLK.shape[1:])
        class_SBL, log_q_SB, log_rest_B = self.draw(logits_BLK)
        weight_SB, share_SSB = self.weights(log_q_SB, log_rest_B)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        cost_B = self.reported(weight_SB, cost_SB).to(cost_SB.dtype)
        fixed_SB = cost_SB.detach().to(weight_SB.dtype)
        advantage_SB = fixed_SB - self.baseline(share_SSB, weight_SB, fixed_SB)
        score_SB = weight_SB * advantage_SB * log_prob(logits_BLK, class_SBL)
        return Estimate(replace_gradient(cost_B, cost_B + score_SB.sum(0).to(cost_B.dtype)))


class SetPlainMean(SetTemplate):
    """All codes of the set count alike."""

    def weights(self, log_q_SB, log_rest_B):
        weight_SB, share_SSB = super().weights(log_q_SB, log_rest_B)
        return torch.full_like(weight_SB, 1 / len(weight_SB)), share_SSB


class SetNormalisedProbabilities(SetTemplate):
    """q(s) / q(S) in the place of q(s) R(S, s)."""

    def weights(self, log_q_SB, log_rest_B):
        return log_q_SB.softmax(0), super().weights(log_q_SB, log_rest_B)[1]


class SetReportsThePlainMean(SetTemplate):
    def reported(self, weight_SB, cost_SB):
        return cost_SB.mean(0)


class SetWithoutBaseline(SetTemplate):
    """Unbiased, but with the variance of the cost's own level."""

    def baseline(self, share_SSB, weight_SB, cost_SB):
        return 0.0


class SetBaselineOfAllCodes(SetTemplate):
    """The weighted mean of all codes for each of them: it knows the code that it judges."""

    def baseline(self, share_SSB, weight_SB, cost_SB):
        return (weight_SB * cost_SB).sum(0)


class SetBaselineOfTheOthersOnly(SetTemplate):
    """The code's own share is left out."""

    def baseline(self, share_SSB, weight_SB, cost_SB):
        return super().baseline(share_SSB, weight_SB, cost_SB) - share_SSB.diagonal().T * cost_SB


class SetWithReplacement(SetTemplate):
    """Independent codes, which may repeat, with the weights of different ones."""

    def draw(self, logits_BLK):
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        log_q_SB = log_prob(logits_BLK.detach(), class_SBL)
        return class_SBL, log_q_SB, (1 - log_q_SB.exp().sum(0)).clamp(min=1e-9).log()


class SetOfTheMostProbable(SetTemplate):
    """Beam search without noise."""

    def draw(self, logits_BLK):
        n_categories = logits_BLK.shape[-1]
        codes_SL = torch.cartesian_prod(*[torch.arange(n_categories)] * logits_BLK.shape[1])
        class_CBL = codes_SL.view(-1, 1, logits_BLK.shape[1]).expand(-1, len(logits_BLK), -1)
        log_q_CB = log_prob(logits_BLK.detach(), class_CBL)
        order_CB = log_q_CB.argsort(0, descending=True)
        kept_SB, left_CB = order_CB[: self.n_samples], order_CB[self.n_samples :]
        class_SBL = class_CBL.gather(0, kept_SB[..., None].expand(-1, -1, logits_BLK.shape[1]))
        return class_SBL, log_q_CB.gather(0, kept_SB), log_q_CB.gather(0, left_CB).logsumexp(0)


class SetForgetsTheRest(SetTemplate):
    """The codes outside the set are taken to have no probability."""

    def weights(self, log_q_SB, log_rest_B):
        return super().weights(log_q_SB, torch.full_like(log_rest_B, -1e3))


RIGHT = [PairTemplate, BinaryTemplate, SwapTemplate, SetTemplate]
MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls not in RIGHT
]
