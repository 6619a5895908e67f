"""MuProp, REBAR and RELAX: their formulas as loops, deliberate mistakes in them, and refusals."""

import copy
import math

import torch
from naive_formulas import jacobian, per_latent, sampled_code, score, softmax, value_and_slope
from torch import nn

from estimators import Estimate, Estimator, replace_gradient
from estimators.base import check_count
from estimators.gumbel import one_hot, perturb, sample_classes
from estimators.rebar import RelaxedControl, relaxation_given

# The formulas. Each takes one example, the noise of one sample, and the cost of one code.


def muprop(_, theta_LK, gumbel_LK, cost):
    z_LK = sampled_code(theta_LK, gumbel_LK)
    pi_LK = torch.stack([softmax(x_K) for x_K in theta_LK])
    at_mean, slope_LK = value_and_slope(cost, pi_LK)
    taylor = at_mean + sum(float(s_K @ (z_K - p_K)) for s_K, z_K, p_K in zip(slope_LK, z_LK, pi_LK, strict=True))
    weighted_LK = (value_and_slope(cost, z_LK)[0] - taylor) * score(theta_LK, z_LK)
    return weighted_LK + per_latent([jacobian(p_K) for p_K in pi_LK], slope_LK)


def top_down(theta_K, exponential_K, chosen):
    """θ + G given that its argmax is `chosen`, as a function of θ: with Z = Σ e^θ, −log E_i + log Z for the chosen one,
    −log(E_j/e^θ_j + E_i/Z) for the others."""
    total = torch.exp(theta_K).sum()
    values = []
    for j in range(len(theta_K)):
        if j == chosen:
            values.append(total.log() - exponential_K[j].log())
        else:
            values.append(-(exponential_K[j] / theta_K[j].exp() + exponential_K[chosen] / total).log())
    return torch.stack(values)


def network(estimator, z_LK):
    """r(z) = v·tanh(W z + a) + b and ∇r, unit by unit; 0 for REBAR, which has no network."""
    first, last = getattr(estimator, "first", None), getattr(estimator, "last", None)
    slope_X = torch.zeros(z_LK.numel(), dtype=z_LK.dtype)
    if first is None:
        return 0.0, slope_X.view_as(z_LK)
    value = last.bias.item()
    for w_X, a, v in zip(first.weight.detach().double(), first.bias.tolist(), last.weight[0].tolist(), strict=True):
        unit = math.tanh(float(w_X @ z_LK.flatten()) + a)
        value += v * unit
        slope_X += v * (1 - unit**2) * w_X
    return value, slope_X.view_as(z_LK)


def control(estimator, z_LK, cost):
    """c(z) = η f(σ_τ(z)) + r(z) and ∂c/∂z, each latent by its own Jacobian. r knows no shift: it sees z − log Z."""
    soft_LK = torch.stack([softmax(z_K / estimator.tau) for z_K in z_LK])
    f, slope_LK = value_and_slope(cost, soft_LK)
    slope_LK = per_latent([jacobian(y_K) / estimator.tau for y_K in soft_LK], slope_LK)
    r, r_slope_LK = network(estimator, z_LK)
    return estimator.eta.item() * f + r, estimator.eta.item() * slope_LK + r_slope_LK


def relaxed(estimator, theta_LK, gumbel_LK, exponential_LK, cost):
    normalised = estimator.name == "relax"
    z_LK = sampled_code(theta_LK, gumbel_LK)

    def law(theta_K):
        return theta_K - torch.exp(theta_K).sum().log() if normalised else theta_K

    def relaxation(theta_K, gumbel_K):
        return law(theta_K) + gumbel_K

    given_LK, path_LK, given_path_LK = [], [], []
    for theta_K, gumbel_K, exponential_K, z_K in zip(theta_LK, gumbel_LK, exponential_LK, z_LK, strict=True):
        i = int(z_K.argmax())

        def conditional(theta_K, exponential_K=exponential_K, i=i):
            return top_down(law(theta_K), exponential_K, i)

        given_LK.append(conditional(theta_K))
        given_path_LK.append(torch.autograd.functional.jacobian(conditional, theta_K).T)
        path_LK.append(torch.autograd.functional.jacobian(lambda x_K, g_K=gumbel_K: relaxation(x_K, g_K), theta_K).T)
    law_LK = torch.stack([law(theta_K) for theta_K in theta_LK])
    _, slope_LK = control(estimator, law_LK + gumbel_LK, cost)
    given, given_slope_LK = control(estimator, torch.stack(given_LK), cost)
    weighted_LK = (value_and_slope(cost, z_LK)[0] - given) * score(theta_LK, z_LK)
    return weighted_LK + per_latent(path_LK, slope_LK) - per_latent(given_path_LK, given_slope_LK)


