"""Deliberate mistakes in the estimators of the first families; each keeps the name of the one that it imitates."""

import torch

from estimators import Estimate, Estimator, Pathwise, replace_gradient
from estimators.gumbel import log_prob, one_hot, perturb, sample_classes
from estimators.gumbel_entmax import entmax_mapping
from estimators.score_function import ScoreFunction


class NoLeaveOneOut(ScoreFunction):
    """The baseline includes the sample itself: shrinks the gradient by (n−1)/n."""

    name, unbiased, n_samples = "rloo", True, 4

    def advantage(self, cost_SB):
        return cost_SB - cost_SB.mean(0)


class LeaveOneOutOfOneTooMany(ScoreFunction):
    """The sum of the others divided by n, not n − 1: the baseline is too small, yet independent of the sample."""

    name, unbiased, n_samples = "rloo", True, 4

    def advantage(self, cost_SB):
        return cost_SB - (cost_SB.sum(0) - cost_SB) / len(cost_SB)


class BaselineOfTheNextSampleDoubled(ScoreFunction):
    """Unbiased, but not RLOO: the baseline is one other sample's cost."""

    name, unbiased, n_samples = "rloo", True, 4

    def advantage(self, cost_SB):
        return cost_SB - cost_SB.roll(1, 0)


class ScoreWithWrongSign(ScoreFunction):
    name, unbiased = "reinforce", True

    def advantage(self, cost_SB):
        return -cost_SB


class BaselineOfTheSameCost(ScoreFunction):
    """A baseline that depends on the sample."""

    name, unbiased = "reinforce", True

    def advantage(self, cost_SB):
        return 0.9 * cost_SB


class ScoreTemplate(ScoreFunction):
    """REINFORCE with one place to break."""

    name, unbiased = "reinforce", True
    advantage = None

    def forward(self, logits_BLK, cost):
        class_SBL = sample_classes(logits_BLK, 1)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        return Estimate(self.combine(cost_SB, logits_BLK, class_SBL).mean(0))


class ScoreOfTheMode(ScoreTemplate):
    """The log-probability of the most probable code, not of the sample."""

    def combine(self, cost_SB, logits_BLK, class_SBL):
        score_SB = cost_SB.detach() * log_prob(logits_BLK, logits_BLK.argmax(-1).unsqueeze(0))
        return replace_gradient(cost_SB, cost_SB + score_SB.to(cost_SB.dtype))


class CostNotDetached(ScoreTemplate):
    """The decoder also receives log q · ∇f."""

    def combine(self, cost_SB, logits_BLK, class_SBL):
        score_SB = cost_SB * log_prob(logits_BLK, class_SBL)
        return replace_gradient(cost_SB, cost_SB + score_SB.to(cost_SB.dtype))


class DecoderForgotten(ScoreTemplate):
    def combine(self, cost_SB, logits_BLK, class_SBL):
        return replace_gradient(cost_SB, (cost_SB.detach() * log_prob(logits_BLK, class_SBL)).to(cost_SB.dtype))


class SumOverSamples(ScoreTemplate):
    """Sums where it should average."""

    def combine(self, cost_SB, logits_BLK, class_SBL):
        return 2 * replace_gradient(
            cost_SB, cost_SB + (cost_SB.detach() * log_prob(logits_BLK, class_SBL)).to(cost_SB.dtype)
        )


class OneLatentScored(ScoreTemplate):
    """Only the first latent's log-probability counts."""

    def combine(self, cost_SB, logits_BLK, class_SBL):
        score_SB = cost_SB.detach() * log_prob(logits_BLK[:, :1], class_SBL[..., :1])
        return replace_gradient(cost_SB, cost_SB + score_SB.to(cost_SB.dtype))


class PathwiseMutant(Pathwise):
    name, relaxes = "straight_through", False

    def __init__(self, *, tau=0.5):
        super().__init__()
        self.tau = tau


class STWithoutOneOverTau(PathwiseMutant):
    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)
        return replace_gradient(z_SBLK, self.tau * (logits_BLK / self.tau).softmax(-1).unsqueeze(0))


class STSamplesAtTau(PathwiseMutant):
    """tau sharpens the samples too."""

    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK / self.tau, 1), like=logits_BLK)
        return replace_gradient(z_SBLK, (logits_BLK / self.tau).softmax(-1).unsqueeze(0))


class IdentityRounded(Pathwise):
    """z − θ.detach() + θ: one-hot up to rounding only."""

    name, relaxes, shift_invariant = "identity_ste", False, False

    def sample(self, logits_BLK):
        return one_hot(sample_classes(logits_BLK, 1), like=logits_BLK) - logits_BLK.detach() + logits_BLK


class STWithoutGradient(PathwiseMutant):
    def sample(self, logits_BLK):
        return one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)


