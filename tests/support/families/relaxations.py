"""Relaxations and sums whose one-hot codes follow another law than softmax(θ): formulas as loops, and mutants."""

import math

import torch
from naive_formulas import (
    entmax,
    entmax_jacobian,
    gumbel_softmax,
    jacobian,
    sample_by_sample,
    sampled_code,
    value_and_slope,
)
from scipy import stats
from torch.nn import functional as F

from estimators import Estimate, Estimator, Pathwise, replace_gradient
from estimators.gumbel import log_prob, one_hot, perturb
from estimators.igr import IGR, SMALLEST_SCALE, moments, threshold
from estimators.reference_problem import all_codes


def normal_noise(n_samples, shape, seed):
    """The N(0, 1) noise (S, *shape) that an estimator draws after torch.manual_seed(seed)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.randn((n_samples, *shape), dtype=torch.float64)


def gaussian_softmax(estimator, logits_BLK, cost, seed=0):
    """(1/τ) J(S) ∇f(S), S = softmax((θ + N)/τ): the formula of gumbel_softmax, with other noise."""
    noise_SBLK = normal_noise(estimator.n_samples, logits_BLK.shape, seed)
    return sample_by_sample(gumbel_softmax)(estimator, logits_BLK, noise_SBLK, cost)


def softmax_plus_plus(u_J, tau, delta):
    """S_k = e^{u_k/τ}/(δ + Σ e^{u_j/τ}), and the rest for class K."""
    weights_J = torch.exp(u_J / tau)
    total = weights_J.sum() + delta
    return torch.cat([weights_J / total, (delta / total).reshape(1)])


def igr_scale(raw):
    """σ(raw) = ε + (1 − ε) softplus(raw)/log 2, and its derivative."""
    unit = (1 - SMALLEST_SCALE) / math.log(2)
    return SMALLEST_SCALE + unit * math.log1p(math.exp(raw)), unit / (1 + math.exp(-raw))


def igr(estimator, logits_BLH, cost, seed=0):
    """∂S/∂u is the first K − 1 columns of J(S)/τ; ∂u_j/∂μ_j = 1 and ∂u_j/∂raw_j = N_j σ'(raw_j)."""
    n_examples, n_latents, width = logits_BLH.shape
    n_gaussians = width // 2
    noise_SBLJ = normal_noise(estimator.n_samples, (n_examples, n_latents, n_gaussians), seed)
    n_categories = n_gaussians + 1
    c = stats.norm.ppf(n_categories ** (-1 / n_gaussians))
    delta = torch.tensor(math.exp(c / estimator.tau), dtype=torch.float64)
    result_BLH = torch.zeros_like(logits_BLH)
    for noise_BLJ in noise_SBLJ:
        for b in range(n_examples):
            codes, scales, slopes = [], [], []
            for x_H in logits_BLH[b]:
                pairs = [igr_scale(raw.item()) for raw in x_H[n_gaussians:]]
                scales.append(torch.tensor([scale for scale, _ in pairs], dtype=torch.float64))
                slopes.append(torch.tensor([slope for _, slope in pairs], dtype=torch.float64))
            for l, x_H in enumerate(logits_BLH[b]):  # noqa: E741
                u_J = x_H[:n_gaussians] + scales[l] * noise_BLJ[b, l]
                codes.append(softmax_plus_plus(u_J, estimator.tau, delta))
            _, slope_LK = value_and_slope(cost, torch.stack(codes))
            for l, code_K in enumerate(codes):  # noqa: E741
                to_u_J = (jacobian(code_K) @ slope_LK[l] / estimator.tau)[:n_gaussians]
                to_raw_J = to_u_J * noise_BLJ[b, l] * slopes[l]
                result_BLH[b, l] += torch.cat([to_u_J, to_raw_J]) / estimator.n_samples
    return result_BLH


