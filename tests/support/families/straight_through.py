"""One-hot codes and a differentiable cost: the published formulas as loops, deliberate mistakes, and refusals.

`tests/estimators/test_straight_through.py` has the identities of the family.
"""

import math

import torch
from naive_formulas import jacobian, per_latent, sampled_code, softmax, value_and_slope

from estimators import Estimate, Estimator, Pathwise, replace_gradient
from estimators.base import temperature
from estimators.gumbel import one_hot, perturb, perturb_given, sample_classes
from estimators.imle import NO_LAM

# The published formulas. Noise is drawn as the estimators draw it: first one exponential for each class of each sample,
# then, where there are conditional draws, a uniform number for each class and sample and an order of the draws for each
# class, from a seed of their own; the sampled class and class 0 change places.


def stratified_exponential(n_draws, k_first, dtype, generator):
    """−log of u, one in each of n_draws strata of [0, 1) for every entry, shifted by a number of its own."""
    shift_KSBL = torch.rand(k_first, dtype=dtype, generator=generator)
    order_MK = torch.rand(n_draws, k_first[0], dtype=dtype, generator=generator).argsort(0)
    noise_MKSBL = torch.empty(n_draws, *k_first, dtype=dtype)
    for m in range(n_draws):
        for k in range(k_first[0]):
            noise_MKSBL[m, k] = -((shift_KSBL[k] + int(order_MK[m, k]) / n_draws) % 1).log()
    return noise_MKSBL