class STClaimsNoBias(PathwiseMutant):
    unbiased = True

    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)
        return replace_gradient(z_SBLK, (logits_BLK / self.tau).softmax(-1).unsqueeze(0))


class IdentityClaimsShiftInvariance(Pathwise):
    name, relaxes = "identity_ste", False

    def sample(self, logits_BLK):
        return replace_gradient(one_hot(sample_classes(logits_BLK, 1), like=logits_BLK), logits_BLK.unsqueeze(0))


class ArgmaxOfAllTies(PathwiseMutant):
    """y == max: several ones where logits are equal."""

    name = "argmax_ste"

    def sample(self, logits_BLK):
        z_BLK = (logits_BLK == logits_BLK.amax(-1, keepdim=True)).to(logits_BLK.dtype)
        return replace_gradient(z_BLK, (logits_BLK / self.tau).softmax(-1)).unsqueeze(0)


class ArgmaxSampled(PathwiseMutant):
    """A sample in the place of the most probable code."""

    name = "argmax_ste"

    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)
        return replace_gradient(z_SBLK, (logits_BLK / self.tau).softmax(-1).unsqueeze(0))


class ArgmaxSlopeAtOne(PathwiseMutant):
    """The slope of the softmax ignores tau."""

    name = "argmax_ste"

    def sample(self, logits_BLK):
        z_SBLK = one_hot(logits_BLK.argmax(-1).unsqueeze(0), like=logits_BLK)
        return replace_gradient(z_SBLK, logits_BLK.softmax(-1).unsqueeze(0))


class IdentityOfProbabilities(Pathwise):
    """The gradient of the probabilities: straight_through, not the identity."""

    name, relaxes = "identity_ste", False

    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)
        return replace_gradient(z_SBLK, logits_BLK.softmax(-1).unsqueeze(0))


class HardNoiseNotTempered(PathwiseMutant):
    """tau divides the logits but not the noise, in code and slope."""

    name = "st_gumbel_softmax"

    def sample(self, logits_BLK):
        soft_SBLK = perturb(logits_BLK / self.tau, 1).softmax(-1).to(logits_BLK.dtype)
        return replace_gradient(one_hot(soft_SBLK.argmax(-1), like=logits_BLK), soft_SBLK)


class HardSlopeWithoutNoise(PathwiseMutant):
    """The code is a sample, the slope that of the softmax without noise: straight_through."""

    name = "st_gumbel_softmax"

    def sample(self, logits_BLK):
        z_SBLK = one_hot(sample_classes(logits_BLK, 1), like=logits_BLK)
        return replace_gradient(z_SBLK, (logits_BLK / self.tau).softmax(-1).unsqueeze(0))


class GumbelMutant(PathwiseMutant):
    name, relaxes = "gumbel_softmax", True


class NoiseWithWrongSign(GumbelMutant):
    def sample(self, logits_BLK):
        noise_SBLK = perturb(logits_BLK.detach(), 1) - logits_BLK.detach()
        return ((logits_BLK - noise_SBLK) / self.tau).softmax(-1)


class NoNoise(GumbelMutant):
    def sample(self, logits_BLK):
        return (logits_BLK / self.tau).softmax(-1).unsqueeze(0)


class NoiseNotTempered(GumbelMutant):
    """tau divides the logits but not the noise."""

    def sample(self, logits_BLK):
        return perturb(logits_BLK / self.tau, 1).softmax(-1)


class SoftmaxOfProbabilities(GumbelMutant):
    """Noise added to probabilities instead of logits."""

    def sample(self, logits_BLK):
        return (perturb(logits_BLK.softmax(-1), 1) / self.tau).softmax(-1)


class NoiseSharedByTheBatch(GumbelMutant):
    def sample(self, logits_BLK):
        noise_SBLK = perturb(torch.zeros_like(logits_BLK[:1]), 1)
        return ((logits_BLK + noise_SBLK) / self.tau).softmax(-1)


class SoftAndHardOfDifferentNoise(PathwiseMutant):
    name = "st_gumbel_softmax"

    def sample(self, logits_BLK):
        soft_SBLK = (perturb(logits_BLK, 1) / self.tau).softmax(-1).to(logits_BLK.dtype)
        return replace_gradient(one_hot(sample_classes(logits_BLK, 1), like=logits_BLK), soft_SBLK)


class SoftmaxWithNoise(GumbelMutant):
    name = "softmax"

    def sample(self, logits_BLK):
        return (perturb(logits_BLK, 1) / self.tau).softmax(-1).to(logits_BLK.dtype)


class SoftmaxTimesTau(GumbelMutant):
    name = "softmax"

    def sample(self, logits_BLK):
        return (logits_BLK * self.tau).softmax(-1).unsqueeze(0)


class SoftmaxWithoutOneOverTau(GumbelMutant):
    """The right code with the slope of tau = 1."""

    name = "softmax"

    def sample(self, logits_BLK):
        soft_SBLK = (logits_BLK.detach() / self.tau).softmax(-1).unsqueeze(0)
        return replace_gradient(soft_SBLK, logits_BLK.softmax(-1).unsqueeze(0))