def averaged(formula, n_noises):
    """Average a formula over samples, example by example; `n_noises` draws of Exp(1), the first one for the sample."""

    def gradient(estimator, logits_BLK, cost, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            estimator = copy.deepcopy(estimator)
            estimator.prepare(*logits_BLK.shape[1:])
            shape = (estimator.n_samples, *logits_BLK.shape)
            first, *others = [
                torch.empty(shape, dtype=logits_BLK.dtype).uniform_().log_().neg_() for _ in range(n_noises)
            ]
        result_BLK = torch.zeros_like(logits_BLK)
        for s in range(estimator.n_samples):
            for b, theta_LK in enumerate(logits_BLK):
                noises = [-first[s, b].log(), *(other[s, b] for other in others)]
                result_BLK[b] += formula(estimator, theta_LK, *noises, cost) / estimator.n_samples
        return result_BLK

    return gradient


NAIVE = {"muprop": averaged(muprop, 1), "rebar": averaged(relaxed, 2), "relax": averaged(relaxed, 2)}
SETTINGS = {
    "rebar": [{"eta": 0.0}, {"eta": 2.0, "tau": 1.5, "n_samples": 2}],
    "relax": [{"eta": 0.0, "hidden": 3}],
}
BAD_NUMBERS = (math.nan, math.inf, True, "1", None)
REFUSED = [
    *((name, {"eta": bad}, f"{name}: expected eta >= 0, got {bad!r}.")
      for name in ("rebar", "relax") for bad in (-0.1, *BAD_NUMBERS)),
    *((name, {"control_lr": bad}, f"{name}: expected control_lr > 0, got {bad!r}.")
      for name in ("rebar", "relax") for bad in (0.0, -1e-3, *BAD_NUMBERS)),
    *(("relax", {"hidden": bad}, f"relax: expected a whole number hidden >= 1, got {bad!r}.")
      for bad in (0, -1, 2.5, *BAD_NUMBERS)),
    ("rebar", {"hidden": 5}, "rebar: expected parameters among tau, eta, n_samples, control_lr, got 'hidden'."),
]  # fmt: skip

# Mutants: one deliberate mistake each.


class MuPropTemplate(Estimator):
    """MuProp with places to break; unbroken, it passes every check."""

    name, unbiased, relaxes, evaluates_soft = "muprop", True, False, True
    expand_at = staticmethod(lambda pi_BLK, z_SBLK: pi_BLK)
    linear = staticmethod(lambda slope_BLK, z_SBLK, pi_BLK: (slope_BLK * (z_SBLK - pi_BLK)).sum((-1, -2)))
    mean = staticmethod(lambda slope_BLK, pi_BLK: pi_BLK * (slope_BLK - (pi_BLK * slope_BLK).sum(-1, keepdim=True)))
    leaks = False

    def __init__(self, *, n_samples=1):
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents, n_categories):
        return self.n_samples + 1

    def forward(self, logits_BLK, cost):
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        cost_SB, pi_BLK = self.evaluate(cost, z_SBLK), logits_BLK.detach().softmax(-1)
        if not torch.is_grad_enabled():
            return Estimate(cost_SB.mean(0))
        point_BLK = self.expand_at(pi_BLK, z_SBLK).detach().requires_grad_()
        at_point_B = self.evaluate(cost, point_BLK[None])[0]
        (slope_BLK,) = torch.autograd.grad(at_point_B.sum(), point_BLK, retain_graph=True)
        residual_SB = cost_SB.detach() - at_point_B.detach() - self.linear(slope_BLK, z_SBLK, pi_BLK)
        gradient_BLK = (residual_SB[..., None, None] * (z_SBLK - pi_BLK)).mean(0) + self.mean(slope_BLK, pi_BLK)
        cost_B = cost_SB.mean(0)
        surrogate_B = cost_B + (logits_BLK * gradient_BLK).sum((-1, -2)).to(cost_B.dtype)
        return Estimate(replace_gradient(cost_B, surrogate_B + at_point_B if self.leaks else surrogate_B))


class MuPropForgetsTheMean(MuPropTemplate):
    mean = staticmethod(lambda slope_BLK, pi_BLK: 0.0)