def with_noise(formula):
    """Average formula(estimator, θ, G, E, cost) over samples; G as Gumbel noise, E the exponentials of the draws."""

    def gradient(estimator, logits_BLK, cost, seed=0):
        n_draws = getattr(estimator, "n_draws", 0)
        shape = (estimator.n_samples, *logits_BLK.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            gumbel_SBLK = -torch.empty(shape, dtype=logits_BLK.dtype).uniform_().log_().neg_().log()
            generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
            exponential_MKSBL = stratified_exponential(n_draws, (shape[-1], *shape[:-1]), logits_BLK.dtype, generator)
        result_BLK = torch.zeros_like(logits_BLK)
        for s in range(estimator.n_samples):
            for b, theta_LK in enumerate(logits_BLK):
                noise_LK, draws_MLK = gumbel_SBLK[s, b], exponential_MKSBL[:, :, s, b].movedim(1, -1)
                result_BLK[b] += formula(estimator, theta_LK, noise_LK, draws_MLK, cost) / estimator.n_samples
        return result_BLK

    return gradient


def conditional_perturbation(theta_K, chosen, exponential_K):
    """θ + G given that its largest entry is `chosen`: −log E_i + log Z there, −log(E_j/e^{θ_j} + E_i/Z) elsewhere."""
    total = theta_K.exp().sum()
    x_K = torch.empty_like(theta_K)
    for j in range(len(theta_K)):
        if j == chosen:
            x_K[j] = -torch.log(exponential_K[chosen]) + torch.log(total)
        else:
            x_K[j] = -torch.log(exponential_K[j] / theta_K[j].exp() + exponential_K[chosen] / total)
    return x_K


def rao_jacobian(theta_K, chosen, draws_MK, tau):
    matrices = []
    for place_K in draws_MK:
        exponential_K = place_K.clone()
        exponential_K[chosen], exponential_K[0] = place_K[0], place_K[chosen]
        matrices.append(jacobian(softmax(conditional_perturbation(theta_K, chosen, exponential_K) / tau)) / tau)
    return sum(matrices) / len(matrices)


def gumbel_rao(estimator, theta_LK, gumbel_LK, draws_MLK, cost):
    z_LK = sampled_code(theta_LK, gumbel_LK)
    matrices = [
        rao_jacobian(theta_K, int(z_K.argmax()), draws_MLK[:, latent], estimator.tau)
        for latent, (theta_K, z_K) in enumerate(zip(theta_LK, z_LK, strict=True))
    ]
    return per_latent(matrices, value_and_slope(cost, z_LK)[1])


def gapped_logits(theta_K, z_K, gap):
    """θ + (max θ − θ_D)·D − relu(θ − max θ + gap)·(1 − D)."""
    if gap == "p":
        prob = (softmax(theta_K) * z_K).sum()
        gap = -math.log(1 - prob) / prob
    lift = (theta_K.max() - (theta_K * z_K).sum()) * z_K
    return theta_K + lift - torch.relu(theta_K - theta_K.max() + gap) * (1 - z_K)


def gapped_jacobian(theta_K, z_K, gap, tau):
    return jacobian(softmax(gapped_logits(theta_K, z_K, gap) / tau)) / tau


def gapped_st(estimator, theta_LK, gumbel_LK, _, cost):
    z_LK = sampled_code(theta_LK, gumbel_LK)
    pairs = zip(theta_LK, z_LK, strict=True)
    matrices = [gapped_jacobian(theta_K, z_K, estimator.gap, estimator.tau) for theta_K, z_K in pairs]
    return per_latent(matrices, value_and_slope(cost, z_LK)[1])


def decoupled_st_gs(estimator, theta_LK, gumbel_LK, _, cost):
    z_LK = sampled_code(theta_LK / estimator.tau_forward, gumbel_LK)
    soft_LK = [softmax(x_K) for x_K in theta_LK / estimator.tau_backward + gumbel_LK]
    matrices = [jacobian(soft_K) / estimator.tau_backward for soft_K in soft_LK]
    return per_latent(matrices, value_and_slope(cost, z_LK)[1])


def reinmax_jacobian(theta_K, z_K, tau):
    """2 J(½(π_τ + D)) − ½ J(π)."""
    return 2 * jacobian((softmax(theta_K / tau) + z_K) / 2) - jacobian(softmax(theta_K)) / 2


def zgr_jacobian(theta_K, z_K):
    """½ [J(π) + (D − π)(D − π)ᵀ]."""
    score_K = z_K - softmax(theta_K)
    return (jacobian(softmax(theta_K)) + torch.outer(score_K, score_K)) / 2


def darn_jacobian(theta_K, z_K):
    """½ (D − π)(D − π)ᵀ."""
    score_K = z_K - softmax(theta_K)
    return torch.outer(score_K, score_K) / 2


def with_jacobian(jacobian_of_code):
    """The formula whose Jacobian depends on θ, D and the estimator's temperature, and on nothing else."""

    def gradient(estimator, theta_LK, gumbel_LK, _, cost):
        z_LK = sampled_code(theta_LK, gumbel_LK)
        pairs = zip(theta_LK, z_LK, strict=True)
        extra = () if estimator.tau is None else (estimator.tau,)
        matrices = [jacobian_of_code(theta_K, z_K, *extra) for theta_K, z_K in pairs]
        return per_latent(matrices, value_and_slope(cost, z_LK)[1])

    return gradient


def reinmax_rao(estimator, theta_LK, gumbel_LK, draws_MLK, cost):
    z_LK = sampled_code(theta_LK, gumbel_LK)
    matrices = []
    for latent, (theta_K, z_K) in enumerate(zip(theta_LK, z_LK, strict=True)):
        middle_K = torch.log((softmax(theta_K) + z_K) / 2)
        rao_KK = rao_jacobian(middle_K, int(z_K.argmax()), draws_MLK[:, latent], estimator.tau)
        matrices.append(2 * rao_KK - jacobian(softmax(theta_K)) / 2)
    return per_latent(matrices, value_and_slope(cost, z_LK)[1])


def imle(estimator, theta_LK, gumbel_LK, _, cost):
    z_LK = sampled_code(theta_LK, gumbel_LK)
    slope_LK = value_and_slope(cost, z_LK)[1]
    target_LK = sampled_code(theta_LK - estimator.lam * slope_LK, gumbel_LK)
    return (z_LK - target_LK) / estimator.lam


FORMULAS = {
    "gumbel_rao": gumbel_rao,
    "gapped_st": gapped_st,
    "decoupled_st_gs": decoupled_st_gs,
    "reinmax": with_jacobian(reinmax_jacobian),
    "zgr": with_jacobian(zgr_jacobian),
    "darn": with_jacobian(darn_jacobian),
    "reinmax_rao": reinmax_rao,
    "imle": imle,
}
NAIVE = {name: with_noise(formula) for name, formula in FORMULAS.items()}

SETTINGS = {
    "gumbel_rao": [{"n_draws": 1}, {"n_draws": 3, "n_samples": 2, "tau": 0.7}],
    "gapped_st": [{"gap": 0.5}, {"gap": "p"}, {"gap": "p", "tau": 0.5, "n_samples": 2}],
    "decoupled_st_gs": [{"tau_forward": 0.5}, {"tau_forward": 0.7, "tau_backward": 2.0}],
    "reinmax": [{"tau": 1.5, "n_samples": 2}],
    "reinmax_rao": [{"n_draws": 1}, {"n_draws": 3, "n_samples": 2, "tau": 0.7}],
    "imle": [{"lam": 0.1}, {"lam": 10.0, "n_samples": 2}],
}

REFUSED = [
    *((name, {"n_draws": bad}, f"{name}: expected a whole number n_draws >= 1, got {bad!r}.")
      for name in ("gumbel_rao", "reinmax_rao") for bad in (0, -1, 2.0, math.nan, True, "4", None)),
    *(("gapped_st", {"gap": bad}, f"gapped_st: expected gap > 0, got {bad!r}.")
      for bad in (0.0, -1.0, math.nan, math.inf, True, None)),
    *(("gapped_st", {"gap": bad}, f'gapped_st: expected gap > 0 or "p", got {bad!r}.') for bad in ("q", "1.0", "")),
    *(("decoupled_st_gs", {key: bad}, f"decoupled_st_gs: expected {key} > 0, got {bad!r}.")
      for key in ("tau_forward", "tau_backward") for bad in (0.0, -1.0, math.nan, math.inf, True, "1", None)),
    ("decoupled_st_gs", {"tau": 1.0}, "decoupled_st_gs: expected parameters among tau_forward, tau_backward, n_samples,"
                                      " got 'tau'."),
    *(("imle", {"lam": bad}, f"imle: expected lam > 0, got {bad!r}.")
      for bad in (0.0, -1.0, math.nan, math.inf, True, "1")),
    ("imle", {"lam": None}, NO_LAM),
]  # fmt: skip


# Mutants, each under the name of the estimator that it imitates.


class Mutant(Pathwise):
    """One-hot codes D; a mutant writes `surrogate(logits_BLK, class_SBL, z_SBLK)`, which carries the gradient."""

    name, relaxes, tau_default = "zgr", False, 0.7
    surrogate = None

    def __init__(self, *, tau=None, n_draws=4):
        super().__init__()
        self.tau, self.n_draws = self.tau_default if tau is None else tau, n_draws

    def sample(self, logits_BLK):
        class_SBL = sample_classes(logits_BLK, 1)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)
        return replace_gradient(z_SBLK, self.surrogate(logits_BLK, class_SBL, z_SBLK).to(logits_BLK.dtype))


