"""ReDGE, one-hot and soft: the sampler as loops with explicit Jacobians, and deliberate mistakes in it.

`tests/estimators/test_redge.py` has its law and its identities.
"""

import math

import torch
from naive_formulas import jacobian, onehot, softmax, value_and_slope

from estimators import Estimator, Pathwise, replace_gradient
from estimators.gumbel import exponential, one_hot, sample_classes


def schedule(n_steps, t_1):
    """α_0 … α_{n−1}, as published: 1, then a line from 1 − t_1 to 1e-4."""
    return [1.0, *torch.linspace(1 - t_1, 1e-4, n_steps - 1, dtype=torch.float64).tolist()]


def diffused(theta_K, x_K, n_steps, t_1):
    """The soft code and its Jacobian in θ."""
    alpha, to_x_KK = schedule(n_steps, t_1), torch.zeros(len(theta_K), len(theta_K), dtype=theta_K.dtype)
    eye_KK = torch.eye(len(theta_K), dtype=theta_K.dtype)
    for i in range(n_steps - 1, 0, -1):
        sigma = 1 - alpha[i]
        denoised_K = softmax(theta_K + alpha[i] * x_K / sigma**2)
        to_denoised_KK = jacobian(denoised_K) @ (eye_KK + alpha[i] / sigma**2 * to_x_KK)
        if i == 1:
            return denoised_K, to_denoised_KK
        next_sigma = 1 - alpha[i - 1]
        x_K = alpha[i - 1] * denoised_K + next_sigma * (x_K - alpha[i] * denoised_K) / sigma
        to_x_KK = alpha[i - 1] * to_denoised_KK + next_sigma * (to_x_KK - alpha[i] * to_denoised_KK) / sigma
    raise AssertionError(n_steps)


def redge(estimator, logits_BLK, cost, seed=0):
    """(∂S/∂θ)ᵀ ∇f at the code, D for `redge` and S for `redge_soft`; averaged over samples."""
    shape, hard = (estimator.n_samples, *logits_BLK.shape), estimator.name == "redge"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gumbel_SBLK = -torch.rand(shape, dtype=logits_BLK.dtype).log().neg().log() if hard else torch.zeros(shape)
        normal_SBLK = torch.randn(shape, dtype=logits_BLK.dtype)
    result_BLK = torch.zeros_like(logits_BLK)
    for s in range(estimator.n_samples):
        for b, theta_LK in enumerate(logits_BLK):
            codes, jacobians = [], []
            for latent, theta_K in enumerate(theta_LK):
                soft_K, to_soft_KK = diffused(theta_K, normal_SBLK[s, b, latent], estimator.n_steps, estimator.t_1)
                chosen = int(torch.argmax(soft_K.log() + gumbel_SBLK[s, b, latent]))
                codes.append(onehot(chosen, len(theta_K)) if hard else soft_K)
                jacobians.append(to_soft_KK)
            _, slope_LK = value_and_slope(cost, torch.stack(codes))
            for latent, to_soft_KK in enumerate(jacobians):
                result_BLK[b, latent] += to_soft_KK.T @ slope_LK[latent] / estimator.n_samples
    return result_BLK


NAIVE = {"redge": redge, "redge_soft": redge}
SETTINGS = {
    name: [{"n_steps": 2}, {"n_steps": 3, "t_1": 0.9, "n_samples": 2}, {"t_1": 0.3}, {"t_1": last, "n_steps": 4}]
    for name, last in (("redge", 1.0), ("redge_soft", 0.7))
}
REFUSED = [
    *(
        (name, {"t_1": bad}, f"{name}: expected 0.01 <= t_1 <= 1, got {bad!r}.")
        for name in NAIVE
        for bad in (0.0, -0.5, 1.5, math.nan, math.inf, True, "1", None)
    ),
    *(
        (name, {"n_steps": bad}, f"{name}: expected a whole number n_steps >= 2, got {bad!r}.")
        for name in NAIVE
        for bad in (1, 0, -3, 2.0, math.nan, True, "4", None)
    ),
]


# Mutants, each under the name of the estimator that it imitates.