class MuPropMeanWithoutJacobian(MuPropTemplate):
    """f'(π) itself is added back, centred so that it sums to 0."""

    mean = staticmethod(lambda slope_BLK, pi_BLK: slope_BLK - slope_BLK.mean(-1, keepdim=True))


class MuPropMeanAddedTwice(MuPropTemplate):
    mean = staticmethod(lambda slope_BLK, pi_BLK: 2 * MuPropTemplate.mean(slope_BLK, pi_BLK))


class MuPropWithoutLinearTerm(MuPropTemplate):
    """Only f(π) is subtracted, though the mean of the linear term is added."""

    linear = staticmethod(lambda slope_BLK, z_SBLK, pi_BLK: 0.0)


class MuPropLinearTermOfOneLatent(MuPropTemplate):
    linear = staticmethod(lambda slope_BLK, z_SBLK, pi_BLK: (slope_BLK * (z_SBLK - pi_BLK))[..., :1, :].sum((-1, -2)))


class MuPropExpandedAtTheSample(MuPropTemplate):
    """The expansion point depends on the sample."""

    expand_at = staticmethod(lambda pi_BLK, z_SBLK: z_SBLK[0])


class MuPropTrainsTheDecoderAtTheMean(MuPropTemplate):
    """The decoder is trained on the mean field, too."""

    leaks = True


class RelaxedTemplate(RelaxedControl):
    """REBAR or RELAX with places to break; unbroken, it passes every check."""

    name, leaks, hidden = "rebar", False, 4

    def __init__(self, *, tau=0.5, eta=1.0, n_samples=1):
        super().__init__(tau=tau, eta=eta, n_samples=n_samples, control_lr=1e-3)
        self.first = self.last = None

    def prepare(self, n_latents, n_categories, n_context=0):
        """A network that does something, where the name says that there is one."""
        if self.name == "relax" and self.first is None:
            self.first, self.last = nn.Linear(n_latents * n_categories, self.hidden), nn.Linear(self.hidden, 1)

    def residual(self, z_TBLK):
        if self.first is None:
            return 0.0
        x_TBX = z_TBLK.flatten(-2)
        for layer in (self.first, self.last):
            x_TBX = nn.functional.linear(x_TBX, layer.weight.to(x_TBX.dtype), layer.bias.to(x_TBX.dtype))
            x_TBX = x_TBX.tanh() if layer is self.first else x_TBX
        return x_TBX.squeeze(-1)

    def control(self, cost_TB, z_TBLK):
        return self.eta.detach() * cost_TB + self.residual(z_TBLK)

    def given(self, log_probs_BLK, z_SBLK, class_SBL):
        return relaxation_given(log_probs_BLK, class_SBL)

    def weigh(self, cost_SB, given_SB):
        return cost_SB - given_SB

    def paths(self, path_SBLK, given_path_SBLK):
        return path_SBLK - given_path_SBLK

    def forward(self, logits_BLK, cost):
        self.prepare(*logits_BLK.shape[1:])
        n, dtype = self.n_samples, torch.promote_types(logits_BLK.dtype, torch.float32)
        log_probs_BLK = logits_BLK.detach().to(dtype).log_softmax(-1)
        z_SBLK = perturb(log_probs_BLK, n)
        class_SBL = z_SBLK.argmax(-1)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        if not torch.is_grad_enabled():
            return Estimate(cost_SB.mean(0))
        given_SBLK, slope_SBLK = self.given(log_probs_BLK, z_SBLK, class_SBL)
        z_TBLK = torch.cat([z_SBLK, given_SBLK]).requires_grad_()
        soft_TB = self.evaluate(cost, (z_TBLK / self.tau).softmax(-1).to(logits_BLK.dtype)).to(dtype)
        control_TB = self.control(soft_TB, z_TBLK)
        (path_TBLK,) = torch.autograd.grad(control_TB.sum(), z_TBLK, retain_graph=True)
        weight_SB = self.weigh(cost_SB.detach(), control_TB[n:].detach())
        score_SBLK = weight_SB[..., None, None] * one_hot(class_SBL, like=log_probs_BLK)
        h_BLK = (score_SBLK + self.paths(path_TBLK[:n], slope_SBLK * path_TBLK[n:])).mean(0)
        gradient_BLK = h_BLK - log_probs_BLK.exp() * h_BLK.sum(-1, keepdim=True)
        cost_B = cost_SB.mean(0)
        surrogate_B = cost_B + (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-1, -2)).to(cost_B.dtype)
        leak_B = (control_TB[:n] - control_TB[n:]).mean(0).to(cost_B.dtype) if self.leaks else 0.0
        return Estimate(replace_gradient(cost_B, surrogate_B + leak_B))