class RaoMutant(Mutant):
    name = "gumbel_rao"


class RaoTotalDerivative(RaoMutant):
    """The conditional draws are differentiated too, as the paper writes: another mean."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        return (perturb_given(logits_BLK, class_SBL, self.n_draws) / self.tau).softmax(-1).mean(0)


class RaoWithoutConditioning(RaoMutant):
    """Fresh noise that does not lead to the sampled code."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        return (perturb(logits_BLK, self.n_draws) / self.tau).softmax(-1).mean(0, keepdim=True)


class RaoJacobianOfTheMean(RaoMutant):
    """The softmax of the mean perturbation instead of the mean of softmaxes."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        mean_SBLK = perturb_given(logits_BLK.detach(), class_SBL, self.n_draws).mean(0)
        return (replace_gradient(mean_SBLK, logits_BLK.to(mean_SBLK.dtype).expand_as(mean_SBLK)) / self.tau).softmax(-1)


class RaoSumsOverDraws(RaoMutant):
    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        x_MSBLK = perturb_given(logits_BLK.detach(), class_SBL, self.n_draws)
        tied_MSBLK = replace_gradient(x_MSBLK, logits_BLK.to(x_MSBLK.dtype).expand_as(x_MSBLK))
        return (tied_MSBLK / self.tau).softmax(-1).sum(0)


class RaoOverflows(RaoMutant):
    """exp(θ), as the formula is printed, instead of logaddexp."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        theta_BLK = logits_BLK.detach().float()
        exponential_MSBLK = torch.empty((self.n_draws, *class_SBL.shape, logits_BLK.shape[-1])).uniform_().log_().neg_()
        first_MSBL1 = (exponential_MSBLK * z_SBLK).sum(-1, keepdim=True)
        total_BL1 = theta_BLK.exp().sum(-1, keepdim=True)
        others = -(exponential_MSBLK / theta_BLK.exp() + first_MSBL1 / total_BL1).log()
        x_MSBLK = torch.where(z_SBLK == 1, -first_MSBL1.log() + total_BL1.log(), others)
        tied_MSBLK = replace_gradient(x_MSBLK, logits_BLK.float().expand_as(x_MSBLK))
        return (tied_MSBLK / self.tau).softmax(-1).mean(0)


