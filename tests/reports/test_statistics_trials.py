"""The best of so many trials, against enumeration of every subset."""

import itertools
import math

import numpy as np
import pytest

from reports import statistics as st

TRIALS = [5.0, 1.0, 4.0, 1.0, 9.0, 2.5, 7.0]


def bests(values, n):
    return sorted(min(chosen) for chosen in itertools.combinations(values, n))


@pytest.mark.parametrize("n", range(1, 8))
def test_mean_and_median_are_those_over_all_subsets(n):
    found, over_subsets = st.expected_best(TRIALS, n), bests(TRIALS, n)
    assert found.n == n
    assert found.mean == pytest.approx(np.mean(over_subsets))
    assert found.median == over_subsets[(len(over_subsets) - 1) // 2]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_failed_trials_are_worst(n):
    values = [3.0, math.inf, 1.0, math.inf]
    found, over_subsets = st.expected_best(values, n), bests(values, n)
    assert found.mean == pytest.approx(np.mean(over_subsets))
    assert found.median == over_subsets[(len(over_subsets) - 1) // 2]
    assert (found.mean < math.inf) == (n > 2)


def test_it_is_unbiased_and_draws_with_replacement_are_not():
    # The best of 4 uniform numbers is 1/5 on average.
    samples = np.random.default_rng(0).random((4000, 5))
    found = [st.expected_best(row, 4).mean for row in samples]
    assert np.mean(found) == pytest.approx(0.2, abs=4 * np.std(found) / math.sqrt(4000))
    steps = np.arange(6) / 5
    with_replacement = np.sort(samples, axis=1) @ ((1 - steps[:-1]) ** 4 - (1 - steps[1:]) ** 4)
    assert np.mean(with_replacement) > 0.2 + 10 * np.std(with_replacement) / math.sqrt(4000)


@pytest.mark.parametrize("n", [1, 3, 10, 20])
def test_the_interval_covers_the_median_best_for_a_skewed_search(n):
    truth = math.exp(8 * (1 - 0.5 ** (1 / n)))  # of exp(8 u), u uniform
    samples = np.exp(8 * np.random.default_rng(n).random((1500, 20)))
    ends = [st.expected_best(row, n).interval for row in samples]
    assert np.mean([one.low <= truth <= one.high for one in ends]) > 0.94


def test_the_interval_is_open_where_trials_are_too_few():
    assert st.expected_best(range(40), 5).interval.low >= 0
    assert st.expected_best(range(40), 20).interval.low == -math.inf
    assert st.expected_best(range(3), 1).interval == st.Interval(-math.inf, math.inf)


def test_sensitivity_is_what_the_median_trial_loses():
    assert st.sensitivity([4.0, 1.0, 2.0]) == 1.0
    assert st.sensitivity([1.0, math.inf]) == math.inf
    assert st.sensitivity([math.inf]) == math.inf
    assert math.isnan(st.sensitivity([]))


@pytest.mark.parametrize("n", [0, 4])
def test_more_trials_than_there_are_is_refused(n):
    with pytest.raises(ValueError, match=f"n: expected 1 to 3, the number of trials, got {n}."):
        st.expected_best([1.0, 2.0, 3.0], n)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="values: expected a number or inf for each trial, got nan"):
        st.expected_best([1.0, math.nan], 1)
