"""The boundary of Student's t that holds at every look: its level by simulation, its intervals, its refusals."""

import math

import numpy as np
import pytest
import scipy.stats

from reports import statistics as st
from reports.statistics import sequential


def t_statistics(x: np.ndarray, at_least: int) -> np.ndarray:
    """t of the first n values of each row, n = at_least …"""
    n = np.arange(at_least, x.shape[1] + 1)
    mean = np.cumsum(x, axis=1)[:, at_least - 1 :] / n
    variance = (np.cumsum(x * x, axis=1)[:, at_least - 1 :] / n - mean**2) * n / (n - 1)
    return mean / np.sqrt(variance / n)


def test_t_statistics_are_those_of_scipy():
    x = np.random.default_rng(9).normal(size=(1, 6))
    expected = [scipy.stats.ttest_1samp(x[0, :n], 0).statistic for n in range(3, 7)]
    assert t_statistics(x, 3)[0] == pytest.approx(expected)


def test_one_look_is_the_t_quantile():
    assert st.t_boundary(0.025, 5, 5)[0] == pytest.approx(scipy.stats.t.isf(0.025, 4), rel=0.01)


@pytest.mark.parametrize(
    ("alpha", "at_least", "at_most", "repetitions"),
    [(0.05, 3, 30, 60_000), (0.0125, 2, 12, 100_000), (0.1, 5, 40, 40_000), (0.05 / 59, 3, 30, 300_000)],
)
def test_the_boundary_is_crossed_as_often_as_stated(alpha, at_least, at_most, repetitions):
    x = np.random.default_rng(1).normal(size=(repetitions, at_most))
    crossed = np.any(t_statistics(x, at_least) > st.t_boundary(alpha, at_least, at_most), axis=1).mean()
    error = math.sqrt(alpha / repetitions)
    assert 0.97 * alpha - 4 * error < crossed < alpha + 4 * error


def test_any_limits_have_their_probability():
    limits, x = np.array([3.0, 2.0, 4.0, 1.5]), np.random.default_rng(0).normal(size=(200_000, 5))
    crossed = np.any(t_statistics(x, 2) > limits, axis=1).mean()
    assert sequential.crossing_probability(limits, 2) == pytest.approx(crossed, abs=4 * math.sqrt(crossed / 200_000))


def test_a_finer_recursion_finds_no_more_than_is_stated(monkeypatch):
    boundaries = {alpha: st.t_boundary(alpha) for alpha in (0.05, 0.05 / 59 / 2)}
    monkeypatch.setattr(sequential, "_STATES", 400)
    monkeypatch.setattr(sequential, "_NODES", 64)
    sequential._rule.cache_clear()
    for alpha, limits in boundaries.items():
        assert 0.97 * alpha < sequential.crossing_probability(limits, 3) < alpha
    sequential._rule.cache_clear()


def test_a_boundary_for_more_looks_is_wider():
    short, long = st.t_boundary(0.025, 3, 10), st.t_boundary(0.025, 3, 30)
    assert np.all(short < long[:8])
    assert np.all(np.diff(long) < 0)


def test_the_interval_is_the_mean_and_so_many_errors():
    values = [1.0, 2.0, 4.0, 3.0]
    found = st.sequential_interval(values)
    error = scipy.stats.sem(values)
    assert found.low == pytest.approx(2.5 - st.t_boundary(0.025)[1] * error)
    assert found.low + found.high == pytest.approx(5.0)
    assert found.high - found.low > st.t_interval(values).high - st.t_interval(values).low


def test_intervals_cover_the_mean_at_all_looks_at_once():
    x = np.random.default_rng(3).normal(7, 2, size=(1_500, 12))
    held = 0
    for row in x:
        ends = [st.sequential_interval(row[:n], at_most=12) for n in range(3, 13)]
        held += all(one.low <= 7 <= one.high for one in ends)
    assert 0.93 < held / len(x) < 0.97


def test_several_comparisons_share_the_error():
    values = [1.0, 2.0, 4.0, 3.0]
    assert st.sequential_interval(values, 0.95, comparisons=5) == st.sequential_interval(values, 0.99)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0, 2.0, math.inf], [1.0, 2.0, math.nan, 3.0]])
def test_there_is_no_interval_of_too_few_values_or_failed_runs(values):
    assert not st.sequential_interval(values).known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "alpha: expected 0 < alpha <= 0.1, got 0.0."),
        ((0.3,), "alpha: expected 0 < alpha <= 0.1, got 0.3."),
        ((0.05, 1, 30), "at_least: expected 2 <= at_least <= at_most, got 1 and at_most 30."),
        ((0.05, 9, 8), "at_least: expected 2 <= at_least <= at_most, got 9 and at_most 8."),
    ],
)
def test_bad_looks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        st.t_boundary(*arguments)


def test_more_values_than_looks_are_refused():
    with pytest.raises(ValueError, match="values: expected at most 4, the last look, got 5"):
        st.sequential_interval(range(5), at_most=4)
