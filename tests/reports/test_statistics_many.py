"""Profiles, time to target, win matrices, ranks and fronts: published examples and naive definitions."""

import math
import time

import numpy as np
import pytest
import scipy.stats
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
                assert found.floor[i, j] == found.floor[j, i] == st.power_floor(len(d))
            elif not len(d):
                assert math.isnan(found.floor[i, j])
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


def test_the_least_holm_p_of_a_large_matrix_is_stated():
    found = st.win_matrix([{s: float(k) for s in range(10)} for k in range(4)])
    assert found.holm_floor == 6 * 2 / 2**10 == pytest.approx(np.nanmin(found.p_holm))
    assert math.isnan(st.win_matrix([{1: 2.0}]).holm_floor)
    assert st.win_matrix([]).share.shape == (0, 0)


# Demšar (2006), table 6: AUC of C4.5, with m, with cf, with both, on 14 data sets; higher is better, so it is negated
AUC = -np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],  # printed as equal, ranked 2 and 3
        [0.957, 0.978, 0.946, 0.970],
    ]
)
# Hollander and Wolfe (1999), table 7.1: 22 players, three ways of rounding first base
BASES = np.array(
    [
        [5.40, 5.50, 5.55], [5.85, 5.70, 5.75], [5.20, 5.60, 5.50], [5.55, 5.50, 5.40], [5.90, 5.85, 5.70],
        [5.45, 5.55, 5.60], [5.40, 5.40, 5.35], [5.45, 5.50, 5.35], [5.25, 5.15, 5.00], [5.85, 5.80, 5.70],
        [5.25, 5.20, 5.10], [5.65, 5.55, 5.45], [5.60, 5.35, 5.45], [5.05, 5.00, 4.95], [5.50, 5.50, 5.40],
        [5.45, 5.55, 5.50], [5.55, 5.55, 5.35], [5.45, 5.50, 5.55], [5.50, 5.45, 5.25], [5.65, 5.60, 5.40],
        [5.70, 5.65, 5.55], [6.30, 6.30, 6.25],
    ]
)  # fmt: skip


def test_ranks_and_friedman_of_demsar():
    """Average ranks 3.143, 2.000, 2.893, 1.964; without the correction for ties χ² = 9.28."""
    ranks = st.average_ranks(AUC)
    assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    chi2 = 12 * 14 / 20 * (np.sum(ranks**2) - 4 * 25 / 4)
    assert chi2 == pytest.approx(9.28, abs=5e-3)
    assert st.friedman(AUC) < scipy.stats.chi2.sf(chi2, 3) == pytest.approx(0.0258, abs=1e-4)  # ties leave less chance
    assert st.friedman(AUC) == pytest.approx(scipy.stats.friedmanchisquare(*AUC.T).pvalue)


def test_friedman_of_rounding_first_base():
    """Hollander and Wolfe (1999), example 7.1, as in R's friedman.test: χ² = 11.1429 with ties, p = .003805."""
    assert st.friedman(BASES) == pytest.approx(0.003805, abs=5e-7)


def test_friedman_of_two_methods_is_the_sign_test_in_its_normal_form():
    table = np.array([[1.0, 2.0]] * 9 + [[2.0, 1.0]] * 3)
    assert st.friedman(table) == pytest.approx(2 * scipy.stats.norm.sf((9 - 6) / math.sqrt(12 / 4)))


def test_friedman_where_blocks_agree_entirely_or_say_nothing():
    assert st.friedman(np.tile([1.0, 2.0, 3.0], (6, 1))) == pytest.approx(scipy.stats.chi2.sf(12, 2))
    assert st.friedman(np.ones((6, 3))) == 1.0
    assert math.isnan(st.friedman(np.ones((1, 3))))
    assert math.isnan(st.friedman(np.ones((6, 1))))


@given(hs.lists(hs.lists(maybe_failed, min_size=3, max_size=3), min_size=6, max_size=9), hs.permutations(range(3)))
def test_ranks_follow_the_methods_and_friedman_does_not_care(table, order):
    table = np.array(table)
    assert st.average_ranks(table[:, order]) == pytest.approx(st.average_ranks(table)[list(order)])
    assert st.average_ranks(table).sum() == pytest.approx(6)
    assert st.friedman(table[:, order]) == pytest.approx(st.friedman(table))
    assert 0 < st.friedman(table) <= 1


def test_failed_runs_rank_worst_and_tie():
    assert st.average_ranks(np.array([[INF, 1.0, INF]])).tolist() == [2.5, 1.0, 2.5]


def test_critical_difference_of_demsar():
    """Demšar (2006), table 5: q.05 and q.10 for 2 to 10 methods; four methods on 14 data sets: 1.25 and 1.12."""
    five = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    ten = [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]
    for alpha, table in ((0.05, five), (0.10, ten)):
        for k, q in enumerate(table, start=2):
            assert st.critical_difference(k, 14, alpha) / math.sqrt(k * (k + 1) / 84) == pytest.approx(q, abs=1.1e-3)
    assert st.critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    assert st.critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=5e-3)


def test_critical_difference_refuses_few_blocks():
    with pytest.raises(ValueError, match=r"^n_blocks: expected >= 6 independent blocks, got 5\. [^\n]*\.$"):
        st.critical_difference(4, 5)
    with pytest.raises(ValueError, match=r"^n_methods: expected >= 2, got 1\.$"):
        st.critical_difference(1, 6)


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