class RebarUnconditional(RelaxedTemplate):
    """z̃ is drawn from z, not from z | D: unbiased, but a control variate that knows nothing of the sample."""

    def given(self, log_probs_BLK, z_SBLK, class_SBL):
        return perturb(log_probs_BLK, self.n_samples), 1.0


class RebarConditionalDetached(RelaxedTemplate):
    """The pathwise gradient through z̃ is forgotten."""

    def paths(self, path_SBLK, given_path_SBLK):
        return path_SBLK


class RebarSlopeOfTheUnconditional(RelaxedTemplate):
    """z̃ moves with the logits as z does."""

    def given(self, log_probs_BLK, z_SBLK, class_SBL):
        return super().given(log_probs_BLK, z_SBLK, class_SBL)[0], 1.0


class RebarPathsWithWrongSign(RelaxedTemplate):
    def paths(self, path_SBLK, given_path_SBLK):
        return given_path_SBLK - path_SBLK


class RebarWithoutPaths(RelaxedTemplate):
    """f(σ(z̃)) as if it were a baseline."""

    def paths(self, path_SBLK, given_path_SBLK):
        return torch.zeros_like(path_SBLK)


class RebarEtaOnlyInTheScore(RelaxedTemplate):
    def __init__(self, *, tau=0.5, eta=0.5, n_samples=1):
        super().__init__(tau=tau, eta=eta, n_samples=n_samples)

    def paths(self, path_SBLK, given_path_SBLK):
        return (path_SBLK - given_path_SBLK) / self.eta.item()


class RebarClassesShifted(RelaxedTemplate):
    """z̃ is conditioned on another class than the sample."""

    def given(self, log_probs_BLK, z_SBLK, class_SBL):
        return relaxation_given(log_probs_BLK, (class_SBL + 1) % log_probs_BLK.shape[-1])


class RebarSampleOfOtherNoise(RelaxedTemplate):
    """D and z do not belong together: unbiased, but not REBAR."""

    def given(self, log_probs_BLK, z_SBLK, class_SBL):
        z_SBLK.copy_(perturb(log_probs_BLK, self.n_samples))
        return super().given(log_probs_BLK, z_SBLK, class_SBL)


class RebarNoiseSharedByTheBatch(RelaxedTemplate):
    """Trap 10: all examples have the conditional noise of the first."""

    def given(self, log_probs_BLK, z_SBLK, class_SBL):
        noise_SBLK = (-perturb(torch.zeros_like(log_probs_BLK[:1]), self.n_samples)).expand(z_SBLK.shape)
        chosen_SBL1 = class_SBL.unsqueeze(-1)
        top_SBL1, own_SBLK = noise_SBLK.gather(-1, chosen_SBL1), noise_SBLK - log_probs_BLK
        given_SBLK = (-torch.logaddexp(own_SBLK, top_SBL1)).scatter(-1, chosen_SBL1, -top_SBL1)
        return given_SBLK, (own_SBLK - top_SBL1).sigmoid().scatter(-1, chosen_SBL1, 0.0)


class RebarTrainsTheDecoderOnSoftCodes(RelaxedTemplate):
    leaks = True


class RelaxNetworkOnlyInTheScore(RelaxedTemplate):
    """r is subtracted as a baseline that depends on the sample; its gradient is never added back."""

    name = "relax"

    def control(self, cost_TB, z_TBLK):
        return super().control(cost_TB, z_TBLK.detach()) if self.first is not None else cost_TB


class RelaxNetworkSeesTheSample(RelaxedTemplate):
    """r is evaluated at z where z̃ belongs."""

    name = "relax"

    def control(self, cost_TB, z_TBLK):
        n = self.n_samples
        return super().control(cost_TB, torch.cat([z_TBLK[:n], z_TBLK[:n]]))


class RelaxNetworkWithWrongSign(RelaxedTemplate):
    """Added in the score, subtracted in the paths."""

    name = "relax"

    def weigh(self, cost_SB, given_SB):
        return cost_SB + given_SB


class RelaxUnconditional(RebarUnconditional):
    name = "relax"


class RelaxNetworkTrainsTheDecoder(RelaxedTemplate):
    name, leaks = "relax", True


RIGHT = [MuPropTemplate, RelaxedTemplate, type("RelaxTemplate", (RelaxedTemplate,), {"name": "relax"})]
_TEMPLATES = {Estimator, RelaxedControl, MuPropTemplate, RelaxedTemplate}
MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls not in _TEMPLATES
]
