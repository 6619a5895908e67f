"""Estimators with one deliberate mistake each, as users make them: a run would finish, and its report rank it."""

import numpy as np
import torch

from estimators import Estimate, Estimator, Pathwise, replace_gradient
from estimators.gumbel import one_hot, sample_classes


def sampled(logits_BLK):
    return one_hot(sample_classes(logits_BLK, 1), logits_BLK)


class Detached(Pathwise):
    name, relaxes = "detached", False

    def sample(self, logits_BLK):
        return sampled(logits_BLK)


class WithoutGrad(Pathwise):
    name, relaxes = "without_grad", True

    @torch.no_grad()
    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


class NoScore(Estimator):
    name, relaxes = "no_score", False

    def forward(self, logits_BLK, cost):
        return Estimate(self.evaluate(cost, sampled(logits_BLK)).mean(0))


class OverBatch(Pathwise):
    name, relaxes = "over_batch", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(0).unsqueeze(0)


class SlopeOverBatch(Pathwise):
    name, relaxes = "slope_over_batch", False

    def sample(self, logits_BLK):
        return replace_gradient(sampled(logits_BLK), logits_BLK.softmax(0).unsqueeze(0))


class ScoreOverBatch(Estimator):
    name, relaxes = "score_over_batch", False

    def forward(self, logits_BLK, cost):
        z_SBLK = sampled(logits_BLK)
        cost_SB = self.evaluate(cost, z_SBLK).detach()
        log_prob_SB = (z_SBLK * logits_BLK.log_softmax(0)).sum((-1, -2))
        return Estimate(replace_gradient(cost_SB, cost_SB * log_prob_SB).mean(0))


class NormalisedOverBatch(Pathwise):
    name, relaxes = "normalised_over_batch", True

    def sample(self, logits_BLK):
        return (logits_BLK - logits_BLK.mean(0).detach()).softmax(-1).unsqueeze(0)


class OverLatents(Pathwise):
    name, relaxes = "over_latents", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(1).unsqueeze(0)


class SlopeOverLatents(Pathwise):
    name, relaxes = "slope_over_latents", False

    def sample(self, logits_BLK):
        return replace_gradient(sampled(logits_BLK), logits_BLK.softmax(1).unsqueeze(0))


class InPlace(Pathwise):
    name, relaxes = "in_place", True

    def sample(self, logits_BLK):
        logits_BLK -= logits_BLK.amax(-1, keepdim=True).detach()
        return logits_BLK.softmax(-1).unsqueeze(0)


class InData(Pathwise):
    name, relaxes = "in_data", True

    def sample(self, logits_BLK):
        logits_BLK.data.mul_(2)
        return logits_BLK.softmax(-1).unsqueeze(0)


class NotANumber(Pathwise):
    name, relaxes = "not_a_number", True

    def sample(self, logits_BLK):
        return (logits_BLK * 0).log().softmax(-1).unsqueeze(0)


class SlopeIsNotANumber(Pathwise):
    name, relaxes = "slope_is_not_a_number", True

    def sample(self, logits_BLK):
        zero_BLK = logits_BLK - logits_BLK.detach()
        return (logits_BLK + zero_BLK.abs().sqrt()).softmax(-1).unsqueeze(0)


class OffTheSimplex(Pathwise):
    name, relaxes = "off_the_simplex", True

    def sample(self, logits_BLK):
        return 2 * logits_BLK.softmax(-1).unsqueeze(0)


class SoftThoughHard(Pathwise):
    name, relaxes = "soft_though_hard", False

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


class WithoutSamples(Pathwise):
    name, relaxes = "without_samples", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1)


class OneClassLess(Pathwise):
    name, relaxes = "one_class_less", True

    def sample(self, logits_BLK):
        return logits_BLK[..., 1:].softmax(-1).unsqueeze(0)


class CostOfTheBatch(Estimator):
    name, relaxes = "cost_of_the_batch", True

    def forward(self, logits_BLK, cost):
        return Estimate(self.evaluate(cost, logits_BLK.softmax(-1).unsqueeze(0)).mean())


class Constant(Pathwise):
    name, relaxes = "constant", False

    def sample(self, logits_BLK):
        first_SBL = torch.zeros(1, *logits_BLK.shape[:2], dtype=torch.long)
        return replace_gradient(one_hot(first_SBL, logits_BLK), logits_BLK.softmax(-1).unsqueeze(0))


class ConstantSlope(Pathwise):
    name, relaxes = "constant_slope", False

    def sample(self, logits_BLK):
        return replace_gradient(sampled(logits_BLK), 0 * logits_BLK.unsqueeze(0))


class FirstLatentOnly(Pathwise):
    name, relaxes = "first_latent_only", False

    def sample(self, logits_BLK):
        first_BLK = torch.cat([logits_BLK[:, :1], logits_BLK[:, 1:].detach()], 1)
        return replace_gradient(sampled(logits_BLK), first_BLK.softmax(-1).unsqueeze(0))


class Doubled(Estimator):
    name, relaxes = "doubled", True

    def forward(self, logits_BLK, cost):
        return Estimate(self.evaluate(cost, logits_BLK.softmax(-1).unsqueeze(0)).mean(0).double())


class Halved(Pathwise):
    name, relaxes = "halved", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0).half()


class NeverAsks(Estimator):
    name, relaxes = "never_asks", True

    def forward(self, logits_BLK, cost):
        return Estimate(logits_BLK.square().sum((-1, -2)))


class Reseeds(Pathwise):
    name, relaxes = "reseeds", False

    def sample(self, logits_BLK):
        torch.manual_seed(0)
        return replace_gradient(sampled(logits_BLK), logits_BLK.softmax(-1).unsqueeze(0))


class NoiseOfNumpy(Pathwise):
    name, relaxes = "noise_of_numpy", True

    def sample(self, logits_BLK):
        return (logits_BLK * float(np.random.rand())).softmax(-1).unsqueeze(0)


class Raises(Pathwise):
    name, relaxes = "raises", True

    def sample(self, logits_BLK):
        return torch.einsum("bl,bl->b", logits_BLK, logits_BLK)
