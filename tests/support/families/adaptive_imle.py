"""Adaptive I-MLE: the published formula as loops, given the state, and deliberate mistakes.

`tests/estimators/test_aimle.py` has its identities, and a loop of how the state moves.
"""

import math

import torch
from naive_formulas import same_noise, sampled_code, value_and_slope

from estimators import Estimate, Estimator, replace_gradient
from estimators.aimle import StepLength
from estimators.gumbel import one_hot, perturb


def centred(slope_LK):
    """Less the mean over classes, which no argmax sees."""
    return torch.stack([slope_K - slope_K.mean() for slope_K in slope_LK])


def step_state(estimator):
    """Return what the step length has learned, as numbers."""
    return {key: value.item() for key, value in estimator.step.named_buffers()}


def length_of(slopes):
    """Root mean square of the entries of those latents whose slope is not 0."""
    rows = [slope_K for slope_LK in slopes for slope_K in centred(slope_LK) if slope_K.abs().max() > 0]
    return math.sqrt(sum((row_K**2).mean().item() for row_K in rows) / len(rows)) if rows else 0.0


def aimle(estimator, logits_BLK, cost, seed=0):
    gumbel_SBLK = same_noise(estimator.n_samples, logits_BLK, seed)
    draws = [(b, noise_BLK[b]) for noise_BLK in gumbel_SBLK for b in range(len(logits_BLK))]
    slopes = [value_and_slope(cost, sampled_code(logits_BLK[b], noise_LK))[1] for b, noise_LK in draws]
    beta, log_square, weight = (getattr(estimator.step, key).item() for key in ("beta", "log_square", "weight"))
    lam = beta / (math.exp(log_square / weight / 2) if weight else length_of(slopes))
    result_BLK = torch.zeros_like(logits_BLK)
    for (b, noise_LK), slope_LK in zip(draws, slopes, strict=True):
        dearer_LK = sampled_code(logits_BLK[b] + lam * slope_LK, noise_LK)
        cheaper_LK = sampled_code(logits_BLK[b] - lam * slope_LK, noise_LK)
        result_BLK[b] += (dearer_LK - cheaper_LK) / (2 * lam) / estimator.n_samples
    return result_BLK


NAIVE = {"aimle": aimle}
SETTINGS = {"aimle": [{"target": 0.3}, {"target": 1.5, "rate": 0.1, "decay": 0.0, "n_samples": 2}]}
REFUSED = [
    *(("aimle", {key: bad}, f"aimle: expected {key} > 0, got {bad!r}.")
      for key in ("target", "rate") for bad in (0.0, -1.0, math.nan, math.inf, True, "1", None)),
    *(("aimle", {"target": bad}, f"aimle: expected target < 2, the entries of a difference, got {bad!r}.")
      for bad in (2, 2.5)),
    *(("aimle", {"decay": bad}, f"aimle: expected 0 <= decay < 1, got {bad!r}.")
      for bad in (-0.1, 1.0, math.nan, True, "0.9", None)),
    ("aimle", {"lam": 1.0}, "aimle: expected parameters among target, rate, decay, n_samples, got 'lam'."),
]  # fmt: skip


# Mutants.


class Template(Estimator):
    """The first call of AIMLE by a hook on the code, with one sample; a mutant changes one of the methods."""

    name, relaxes = "aimle", False

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.step = StepLength(1.0, 0.01, 0.9)  # that of a first call, which the loop reads

    def slope(self, slope_BLK):
        return slope_BLK - slope_BLK.mean(-1, keepdim=True)

    def lam(self, slope_BLK):
        square_BL = slope_BLK.square().mean(-1)
        return 1 / square_BL[square_BL > 0].mean().sqrt() if (square_BL > 0).any() else slope_BLK.new_ones(())

    def targets(self, x_BLK, step_BLK):
        return x_BLK + step_BLK, x_BLK - step_BLK

    def divided(self, difference_BLK, lam):
        return difference_BLK / (2 * lam)

    def forward(self, logits_BLK, cost):
        x_BLK = perturb(logits_BLK.detach(), 1)[0]
        code_BLK = replace_gradient(one_hot(x_BLK.argmax(-1), like=logits_BLK), logits_BLK)

        def gradient(given_BLK):
            slope_BLK = self.slope(given_BLK.to(x_BLK.dtype))
            lam = self.lam(slope_BLK)
            pair = (one_hot(each.argmax(-1), like=x_BLK) for each in self.targets(x_BLK, lam * slope_BLK))
            first_BLK, second_BLK = pair
            return self.divided(first_BLK - second_BLK, lam).to(given_BLK.dtype)

        if code_BLK.requires_grad:
            code_BLK.register_hook(gradient)
        return Estimate(self.evaluate(cost, code_BLK.unsqueeze(0)).mean(0))


class OneSided(Template):
    """That of imle, at the adapted λ."""

    def targets(self, x_BLK, step_BLK):
        return x_BLK, x_BLK - step_BLK


class NotHalved(Template):
    def divided(self, difference_BLK, lam):
        return difference_BLK / lam


class NotDividedByLambda(Template):
    def divided(self, difference_BLK, lam):
        return difference_BLK / 2


class WrongSign(Template):
    def targets(self, x_BLK, step_BLK):
        return x_BLK - step_BLK, x_BLK + step_BLK


class LengthOfTheUncentredSlope(Template):
    """A constant added to the slope of all classes, which no argmax sees, changes λ."""

    def slope(self, slope_BLK):
        return slope_BLK


class LengthInsteadOfRootMeanSquare(Template):
    def lam(self, slope_BLK):
        return 1 / slope_BLK.norm().clamp(min=1e-30)


class LambdaNotScaled(Template):
    def lam(self, slope_BLK):
        return slope_BLK.new_ones(())


class LambdaOfEachExample(Template):
    """A scale for each example: another weighting of the examples."""

    def lam(self, slope_BLK):
        return 1 / slope_BLK.square().mean((-1, -2), keepdim=True).sqrt().clamp(min=1e-30)


class FreshNoise(Template):
    def targets(self, x_BLK, step_BLK):
        return perturb(x_BLK * 0 + step_BLK, 1)[0], perturb(x_BLK * 0 - step_BLK, 1)[0]


class StateThatNoCheckpointHas(Template):
    """β grows with every backward pass, and is no buffer."""

    def lam(self, slope_BLK):
        self.calls += self.training
        return super().lam(slope_BLK) * 1.05**self.calls


class SumOfTheGivenSlope(Template):
    """A slope that was not divided by its weight in the loss, as code that takes the mean over the batch has it."""

    def divided(self, difference_BLK, lam):
        return difference_BLK / (2 * lam) / len(difference_BLK)


RIGHT = [Template]
MUTANTS = [
    OneSided,
    NotHalved,
    NotDividedByLambda,
    WrongSign,
    LengthOfTheUncentredSlope,
    LengthInsteadOfRootMeanSquare,
    LambdaNotScaled,
    LambdaOfEachExample,
    FreshNoise,
    StateThatNoCheckpointHas,
    SumOfTheGivenSlope,
]