class GapMutant(Mutant):
    name, gap = "gapped_st", 1.0

    def gapped(self, logits_BLK, z_SBLK, gap):
        x_BLK = logits_BLK.detach()
        largest_BL1 = x_BLK.amax(-1, keepdim=True)
        return (largest_BL1 - x_BLK) * z_SBLK - (x_BLK - largest_BL1 + gap).relu() * (1 - z_SBLK)


class GapNotDetached(GapMutant):
    """The shift depends on θ: the gradient of the lifted class goes to the largest logit."""

    def gapped(self, logits_BLK, z_SBLK, gap):
        largest_BL1 = logits_BLK.amax(-1, keepdim=True)
        return (largest_BL1 - logits_BLK) * z_SBLK - (logits_BLK - largest_BL1 + gap).relu() * (1 - z_SBLK)

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        return ((logits_BLK + self.gapped(logits_BLK, z_SBLK, self.gap)) / self.tau).softmax(-1)


class GapWithoutGap(GapMutant):
    """The sampled class is lifted, the others stay."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        return ((logits_BLK + self.gapped(logits_BLK, z_SBLK, 0.0)) / self.tau).softmax(-1)


class GapOfTheSampledClassToo(GapMutant):
    """1 − D is forgotten: the sampled class falls back by the gap."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        x_BLK = logits_BLK.detach()
        largest_BL1 = x_BLK.amax(-1, keepdim=True)
        shift_SBLK = (largest_BL1 - x_BLK) * z_SBLK - (x_BLK - largest_BL1 + self.gap).relu()
        return ((logits_BLK + shift_SBLK) / self.tau).softmax(-1)


class GapWithoutOneOverTau(GapMutant):
    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        return self.tau * ((logits_BLK + self.gapped(logits_BLK, z_SBLK, self.gap)) / self.tau).softmax(-1)


class GapPWithZeroOverZero(GapMutant):
    """gap = "p" without care for π_D = 1: −log(0)·relu(…) and ∞ − ∞."""

    gap = "p"

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        prob_SBL1 = (logits_BLK.detach().softmax(-1) * z_SBLK).sum(-1, keepdim=True)
        shift_SBLK = self.gapped(logits_BLK, z_SBLK, -(1 - prob_SBL1).log() / prob_SBL1)
        return ((logits_BLK + shift_SBLK) / self.tau).softmax(-1)


class DecoupledMutant(Pathwise):
    """A mutant writes `parts(logits_BLK, noise_SBLK)`: what D is the argmax of, and the soft code."""

    name, relaxes = "decoupled_st_gs", False
    tau_forward, tau_backward = temperature("tau_forward"), temperature("tau_backward")
    parts = None

    def __init__(self, *, tau_forward=0.6, tau_backward=1.7):
        super().__init__()
        self.tau_forward, self.tau_backward = tau_forward, tau_backward

    def class_logits(self, logits_BLK):
        return logits_BLK / self.tau_forward

    def sample(self, logits_BLK):
        hard_SBLK, soft_SBLK = self.parts(logits_BLK, perturb(torch.zeros_like(logits_BLK), 1))
        return replace_gradient(one_hot(hard_SBLK.argmax(-1), like=logits_BLK), soft_SBLK.to(logits_BLK.dtype))


class DecoupledSwapped(DecoupledMutant):
    def parts(self, logits_BLK, noise_SBLK):
        return logits_BLK / self.tau_backward + noise_SBLK, (logits_BLK / self.tau_forward + noise_SBLK).softmax(-1)


class DecoupledTemperedNoise(DecoupledMutant):
    """Temperatures divide the noise too: tau_forward then does nothing."""

    def parts(self, logits_BLK, noise_SBLK):
        perturbed_SBLK = logits_BLK + noise_SBLK
        return perturbed_SBLK / self.tau_forward, (perturbed_SBLK / self.tau_backward).softmax(-1)


class DecoupledFreshNoise(DecoupledMutant):
    """Soft and hard values of different noise."""

    def parts(self, logits_BLK, noise_SBLK):
        return logits_BLK / self.tau_forward + noise_SBLK, perturb(logits_BLK / self.tau_backward, 1).softmax(-1)


