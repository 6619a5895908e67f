"""Biased estimators: the mean of many draws is what their own definition says, so that a wrong one is caught too.

L=2, K=2, a cubic cost in which the latents interact, 20 000 draws of one logit row, |z| < 5 for every entry; a fifth
more than the definition must fail. The definitions, sums over codes and integrals over the noise, are in
means_by_definition.py.
"""

import pytest
from estimator_cases import make, settings
from means_by_definition import COST, LOGITS_LK, MEANS_BY_DEFINITION, draws
from scipy import integrate, stats

from estimators import REGISTRY
from estimators.reference_problem import MAX_Z, exact_gradient, z_scores

BIASED = [name for name, cls in REGISTRY.items() if not cls.unbiased]
CASES = [(name, params) for name in BIASED for params in settings(name)]


def test_every_biased_estimator_has_a_definition_to_be_held_against():
    assert set(MEANS_BY_DEFINITION) == set(BIASED)


@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda value: str(value))
def test_mean_is_that_of_its_own_definition(name, params):
    estimator = make(name, **params)
    expected_LK = MEANS_BY_DEFINITION[name](estimator, LOGITS_LK, COST)
    gradient_NLK = draws(estimator)
    assert z_scores(gradient_NLK, expected_LK).abs().max() < MAX_Z
    assert z_scores(gradient_NLK, 1.2 * expected_LK).abs().max() > MAX_Z


@pytest.mark.parametrize("name", BIASED)
def test_the_definitions_are_not_the_exact_gradient(name):
    """Else they could not tell a biased estimator from an unbiased one."""
    estimator = make(name)
    expected_LK = MEANS_BY_DEFINITION[name](estimator, LOGITS_LK, COST)
    _, exact_LK = exact_gradient(LOGITS_LK, COST, estimator.class_logits)
    assert (expected_LK - exact_LK).norm() > 0.02 * exact_LK.norm()


def test_the_quadrature_agrees_with_an_adaptive_one():
    """∫ s(1 − s)/τ over x > 0, logistic noise, at a low temperature."""
    from means_by_definition import quadrature, soft

    law, tau = stats.logistic(loc=0.7), 0.1
    node_Q, weight_Q = quadrature(law, [0.0])
    found = (weight_Q * (node_Q > 0) * soft(node_Q, tau)[1]).sum().item()
    expected, _ = integrate.quad(
        lambda x: law.pdf(x) * stats.logistic.pdf(x / tau) / tau, 0, 10, points=[0.1, 0.5, 1], epsabs=1e-13
    )
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("name", BIASED)
def test_means_hold_with_every_seed_and_setting(name, seed):
    for params in settings(name):
        estimator = make(name, **params)
        assert (
            z_scores(draws(estimator, seed), MEANS_BY_DEFINITION[name](estimator, LOGITS_LK, COST)).abs().max() < MAX_Z
        )
