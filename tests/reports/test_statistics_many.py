"""Profiles, time to target, win matrices, ranks and fronts: published examples and naive definitions."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hs

from reports import statistics as st

INF = math.inf
levels = hs.integers(0, 9).map(float)
maybe_failed = levels | hs.just(INF)

# Freireich et al. (1963), weeks of remission under 6-MP; Kalbfleisch and Prentice (2002), table 1.1 (+: censored)
REMISSION = [6, 6, 6, 7, 10, 13, 16, 22, 23]
CENSORED = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def at(curve, x):
    return curve[1][np.searchsorted(curve[0], x, side="right") - 1]


def test_kaplan_meier_of_the_leukaemia_data():
    """Kalbfleisch and Prentice (2002), §1.4; Cox and Oakes (1984), table 4.1. Median remission 23 weeks, placebo 8."""
    times, censored_at = REMISSION + [INF] * 12, [math.nan] * 9 + CENSORED
    curve = st.reached_share(times, censored_at)
    remission = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448, 35: 0.448}
    assert curve[0].tolist() == [0, *remission]
    assert [1 - at(curve, week) for week in remission] == pytest.approx(list(remission.values()), abs=5e-4)
    assert st.median_time(times, censored_at) == 23
    assert st.median_time(PLACEBO, [INF] * 21) == 8


@given(hs.lists(maybe_failed, min_size=1, max_size=15))
def test_without_censoring_the_curve_is_the_empirical_distribution(times):
    """Failed runs stay at risk for ever: the share is of all runs."""
    curve = st.reached_share(times, [INF] * len(times))
    for x in range(10):
        assert at(curve, x) == pytest.approx(np.mean(np.array(times) <= x), abs=1e-9)
    assert st.median_time(times, [INF] * len(times)) == np.sort(times)[(len(times) - 1) // 2]


@given(hs.lists(hs.tuples(maybe_failed, maybe_failed), min_size=1, max_size=15), hs.randoms())
def test_the_curve_is_a_growing_share_in_any_order_of_runs(runs, random):
    x, share = st.reached_share(*zip(*runs, strict=True))
    assert x[0] == share[0] == 0 or (x[0] == 0 and x[1] == 0)
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(share) >= 0)
    assert 0 <= share[-1] <= 1
    again = st.reached_share(*zip(*random.sample(runs, len(runs)), strict=True))
    assert np.array_equal(again[0], x)
    assert np.array_equal(again[1], share)


@given(hs.lists(hs.tuples(maybe_failed, levels), min_size=1, max_size=15))
def test_kaplan_meier_equals_the_redistribution_of_the_censored_to_the_right(runs):
    """Efron (1967): each run weighs 1/n; a censored one hands its weight to all that are watched longer."""
    order = sorted(runs, key=lambda run: (min(run), run[0] == INF))
    watched = [min(t, c) if t == INF else t for t, c in order]
    order = [run for _, run in sorted(zip(watched, order, strict=True), key=lambda w: (w[0], w[1][0] == INF))]
    weights = [1 / len(order)] * len(order)
    reached: dict[float, float] = {}
    for i, (t, _) in enumerate(order):
        later = len(order) - i - 1
        if t < INF:
            reached[t] = reached.get(t, 0) + weights[i]
        elif later:
            weights[i + 1 :] = [w + weights[i] / later for w in weights[i + 1 :]]
    curve = st.reached_share(*zip(*runs, strict=True))
    for x in range(10):
        assert at(curve, x) == pytest.approx(sum(w for t, w in reached.items() if t <= x), abs=1e-9)


def test_a_failed_run_counts_and_a_short_one_does_not():
    assert at(st.reached_share([1.0, 2.0, INF], [1.0, 2.0, INF]), 9) == pytest.approx(2 / 3)
    assert at(st.reached_share([1.0, 2.0, INF], [1.0, 2.0, 1.5]), 9) == pytest.approx(1.0)
    assert st.median_time([1.0, INF, INF], [INF, INF, INF]) == INF
    assert st.median_time([1.0, INF], [INF, INF]) == 1.0
    assert math.isnan(st.median_time([], []))
    assert len(st.reached_share([], [])[0]) == 0
    with pytest.raises(ValueError, match=r"^censored_at: expected 2 values, one a run, got 1\.$"):
        st.reached_share([1.0, 2.0], [1.0])


def test_a_half_is_reached_in_spite_of_rounding():
    assert st.median_time([1, 2, 3, 4, 5, 6], [INF] * 6) == 3
    for n in range(2, 60, 2):
        assert st.median_time(range(1, n + 1), [INF] * n) == n // 2


def test_time_to_target_is_the_first_x_that_is_low_enough():
    assert st.time_to_target([1, 2, 3, 4], [9.0, 5.0, 6.0, 4.0], 5.0) == 2
    assert st.time_to_target([1, 2], [9.0, INF], 5.0) == INF
    assert st.time_to_target([], [], 5.0) == INF


@given(hs.lists(hs.tuples(levels, levels), min_size=1, max_size=9), levels)
def test_a_harder_target_is_reached_later(points, target):
    x, y = zip(*sorted(points), strict=True)
    assert st.time_to_target(x, y, target) >= st.time_to_target(x, y, target + 1)


def test_profile_of_known_values():
    """Dolan and Moré (2002): the share of problems solved within a factor; a failure is solved within none."""
    assert st.performance_profile([1, 2, 2, INF], np.array([0, 1, 2, 99, INF])).tolist() == [0, 0.25, 0.75, 0.75, 0.75]
    assert np.isnan(st.performance_profile([], np.array([1.0]))).all()


@given(hs.lists(maybe_failed, min_size=1, max_size=9))
def test_profile_is_the_naive_share_and_lies_in_its_band(values):
    thresholds = np.arange(-1.0, 11)
    share = st.performance_profile(values, thresholds)
    assert share.tolist() == [np.mean([v <= t for v in values]) for t in thresholds]
    low, high = st.profile_band(values, thresholds)
    for one in (share, low, high):
        assert np.all(np.diff(one) >= 0)
    assert np.all((low >= 0) & (low <= share + 1e-12) & (share <= high + 1e-12) & (high <= 1))
    assert np.isnan(st.profile_band([], thresholds)).all()


SETTINGS = hs.lists(hs.dictionaries(hs.integers(0, 7), maybe_failed, max_size=8), min_size=1, max_size=4)


@given(SETTINGS)
def test_win_matrix_is_what_each_pair_says(by_seed):
    found = st.win_matrix(by_seed)
    k = len(by_seed)
    p = {}
    for i in range(k):
        for j in range(k):
            seeds = sorted(by_seed[i].keys() & by_seed[j].keys()) if i != j else []
            one, two = [by_seed[i][s] for s in seeds], [by_seed[j][s] for s in seeds]
            d = st.paired_differences(one, two)
            finite = d[np.isfinite(one) & np.isfinite(two)]
            interval = st.t_interval(finite)
            assert found.n[i, j] == len(d)
            expected = [st.probability_of_improvement(d), st.mean(finite), interval.low, interval.high]
            values = [m[i, j] for m in (found.share, found.mean, found.low, found.high)]
            assert values == pytest.approx(expected, nan_ok=True, abs=1e-9)
            if i < j and len(d):
                p[i, j] = st.wilcoxon(d)
            elif not len(d):
                assert math.isnan(found.p_holm[i, j])
    for (i, j), expected in zip(p, st.holm(list(p.values())), strict=True):
        assert found.p_holm[i, j] == found.p_holm[j, i] == pytest.approx(expected)
    assert np.all(np.isnan(np.diag(found.share)))


def test_win_matrix_of_a_hundred_settings_is_fast():
    values = np.random.default_rng(0).normal(size=(100, 10))
    began = time.process_time()
    found = st.win_matrix([dict(enumerate(row.tolist())) for row in values])
    assert time.process_time() - began < 3
    assert np.allclose((found.share + found.share.T)[np.triu_indices(100, 1)], 1)


def test_a_win_matrix_of_nothing_is_empty():
    assert st.win_matrix([]).share.shape == (0, 0)


coordinates = hs.integers(0, 4).map(float) | hs.sampled_from([math.nan, INF, -INF])


@given(hs.integers(1, 3).flatmap(lambda d: hs.lists(hs.lists(coordinates, min_size=d, max_size=d), min_size=1)))
def test_pareto_front_is_the_naive_one(rows):
    points = np.array(rows)
    there = [bool(np.isfinite(row).all()) for row in points]

    def beats(one, two):
        return all(a <= b for a, b in zip(one, two, strict=True)) and any(a < b for a, b in zip(one, two, strict=True))

    expected = [ok and not any(o and beats(other, row) for o, other in zip(there, rows, strict=True))
                for ok, row in zip(there, rows, strict=True)]  # fmt: skip
    assert st.pareto_front(points).tolist() == expected
    assert st.pareto_front(points).any() == any(there)


def test_equal_points_are_on_the_front_together():
    points = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0], [2.0, 1.0], [0.0, math.nan]])
    assert st.pareto_front(points).tolist() == [True, True, False, True, False]
    assert st.pareto_front(np.empty((0, 2))).tolist() == []