class DecoupledWithoutOneOverTau(DecoupledMutant):
    def parts(self, logits_BLK, noise_SBLK):
        soft_SBLK = (logits_BLK / self.tau_backward + noise_SBLK).softmax(-1)
        return logits_BLK / self.tau_forward + noise_SBLK, self.tau_backward * soft_SBLK


class HeunMutant(Mutant):
    """Surrogates by logits at which softmax is a given point."""

    name, tau_default = "reinmax", 1.3

    def at(self, point_SBLK, logits_BLK):
        logits_SBLK = point_SBLK.detach().clamp(min=1e-37).log()
        return replace_gradient(logits_SBLK, logits_BLK.expand_as(logits_SBLK)).softmax(-1)


class ReinMaxSamplesAtTau(HeunMutant):
    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK / self.tau, 1), like=logits_BLK)
        middle_SBLK = ((logits_BLK / self.tau).softmax(-1) + z_SBLK) / 2
        return replace_gradient(z_SBLK, 2 * self.at(middle_SBLK, logits_BLK) - logits_BLK.softmax(-1) / 2)


class ReinMaxWithOneOverTau(HeunMutant):
    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        middle_SBLK = ((logits_BLK / self.tau).softmax(-1) + z_SBLK) / 2
        return 2 * self.at(middle_SBLK, logits_BLK) / self.tau - logits_BLK.softmax(-1) / 2


