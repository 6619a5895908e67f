"""The statistics of gradient quality against problems whose answers are known."""

import numpy as np
import pytest

from harness.gradients.quality import METRICS, N_BLOCKS, quality, relative_standard_error

P = 40
TRUTH = np.linspace(-1, 1, P)
OFF = np.where(np.arange(P) % 2, 0.3, -0.3)  # a bias at a right angle to nothing in particular


def gram(rng, bias, noise=1.0, draws=16, truth_noise=0.0):
    """Blocks of `draws` draws from N(TRUTH + bias, noise²) and of a truth that may be an average itself."""
    mean = TRUTH + bias + noise / np.sqrt(draws) * rng.standard_normal((N_BLOCKS, P))
    truth = TRUTH + truth_noise * rng.standard_normal((N_BLOCKS, P))
    blocks = np.concatenate([mean, truth])
    return blocks @ blocks.T


def many(bias, n=200, **options):
    rng = np.random.default_rng(1)
    return [quality(gram(rng, bias, **options), 16) for _ in range(n)]


@pytest.mark.parametrize("truth_noise", [0.0, 0.5])
def test_every_quantity_is_on_target_and_its_interval_covers(truth_noise):
    found = many(OFF, truth_noise=truth_noise)
    true_bias = np.linalg.norm(OFF) / np.linalg.norm(TRUTH)
    true_cosine = (TRUTH + OFF) @ TRUTH / np.linalg.norm(TRUTH + OFF) / np.linalg.norm(TRUTH)
    for name, true in (("relative_bias", true_bias), ("cosine", true_cosine)):
        covered = np.mean([q[f"{name}_low"] <= true <= q[f"{name}_high"] for q in found])
        assert 0.90 <= covered <= 0.99, name
        assert np.mean([q[name] for q in found]) == pytest.approx(true, rel=0.01)
    assert np.mean([q["variance"] for q in found]) == pytest.approx(P, rel=0.01)
    assert np.mean([q["mse"] for q in found]) == pytest.approx(P + OFF @ OFF, rel=0.01)
    signal = np.linalg.norm(TRUTH + OFF)
    assert np.mean([q["snr"] for q in found]) == pytest.approx(signal / np.sqrt(P), rel=0.01)


@pytest.mark.parametrize("truth_noise", [0.0, 0.5])
def test_noise_is_not_mistaken_for_bias(truth_noise):
    """‖ḡ − ∇‖/‖∇‖ itself would be .08 (and .16); its square, floor subtracted, is 0 on average."""
    found = many(0 * OFF, truth_noise=truth_noise)
    assert np.mean([q["relative_bias_low"] == 0 for q in found]) >= 0.93
    assert min(q["relative_bias_high"] for q in found) > 0.01  # no interval is [0, 0]
    assert np.mean([q["relative_bias"] == 0 for q in found]) == pytest.approx(0.5, abs=0.15)
    assert np.mean([q["p_value"] <= 0.05 for q in found]) == pytest.approx(0.05, abs=0.045)
    assert np.mean([q["p_value"] for q in found]) == pytest.approx(0.5, abs=0.07)


def test_a_small_bias_is_found():
    assert np.mean([q["p_value"] <= 0.05 for q in many(OFF / 3)]) > 0.95


def test_a_gradient_without_noise_is_measured_exactly():
    exact = quality(gram(np.random.default_rng(0), 0 * OFF, noise=0.0), 16, noisy=False)
    assert exact["relative_bias"] < 1e-7
    assert exact["p_value"] == 1
    assert exact["cosine"] == pytest.approx(1)
    assert exact["variance"] == pytest.approx(0, abs=1e-10)
    half = quality(gram(np.random.default_rng(0), -TRUTH / 2, noise=0.0), 16, noisy=False)
    assert half["relative_bias"] == pytest.approx(0.5)
    assert half["cosine"] == pytest.approx(1)
    assert quality(gram(np.random.default_rng(0), -2 * TRUTH, noise=0.0), 16, noisy=False)["cosine"] == pytest.approx(
        -1
    )


def test_non_finite_values_do_not_count_as_zero():
    broken = gram(np.random.default_rng(0), OFF)
    broken[3, 3] = np.nan
    assert all(np.isnan(value) for value in quality(broken, 16).values())


def test_a_rounding_error_is_no_bias_and_bounds_the_interval():
    nearly = gram(np.random.default_rng(0), 1e-5 * OFF, noise=0.0)
    found = quality(nearly, 16, noisy=False, rounding=1e-4)
    assert (found["relative_bias"], found["relative_bias_low"], found["p_value"]) == (0, 0, 1)
    assert found["relative_bias_high"] == pytest.approx(1e-4)
    assert quality(nearly, 16, noisy=False)["relative_bias"] > 0
    assert np.isnan(quality(nearly, 16, rounding=1.0)["relative_bias"])


def test_equal_blocks_of_a_noisy_estimator_give_no_interval():
    blocks = np.tile(TRUTH, (2 * N_BLOCKS, 1))
    blocks[: N_BLOCKS // 8] += 0.1 * np.random.default_rng(0).standard_normal((N_BLOCKS // 8, P))
    found = quality(blocks @ blocks.T, 16)
    assert np.isnan(found["p_value"])
    assert np.isnan(found["relative_bias_high"])
    assert found["relative_bias"] >= 0
    assert found["variance"] > 0


def test_p_values_hold_their_level_for_peaked_posteriors():
    """Draws of reinforce for one variable: most are equal, the rest are far away. Without the rule on equal blocks half
    of the p-values of `diagnose` were below .05 at P(mode) = .99 and 64 draws, .08 at .94 and 64."""
    rng, below, given = np.random.default_rng(2), 0, 0
    for p_mode, draws in ((0.94, 2), (0.99, 32), (0.94, 32), (0.8, 32)):
        truth = p_mode * (1 - p_mode) * 0.1
        for _ in range(100):
            mode = rng.random((N_BLOCKS, draws)) < p_mode
            means = np.where(mode, 0.3 * (1 - p_mode), -0.2 * p_mode).mean(1)
            blocks = np.concatenate([means, np.full(N_BLOCKS, truth)])[:, None] * np.array([[1.0, -1.0]])
            p_value = quality(blocks @ blocks.T, draws)["p_value"]
            given += not np.isnan(p_value)
            below += p_value <= 0.05
    assert given > 150
    assert below / given < 0.09


def test_undefined_quantities_are_nan():
    nothing = quality(np.zeros((2 * N_BLOCKS, 2 * N_BLOCKS)), 16)
    assert set(nothing) == set(METRICS)
    assert all(np.isnan(nothing[name]) for name in ("relative_bias", "relative_bias_low", "cosine", "snr"))


def test_the_error_of_an_averaged_reference_is_known():
    rng = np.random.default_rng(0)
    blocks = TRUTH + 0.5 * rng.standard_normal((N_BLOCKS, P))
    expected = 0.5 * np.sqrt(P / N_BLOCKS) / np.linalg.norm(TRUTH)
    assert relative_standard_error(blocks @ blocks.T) == pytest.approx(expected, rel=0.1)
    assert relative_standard_error(np.ones((N_BLOCKS, N_BLOCKS))) == 0