def perturbed_argmax(estimator, logits_BLK, cost, seed=0):
    """Jᵀ ∇f(S), S the mean of the argmaxes and J the mean of D Nᵀ/τ, one matrix for each latent."""
    noise_MBLK = normal_noise(estimator.n_draws, logits_BLK.shape, seed)
    result_BLK = torch.zeros_like(logits_BLK)
    for b, theta_LK in enumerate(logits_BLK):
        codes = [sampled_code(theta_LK, estimator.tau * noise_BLK[b]) for noise_BLK in noise_MBLK]
        _, slope_LK = value_and_slope(cost, sum(codes) / len(codes))
        for l in range(len(theta_LK)):  # noqa: E741
            jacobian_KK = sum(
                torch.outer(z_LK[l], noise_BLK[b, l]) / estimator.tau
                for z_LK, noise_BLK in zip(codes, noise_MBLK, strict=True)
            ) / len(codes)
            result_BLK[b, l] = jacobian_KK.T @ slope_LK[l]
    return result_BLK


def sparse_marginal(_, logits_BLK, cost, seed=0):
    """J_l Σ_z f(z) Π_{m≠l} p_m(z_m) onehot(z_l) for each latent l, J_l the Jacobian of sparsemax, p by bisection."""
    result_BLK = torch.zeros_like(logits_BLK)
    codes_SLK = all_codes(*logits_BLK.shape[1:])
    for b, theta_LK in enumerate(logits_BLK):
        probs = [entmax(x_K, 2.0) for x_K in theta_LK]
        for l, p_K in enumerate(probs):  # noqa: E741
            slope_K = torch.zeros_like(p_K)
            for z_LK in codes_SLK:
                others = math.prod((probs[m] @ z_LK[m]).item() for m in range(len(probs)) if m != l)
                slope_K += others * cost(z_LK[None, None])[0, 0] * z_LK[l]
            result_BLK[b, l] = entmax_jacobian(p_K, 2.0) @ slope_K
    return result_BLK


NAIVE = {
    "gaussian_softmax": gaussian_softmax,
    "igr": igr,
    "perturbed_argmax": perturbed_argmax,
    "sparse_marginal": sparse_marginal,
}
SETTINGS = {
    "gaussian_softmax": [{"tau": 0.3, "n_samples": 2}],
    "igr": [{"tau": 0.3, "n_samples": 2}],
    "perturbed_argmax": [{"n_draws": 3}],
    "sparse_marginal": [{"max_codes": 100}],
}
REFUSED = [
    *(
        ("perturbed_argmax", {"n_draws": bad}, f"perturbed_argmax: expected a whole number n_draws >= 1, got {bad!r}.")
        for bad in (0, -1, 2.0, True, "4", None)
    ),
    *(
        (
            "sparse_marginal",
            {"max_codes": bad},
            f"sparse_marginal: expected a whole number max_codes >= 1, got {bad!r}.",
        )
        for bad in (0, 1e4, True, "many")
    ),
]


# Mutants: each has one deliberate mistake.


class _Gaussian(Pathwise):
    name, relaxes = "gaussian_softmax", True

    def __init__(self, *, tau=0.7):
        super().__init__()
        self.tau = tau


class _RightGaussian(_Gaussian):
    def sample(self, logits_BLK):
        noise_SBLK = torch.randn((1, *logits_BLK.shape), dtype=torch.promote_types(logits_BLK.dtype, torch.float32))
        return ((logits_BLK + noise_SBLK) / self.tau).softmax(-1)


class GaussianWithGumbelNoise(_Gaussian):
    def sample(self, logits_BLK):
        return (perturb(logits_BLK, 1) / self.tau).softmax(-1)


class GaussianNoiseNotTempered(_Gaussian):
    """tau divides the logits but not the noise."""

    def sample(self, logits_BLK):
        return (logits_BLK / self.tau + torch.randn((1, *logits_BLK.shape), dtype=torch.float64)).softmax(-1)


class GaussianOfTheSameVarianceAsGumbel(_Gaussian):
    """Noise of variance π²/6, as if to match the Gumbel law."""

    def sample(self, logits_BLK):
        noise_SBLK = torch.randn((1, *logits_BLK.shape), dtype=logits_BLK.dtype) * math.pi / math.sqrt(6)
        return ((logits_BLK + noise_SBLK) / self.tau).softmax(-1)