class Sampler(Pathwise):
    """The sampler step by step; a mutant changes a part."""

    name, relaxes = "redge_soft", True

    def __init__(self, *, n_steps=4, t_1=0.5):
        super().__init__()
        self.n_steps, self.t_1 = n_steps, t_1

    def schedule(self):
        return schedule(self.n_steps, self.t_1)

    def sigma(self, alpha):
        return 1 - alpha

    def shift(self, alpha, x):
        return alpha * x / self.sigma(alpha) ** 2

    def step(self, x, denoised, alpha, next_alpha):
        return next_alpha * denoised + self.sigma(next_alpha) * (x - alpha * denoised) / self.sigma(alpha)

    def soft(self, logits_BLK):
        alphas, x = self.schedule(), torch.randn((1, *logits_BLK.shape), dtype=logits_BLK.dtype)
        if x.dtype == torch.bfloat16:
            x = torch.randn((1, *logits_BLK.shape))
        for i in range(len(alphas) - 1, 0, -1):
            denoised = (logits_BLK.to(x.dtype) + self.shift(alphas[i], x)).softmax(-1)
            if i > 1:
                x = self.step(x, denoised, alphas[i], alphas[i - 1])
        return denoised

    def sample(self, logits_BLK):
        return self.soft(logits_BLK)


class SlopeOfTheLastStepAlone(Sampler):
    """x is detached: gradients do not flow through the steps."""

    def step(self, x, denoised, alpha, next_alpha):
        return super().step(x, denoised, alpha, next_alpha).detach()


class VariancePreserving(Sampler):
    """σ = √(1 − α²), the schedule of most diffusion models."""

    def sigma(self, alpha):
        return (1 - alpha**2) ** 0.5


class PosteriorOverSigma(Sampler):
    """σ in the place of σ² in the denoiser."""

    def shift(self, alpha, x):
        return alpha * x / self.sigma(alpha)


class OneStepMore(Sampler):
    """n_steps calls of the denoiser."""

    def schedule(self):
        return schedule(self.n_steps + 1, self.t_1)


class NoiseNotRescaled(Sampler):
    """The noise in x keeps its size σ_i."""

    def step(self, x, denoised, alpha, next_alpha):
        return next_alpha * denoised + (x - alpha * denoised)


class FreshNoiseInEveryStep(Sampler):
    """The noise is drawn anew instead of read off x: no deterministic sampler."""

    def step(self, x, denoised, alpha, next_alpha):
        return next_alpha * denoised + self.sigma(next_alpha) * torch.randn_like(x)


class HardSampler(Sampler):
    """D ~ Cat(S), the noise of D drawn first; a mutant changes how a code is chosen, or what carries its gradient."""

    name, relaxes = "redge", False

    def choose(self, soft_SBLK, noise_SBLK, logits_BLK):
        return (soft_SBLK.detach().log() - noise_SBLK).argmax(-1)

    def sample(self, logits_BLK):
        noise_SBLK = exponential((1, *logits_BLK.shape), like=logits_BLK).log()
        soft_SBLK = self.soft(logits_BLK)
        class_SBL = self.choose(soft_SBLK, noise_SBLK, logits_BLK)
        return replace_gradient(one_hot(class_SBL, like=logits_BLK), soft_SBLK.to(logits_BLK.dtype))


class CodeIsTheLargest(HardSampler):
    """The argmax of S, without noise of its own."""

    def choose(self, soft_SBLK, noise_SBLK, logits_BLK):
        return soft_SBLK.argmax(-1)


class CodeOfTheSoftmax(HardSampler):
    """D ~ Cat(softmax(θ)), as it should perhaps be: code and slope of different noise."""

    def choose(self, soft_SBLK, noise_SBLK, logits_BLK):
        return (logits_BLK - noise_SBLK).argmax(-1)


class CodeOfOtherNoise(HardSampler):
    """The code is a sample of another soft code."""

    def choose(self, soft_SBLK, noise_SBLK, logits_BLK):
        return sample_classes(self.soft(logits_BLK).detach().log()[0], 1)


class HardSlopeOfTheLastStepAlone(HardSampler, SlopeOfTheLastStepAlone):
    """As SlopeOfTheLastStepAlone."""


class HardVariancePreserving(HardSampler, VariancePreserving):
    """As VariancePreserving."""


MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type)
    and issubclass(cls, Estimator)
    and cls.__module__ == __name__
    and cls not in (Sampler, HardSampler)
]
RIGHT = [Sampler, HardSampler]
