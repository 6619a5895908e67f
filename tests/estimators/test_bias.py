"""The controls of the bias test: what is biased fails, and deliberate mistakes are caught.

What is unbiased passes: `check_bias` in test_contract.py, and here with every seed and setting.

L=2, K=3, a cubic cost in which the latents interact, 20 000 draws of one logit row, |z| < 5 for every entry. A bias of
4.7 % of the standard deviation of one draw is caught with probability .95. Seeds and numbers of draws are fixed
beforehand.
"""

import pytest
from estimator_cases import ALL, BIASED, UNBIASED, make, settings
from estimator_checks import equals_naive, first_failure
from families import MUTANTS, NAIVE, RIGHT

from estimators import REGISTRY, build
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    bias_scores,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    run,
    z_scores,
)


@pytest.mark.parametrize("name", BIASED)
def test_biased_estimators_fail(name):
    """The positive control: a test that passes these has no power."""
    assert bias_scores(make(name))[1].abs().max() > MAX_Z


@pytest.mark.parametrize("name", [name for name in BIASED if not ALL[name].relaxes and name != "argmax_ste"])
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


def test_every_estimator_has_mutants():
    tried = [cls.name for cls in MUTANTS]
    assert {name: tried.count(name) for name in REGISTRY if tried.count(name) < 3} == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda cls: f"{cls.name}-{cls.__name__}")
def test_mutants_are_caught(mutant):
    assert first_failure(mutant()) is not None


@pytest.mark.parametrize("template", RIGHT, ids=lambda cls: cls.__name__)
def test_the_templates_of_the_mutants_pass_unbroken(template):
    """So a mutant is caught by its mistake, not by its template."""
    assert first_failure(template()) is None


@pytest.mark.parametrize("name", NAIVE)
def test_the_check_that_catches_most_mutants_passes_the_originals(name):
    """tests/estimators/test_contract.py has the others."""
    equals_naive(make(name))