class GaussianNoiseSharedByTheBatch(_Gaussian):
    def sample(self, logits_BLK):
        noise_SBLK = torch.randn((1, 1, *logits_BLK.shape[1:]), dtype=logits_BLK.dtype)
        return ((logits_BLK + noise_SBLK) / self.tau).softmax(-1)


class GaussianNoiseSharedByTheClasses(_Gaussian):
    """One normal variable for each latent: the softmax does not see it."""

    def sample(self, logits_BLK):
        noise_SBLK = torch.randn((1, *logits_BLK.shape[:2], 1), dtype=logits_BLK.dtype)
        return ((logits_BLK + noise_SBLK) / self.tau).softmax(-1)


class _IGR(Pathwise):
    name, relaxes, shift_invariant = "igr", True, False

    def __init__(self, *, tau=0.7):
        super().__init__()
        self.tau = tau

    def check_shape(self, n_latents, n_categories):
        if n_categories < 2:
            raise ValueError(f"{self.name}: expected n_categories >= 2, got {n_categories}.")

    def n_outputs(self, n_categories):
        return 2 * (n_categories - 1)

    def class_logits(self, logits_BLK):
        return IGR().class_logits(logits_BLK)

    def map(self, u_SBLJ, c):
        return (F.pad(u_SBLJ, (0, 1), value=c) / self.tau).softmax(-1)

    def sample(self, logits_BLK):
        mean_BLJ, scale_BLJ = moments(logits_BLK)
        u_SBLJ = mean_BLJ + scale_BLJ * torch.randn((1, *mean_BLJ.shape), dtype=mean_BLJ.dtype)
        return self.map(u_SBLJ, threshold(mean_BLJ).item())


class IGRWithDeltaOne(_IGR):
    """δ = 1: the prior gives the last class probability 2^{1−K}."""

    def map(self, u_SBLJ, c):
        return super().map(u_SBLJ, 0.0)


class IGRWithDeltaNotTempered(_IGR):
    """δ = e^c at every tau: a threshold of τc."""

    def map(self, u_SBLJ, c):
        return super().map(u_SBLJ, self.tau * c)


class IGRWithRemainderFirst(_IGR):
    def map(self, u_SBLJ, c):
        return super().map(u_SBLJ, c).roll(1, -1)


class IGRWithoutRemainder(_IGR):
    """The softmax of the K − 1 Gaussians, and nothing for the last class."""

    def map(self, u_SBLJ, c):
        return F.pad((u_SBLJ / self.tau).softmax(-1), (0, 1))


class IGRWithVarianceForScale(_IGR):
    """σ² where σ belongs."""

    def sample(self, logits_BLK):
        mean_BLJ, scale_BLJ = moments(logits_BLK)
        u_SBLJ = mean_BLJ + scale_BLJ.square() * torch.randn((1, *mean_BLJ.shape), dtype=mean_BLJ.dtype)
        return self.map(u_SBLJ, threshold(mean_BLJ).item())


class IGRWithScaleDetached(_IGR):
    def sample(self, logits_BLK):
        mean_BLJ, scale_BLJ = moments(logits_BLK)
        u_SBLJ = mean_BLJ + scale_BLJ.detach() * torch.randn((1, *mean_BLJ.shape), dtype=mean_BLJ.dtype)
        return self.map(u_SBLJ, threshold(mean_BLJ).item())


class _Perturbed(Pathwise):
    name, relaxes, shift_invariant = "perturbed_argmax", True, False

    def __init__(self, *, tau=0.7):
        super().__init__()
        self.tau, self.n_draws = tau, 16

    def sample(self, logits_BLK):
        noise_MBLK = torch.randn(
            (self.n_draws, *logits_BLK.shape), dtype=torch.promote_types(logits_BLK.dtype, torch.float32)
        )
        class_MBL = (logits_BLK.detach() + self.tau * noise_MBLK).argmax(-1)
        z_MBLK = one_hot(class_MBL, like=noise_MBLK)
        score_MBL = (self.score(noise_MBLK) * (logits_BLK - logits_BLK.detach())).sum(-1)
        return self.code(z_MBLK, (z_MBLK * score_MBL.unsqueeze(-1)).mean(0)).unsqueeze(0)

    def score(self, noise_MBLK):
        return noise_MBLK / self.tau

    def code(self, z_MBLK, surrogate_BLK):
        return replace_gradient(z_MBLK.mean(0), surrogate_BLK)