class ReinMaxSubtractsAtTau(HeunMutant):
    """−½ J(π_τ) instead of −½ J(π)."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        probs_BLK = (logits_BLK / self.tau).softmax(-1)
        return 2 * self.at((probs_BLK + z_SBLK) / 2, logits_BLK) - self.at(probs_BLK.unsqueeze(0), logits_BLK) / 2


class ReinMaxMiddleNotDetached(HeunMutant):
    """The point ½(π + D) moves with θ."""

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        middle_SBLK = ((logits_BLK / self.tau).softmax(-1) + z_SBLK) / 2
        return 2 * middle_SBLK - logits_BLK.softmax(-1) / 2


class ReinMaxWithoutSubtraction(HeunMutant):
    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        return 2 * self.at(((logits_BLK / self.tau).softmax(-1) + z_SBLK) / 2, logits_BLK)


class OuterMutant(Pathwise):
    """½ [weight · J(π) + a bᵀ]: a mutant chooses the weight and writes `factors(z, π)`."""

    name, relaxes, weight = "zgr", False, 1.0

    def factors(self, z_SBLK, probs_BLK):
        return z_SBLK - probs_BLK, z_SBLK - probs_BLK

    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)
        left_SBLK, right_SBLK = (factor.detach() for factor in self.factors(z_SBLK, logits_BLK.softmax(-1)))
        outer_SBLK = left_SBLK * (right_SBLK * logits_BLK).sum(-1, keepdim=True)
        return replace_gradient(z_SBLK, (self.weight * logits_BLK.softmax(-1) + outer_SBLK) / 2)


class ZGRWithoutTheOuterProduct(OuterMutant):
    """Half of straight-through only."""

    def factors(self, z_SBLK, probs_BLK):
        return 0 * z_SBLK, z_SBLK


class ZGRNotHalved(OuterMutant):
    """Straight-through is not halved."""

    weight = 2.0


class ZGRScoreOfTheCodeAlone(OuterMutant):
    """(D − π) Dᵀ instead of (D − π)(D − π)ᵀ: one forgets that the slope is taken about π."""

    def factors(self, z_SBLK, probs_BLK):
        return z_SBLK, z_SBLK - probs_BLK


class ZGRDoubleStraightThrough(OuterMutant):
    """Draws a second code for the second factor."""

    def factors(self, z_SBLK, probs_BLK):
        other_SBLK = one_hot(sample_classes(probs_BLK.log(), 1), like=probs_BLK)
        return z_SBLK - probs_BLK, other_SBLK - probs_BLK


class DarnMutant(OuterMutant):
    name, weight = "darn", 0.0


class DarnNotHalved(DarnMutant):
    def factors(self, z_SBLK, probs_BLK):
        return 2 * (z_SBLK - probs_BLK), z_SBLK - probs_BLK


class DarnAboutZero(DarnMutant):
    """(D − π) Dᵀ: the slope along D instead of along D − π."""

    def factors(self, z_SBLK, probs_BLK):
        return z_SBLK, z_SBLK - probs_BLK


class DarnWithWrongSign(DarnMutant):
    def factors(self, z_SBLK, probs_BLK):
        return probs_BLK - z_SBLK, z_SBLK - probs_BLK


class HeunRaoMutant(Mutant):
    """Gumbel-Rao at `point(π, D)`; a mutant changes the point, the temperature or what is subtracted."""

    name, weight, subtracted = "reinmax_rao", 2.0, 0.5

    def point(self, probs_BLK, z_SBLK):
        return (probs_BLK + z_SBLK) / 2

    def draws(self, point_SBLK, class_SBL):
        return perturb_given(point_SBLK.clamp(min=1e-37).log(), class_SBL, self.n_draws)

    def surrogate(self, logits_BLK, class_SBL, z_SBLK):
        wide_BLK = logits_BLK.to(torch.promote_types(logits_BLK.dtype, torch.float32))
        probs_BLK = wide_BLK.softmax(-1)
        x_MSBLK = self.draws(self.point(probs_BLK, z_SBLK).detach(), class_SBL)
        soft_SBLK = (replace_gradient(x_MSBLK, wide_BLK.expand_as(x_MSBLK)) / self.tau).softmax(-1).mean(0)
        return self.weight * soft_SBLK - self.subtracted * probs_BLK


class HeunRaoAtTheLogits(HeunRaoMutant):
    """Around π instead of ½(π + D): twice Gumbel-Rao less half straight-through."""

    def point(self, probs_BLK, z_SBLK):
        return probs_BLK.expand_as(z_SBLK)


class HeunRaoWithoutConditioning(HeunRaoMutant):
    def draws(self, point_SBLK, class_SBL):
        x_MSBLK = perturb(point_SBLK[0].clamp(min=1e-37).log(), self.n_draws)
        return x_MSBLK.unsqueeze(1)


class HeunRaoWithoutOneOverTau(HeunRaoMutant):
    weight = 2.0 * Mutant.tau_default


class HeunRaoWithoutSubtraction(HeunRaoMutant):
    subtracted = 0.0


class TargetMutant(Estimator):
    """I-MLE by a hook on the code, with one sample; a mutant writes `target(x, slope)` or `difference`."""

    name, relaxes, lam = "imle", False, 1.0

    def target(self, x_BLK, slope_BLK):
        return x_BLK - self.lam * slope_BLK

    def difference(self, z_BLK, target_BLK):
        return (z_BLK - target_BLK) / self.lam

    def forward(self, logits_BLK, cost):
        x_BLK = perturb(logits_BLK.detach(), 1)[0]
        z_BLK = one_hot(x_BLK.argmax(-1), like=logits_BLK)
        code_BLK = replace_gradient(z_BLK, logits_BLK)
        if code_BLK.requires_grad:
            code_BLK.register_hook(
                lambda slope_BLK: self.difference(
                    z_BLK, one_hot(self.target(x_BLK, slope_BLK.to(x_BLK.dtype)).argmax(-1), like=z_BLK)
                )
            )
        return Estimate(self.evaluate(cost, code_BLK.unsqueeze(0)).mean(0))


class TargetUphill(TargetMutant):
    """θ + λ g: the target costs more."""

    def target(self, x_BLK, slope_BLK):
        return x_BLK + self.lam * slope_BLK


class TargetNotDividedByLambda(TargetMutant):
    """The paper's algorithm leaves 1/λ to the learning rate; the specification does not."""

    lam = 2.0

    def difference(self, z_BLK, target_BLK):
        return z_BLK - target_BLK


class TargetWithFreshNoise(TargetMutant):
    def target(self, x_BLK, slope_BLK):
        return perturb(x_BLK * 0 - self.lam * slope_BLK, 1)[0]


class TargetOfTheWrongSign(TargetMutant):
    def difference(self, z_BLK, target_BLK):
        return (target_BLK - z_BLK) / self.lam


class TargetOfTheMeanCost(TargetMutant):
    """∇f times the weight in a mean over four examples, as code that divides by the size of the batch has it."""

    def target(self, x_BLK, slope_BLK):
        return x_BLK - self.lam * slope_BLK / 4


BASES = {Mutant, RaoMutant, GapMutant, DecoupledMutant, HeunMutant, OuterMutant, DarnMutant, HeunRaoMutant}
BASES |= {TargetMutant, Estimator, Pathwise}
MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls not in BASES
]