class EntmaxMutant(GumbelMutant):
    """Gumbel-entmax with places to break."""

    name, alpha = "gumbel_entmax", 1.5

    def perturbed(self, logits_BLK):
        return perturb(logits_BLK, 1) / self.tau

    def sample(self, logits_BLK):
        return entmax_mapping(self.name, self.alpha)(self.perturbed(logits_BLK)).to(logits_BLK.dtype)


class EntmaxOfAnotherAlpha(EntmaxMutant):
    """The map is that of alpha = 1.7."""

    def sample(self, logits_BLK):
        return entmax_mapping(self.name, 1.7)(self.perturbed(logits_BLK)).to(logits_BLK.dtype)


class EntmaxNoiseNotTempered(EntmaxMutant):
    def perturbed(self, logits_BLK):
        return perturb(logits_BLK / self.tau, 1)


class EntmaxSlopeOfSoftmax(EntmaxMutant):
    """A sparse code with the slope of the softmax."""

    def sample(self, logits_BLK):
        x_SBLK = self.perturbed(logits_BLK)
        z_SBLK = entmax_mapping(self.name, self.alpha)(x_SBLK).to(logits_BLK.dtype)
        return replace_gradient(z_SBLK, x_SBLK.softmax(-1).to(logits_BLK.dtype))


class SparsemaxMutant(EntmaxMutant):
    name, alpha = "gumbel_sparsemax", 2.0


class SparsemaxOfAnotherAlpha(SparsemaxMutant):
    """1.5-entmax."""

    alpha = 1.5


class SparsemaxWithoutNoise(SparsemaxMutant):
    def perturbed(self, logits_BLK):
        return logits_BLK.unsqueeze(0) / self.tau


class SparsemaxSlopeOutsideTheSupport(SparsemaxMutant):
    """J = I − 11ᵀ/K over all classes, in the support or not."""

    def sample(self, logits_BLK):
        x_SBLK = self.perturbed(logits_BLK)
        z_SBLK = entmax_mapping(self.name, self.alpha)(x_SBLK).to(logits_BLK.dtype)
        return replace_gradient(z_SBLK, (x_SBLK - x_SBLK.mean(-1, keepdim=True)).to(logits_BLK.dtype))


class ExactMutant(Estimator):
    """Enumeration with a place to break."""

    name, relaxes, unbiased = "exact", False, True

    def n_cost_evals(self, n_latents, n_categories):
        return n_categories**n_latents

    def weights(self, logits_BLK, class_SBL):
        return log_prob(logits_BLK, class_SBL).exp()

    def forward(self, logits_BLK, cost):
        _, n_latents, n_categories = logits_BLK.shape
        class_SL = torch.cartesian_prod(*[torch.arange(n_categories)] * n_latents).view(-1, n_latents)
        class_SBL = class_SL.unsqueeze(1).expand(-1, len(logits_BLK), -1)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        return Estimate((self.weights(logits_BLK, class_SBL) * cost_SB).sum(0).to(cost_SB.dtype))


class ExactOfOneLatent(ExactMutant):
    """The probability of a code is that of its first class."""

    def weights(self, logits_BLK, class_SBL):
        return log_prob(logits_BLK[:, :1], class_SBL[..., :1]).exp()


class ExactForgetsACode(ExactMutant):
    """All codes but the last, as where a chunk is cut off."""

    def weights(self, logits_BLK, class_SBL):
        weight_SB = super().weights(logits_BLK, class_SBL)
        return weight_SB * (torch.arange(len(weight_SB)) < len(weight_SB) - 1)[:, None]


class ExpectationWithoutProbabilities(Estimator):
    """All codes count alike; the score of each is right."""

    name, relaxes, unbiased, n_samples = "exact", False, True, 9

    def n_cost_evals(self, n_latents, n_categories):
        return n_categories**n_latents

    def forward(self, logits_BLK, cost):
        _, n_latents, n_categories = logits_BLK.shape
        class_SL = torch.cartesian_prod(*[torch.arange(n_categories)] * n_latents).view(-1, n_latents)
        class_SBL = class_SL.unsqueeze(1).expand(-1, len(logits_BLK), -1)
        cost_SB = self.evaluate(cost, one_hot(class_SBL, like=logits_BLK))
        score_SB = cost_SB.detach() * log_prob(logits_BLK, class_SBL)
        return Estimate(replace_gradient(cost_SB, cost_SB + score_SB.to(cost_SB.dtype)).mean(0))


TEMPLATES = {Pathwise, ScoreTemplate, PathwiseMutant, GumbelMutant, EntmaxMutant, SparsemaxMutant, ExactMutant}
MUTANTS = [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls not in TEMPLATES
]
