"""The bias test and its controls: what is unbiased passes, what is biased fails, and deliberate mistakes are caught.

L=2, K=3, a cubic cost in which the latents interact, 20 000 draws of one logit row, |z| < 5 for every entry. A bias of
4.7 % of the standard deviation of one draw is caught with probability .95. Seeds and numbers of draws are fixed
beforehand.
"""

import pytest
import torch
from estimator_cases import ALL, BIASED, UNBIASED, make, settings
from estimator_families import MUTANTS as FAMILY_MUTANTS
from estimator_families import NAIVE

from estimators import Estimate, Estimator, Pathwise, build, replace_gradient
from estimators.conformance import CHECKS
from estimators.gumbel import log_prob, one_hot, perturb, sample_classes
from estimators.score_function import ScoreFunction
from estimators.yardstick import (
    MAX_Z,
    N_REPLICAS,
    bias_scores,
    cost_for,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    logits_for,
    run,
    z_scores,
)


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_estimators_pass(name):
    cost_z, gradient_z = bias_scores(make(name))
    assert cost_z.abs() < MAX_Z
    assert gradient_z.abs().max() < MAX_Z


@pytest.mark.parametrize("name", [name for name in BIASED if name != "nvil"])
def test_biased_estimators_fail(name):
    """The positive control: a test that passes these has no power. NVIL has a bias once its scale has left 1."""
    assert bias_scores(make(name))[1].abs().max() > MAX_Z


@pytest.mark.parametrize("name", [name for name, cls in ALL.items() if not cls.relaxes and name != "argmax_ste"])
def test_the_cost_of_one_hot_samples_is_unbiased(name):
    assert bias_scores(make(name))[0].abs() < MAX_Z


def test_power_is_as_stated():
    """Shift the mean by 4.7 % of one draw's standard deviation: 95 of 100 seeds are caught, give or take 10."""
    logits_NLK, cost = example_logits()[0].expand(N_REPLICAS, -1, -1), cubic_cost(example_weights())
    _, truth_LK = exact_gradient(logits_NLK[0], cost)
    caught = 0
    for seed in range(100):
        _, gradient_NLK = run(build("reinforce"), logits_NLK, cost, seed)
        shifted_N = gradient_NLK[:, 0, 0] + 0.047 * gradient_NLK[:, 0, 0].std()
        caught += bool(z_scores(shifted_N, truth_LK[0, 0]).abs() > MAX_Z)
    assert caught >= 85


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_estimators_pass_with_every_seed_and_setting(name, seed):
    for params in settings(name):
        for scores in bias_scores(make(name, **params), seed=seed):
            assert scores.abs().max() < MAX_Z


# Mutants: estimators with one deliberate mistake. Each keeps the name of the estimator that it imitates.


class NoLeaveOneOut(ScoreFunction):
    """The baseline includes the sample itself: shrinks the gradient by (n−1)/n."""

    name, unbiased, n_samples = "rloo", True, 4

    def advantage(self, cost_SB):
        return cost_SB - cost_SB.mean(0)


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


BASES = {Pathwise, ScoreTemplate, PathwiseMutant, GumbelMutant}
MUTANTS = FAMILY_MUTANTS + [
    cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Estimator) and cls.__module__ == __name__ and cls not in BASES
]


def failures(estimator):
    """Names of the checks that an estimator fails, the comparison with the naive formula among them."""
    caught = []
    for check in (*CHECKS, equals_naive):
        try:
            check(estimator)
        except (AssertionError, RuntimeError, ValueError):
            caught.append(check.__name__)
    return caught


def equals_naive(estimator):
    """The gradient is that of the published formula, as loops, with the same noise."""
    logits_BLK, cost = logits_for(estimator), cost_for(estimator)
    _, gradient_BLK = run(estimator, logits_BLK, cost)
    expected_BLK = NAIVE[estimator.name](estimator, logits_BLK, cost, seed=0)
    torch.testing.assert_close(gradient_BLK, expected_BLK)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda cls: f"{cls.name}-{cls.__name__}")
def test_mutants_are_caught(mutant):
    assert failures(mutant())


@pytest.mark.parametrize("name", NAIVE)
def test_the_checks_that_catch_mutants_pass_the_originals(name):
    assert failures(make(name)) == []