class PerturbedWithoutOneOverTau(_Perturbed):
    def score(self, noise_MBLK):
        return noise_MBLK


class PerturbedWithWrongSign(_Perturbed):
    def score(self, noise_MBLK):
        return -noise_MBLK / self.tau


class PerturbedWithOtherNoise(_Perturbed):
    """Code and Jacobian of different draws."""

    def score(self, noise_MBLK):
        return torch.randn_like(noise_MBLK) / self.tau


class PerturbedWithGumbelScore(_Perturbed):
    """1 − e^{−N}: the score of another law of noise."""

    def score(self, noise_MBLK):
        return (1 - (-noise_MBLK).exp()) / self.tau


class PerturbedShowsOneDraw(_Perturbed):
    """The cost sees the first argmax, not the mean of all."""

    def code(self, z_MBLK, surrogate_BLK):
        return replace_gradient(z_MBLK[0], surrogate_BLK)


class _Sparse(Estimator):
    name, relaxes, unbiased, black_box = "sparse_marginal", False, True, True

    def n_cost_evals(self, n_latents, n_categories):
        return n_categories**n_latents

    def class_logits(self, logits_BLK):
        return self.probabilities(logits_BLK).clamp(min=1e-30).log()

    def probabilities(self, logits_BLK):
        """Sparsemax by sorting."""
        sorted_BLK = logits_BLK.sort(-1, descending=True).values
        rank_K = torch.arange(1, logits_BLK.shape[-1] + 1, dtype=logits_BLK.dtype)
        size_BL1 = (1 + rank_K * sorted_BLK > sorted_BLK.cumsum(-1)).sum(-1, keepdim=True)
        total_BL1 = sorted_BLK.cumsum(-1).gather(-1, size_BL1 - 1)
        return (logits_BLK - (total_BL1 - 1) / size_BL1).clamp(min=0)

    def weights(self, logits_BLK, class_SBL):
        return self.probabilities(logits_BLK).expand(*class_SBL.shape, -1).gather(-1, class_SBL[..., None])[..., 0]

    def forward(self, logits_BLK, cost):
        _, n_latents, n_categories = logits_BLK.shape
        class_SL = torch.cartesian_prod(*[torch.arange(n_categories)] * n_latents).view(-1, n_latents)
        class_SBL = class_SL.unsqueeze(1).expand(-1, len(logits_BLK), -1)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        wide_BLK = logits_BLK.to(torch.promote_types(logits_BLK.dtype, torch.float32))
        weight_SB = self.joint(self.weights(wide_BLK, class_SBL))
        return Estimate((weight_SB * cost_SB).sum(0).to(logits_BLK.dtype))

    def joint(self, prob_SBL):
        return prob_SBL.prod(-1)


class SparseWithoutZeros(_Sparse):
    """Probabilities of 0 raised to a thousandth, so that their logarithms exist."""

    def joint(self, prob_SBL):
        return prob_SBL.clamp(min=1e-3).log().sum(-1).exp()


class SparseWithSoftmaxWeights(_Sparse):
    """Softmax weights under the claim of a sparsemax law."""

    def weights(self, logits_BLK, class_SBL):
        return log_prob(logits_BLK, class_SBL).exp().unsqueeze(-1)


class SparseWithOneLatent(_Sparse):
    """The first latent's probability counts alone."""

    def joint(self, prob_SBL):
        return prob_SBL[..., 0]


class SparseClaimsTheSoftmaxLaw(_Sparse):
    def class_logits(self, logits_BLK):
        return logits_BLK


class SparseWithDenseJacobian(_Sparse):
    """The projection without its support: classes of probability 0 receive a gradient."""

    def probabilities(self, logits_BLK):
        return super().probabilities(logits_BLK).detach() + logits_BLK - logits_BLK.detach()


RIGHT = [_RightGaussian, _IGR, _Perturbed, _Sparse]
MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls.__name__[0] != "_"
]
