"""The statistics of the report: golden numbers computed by hand, published examples, simulated coverage and level."""

import math

import numpy as np
import pytest
import scipy.stats

from reports import statistics as st


def test_iqm_is_the_mean_of_the_middle_half():
    assert st.iqm([1, 2, 3, 100]) == 2.5
    assert st.iqm(range(1, 9)) == 4.5  # 3, 4, 5, 6


def test_iqm_weights_the_ends_when_four_does_not_divide_n():
    # n = 3: the middle half is the whole second value and a quarter of each neighbour: (1/4 + 1·2 + 10/4) / 1.5
    assert st.iqm([1, 2, 10]) == pytest.approx((0.25 * 1 + 2 + 0.25 * 10) / 1.5)
    assert st.iqm([7.0]) == 7.0


def test_a_failed_run_is_trimmed_by_the_iqm_only_while_it_is_in_the_outer_quarter():
    assert st.iqm([1, 2, 3, math.inf]) == 2.5
    assert st.iqm([1, 2, math.inf]) == math.inf
    assert st.median([1, 2, math.inf]) == 2


def test_statistics_of_nothing_are_nan():
    assert all(math.isnan(f([])) for f in (st.mean, st.median, st.iqm, st.probability_of_improvement))
    assert not st.t_interval([1.0]).known
    assert not st.bootstrap_interval([1.0, 2.0]).known


def test_t_interval_is_the_textbook_one():
    # mean 2, s = 1, n = 3, t(.975, 2) = 4.302653: 2 ± 4.302653 / √3
    found = st.t_interval([1.0, 2.0, 3.0])
    assert found.low == pytest.approx(2 - 4.302652729 / math.sqrt(3))
    assert found.high == pytest.approx(2 + 4.302652729 / math.sqrt(3))


def test_t_interval_of_student_sleep_data():
    """Student (1908), additional sleep, paired: mean 1.58, t = 4.0621, 95 % interval 0.7001 to 2.4599."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = st.t_interval(st.paired_differences(second, first))
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.excludes_zero


def test_default_interval_covers_at_the_nominal_rate_where_the_bootstrap_does_not():
    """Normal differences with mean 0, 3000 samples: t covers .95 ± .012 at every n, the percentile bootstrap less."""
    rng = np.random.default_rng(0)
    for n in (3, 5, 10):
        samples = rng.normal(size=(3000, n))
        covered = np.mean([(found := st.t_interval(row)).low <= 0 <= found.high for row in samples])
        assert abs(covered - 0.95) < 0.012, (n, covered)
    resampled = rng.integers(3, size=(2000, 3))
    means = samples[:500, :3][:, resampled].mean(axis=2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.82


def test_bootstrap_is_seeded_and_close_to_t_for_many_values():
    values = np.random.default_rng(1).normal(3, 1, size=60)
    one, two = st.bootstrap_interval(values), st.bootstrap_interval(values)
    t = st.t_interval(values)
    assert one == two
    assert (one.low, one.high) == pytest.approx((t.low, t.high), abs=0.06)
    assert st.bootstrap_interval(values, seed=7) != one


@pytest.mark.parametrize("statistic", ["median", "iqm"])
def test_bootstrap_of_other_statistics_holds_the_estimate(statistic):
    values = np.random.default_rng(2).normal(size=40)
    found = st.bootstrap_interval(values, statistic=statistic)
    assert found.low < getattr(st, statistic)(values) < found.high


def test_bootstrap_of_equal_values_is_a_point():
    assert st.bootstrap_interval([2.0, 2.0, 2.0]) == st.Interval(2.0, 2.0)


def test_failed_runs_are_worst_in_pairs_and_two_failures_tie():
    inf = math.inf
    found = st.paired_differences([1.0, inf, 3.0, inf], [2.0, 1.0, inf, inf])
    assert found.tolist() == [-1.0, inf, -inf, 0.0]
    assert st.probability_of_improvement(found) == (2 + 0.5) / 4


@pytest.mark.parametrize(
    ("n", "floor"), [(3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125), (7, 0.015625), (8, 0.0078125)]
)
def test_power_floor_is_what_the_test_gives_when_all_pairs_agree(n, floor):
    assert st.power_floor(n) == floor
    assert st.wilcoxon(-np.arange(1.0, n + 1)) == floor


def test_wilcoxon_equals_scipy_without_ties():
    rng = np.random.default_rng(3)
    for n in (4, 7, 12, 25):
        differences = rng.normal(0.3, 1, size=n)
        assert st.wilcoxon(differences) == pytest.approx(scipy.stats.wilcoxon(differences, method="exact").pvalue)


def test_wilcoxon_with_ties_equals_enumeration_of_all_signs():
    differences = np.array([1.0, 1.0, -2.0, 3.0, 3.0, -1.0])
    ranks = scipy.stats.rankdata(abs(differences))
    sums = [sum(r for bit, r in enumerate(ranks) if signs >> bit & 1) for signs in range(2**6)]
    observed = ranks[differences > 0].sum()
    share = min(np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums]))
    assert st.wilcoxon(differences) == pytest.approx(min(1, 2 * share))


def test_wilcoxon_of_darwins_maize():
    """Darwin's 15 pairs of maize (eighths of an inch; Fisher 1935, §17): rank sum of the losers 24, exact p = .0413."""
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert st.wilcoxon(differences) == pytest.approx(0.04126, abs=5e-6)


def test_wilcoxon_drops_zeros_and_ranks_failures_last():
    assert st.wilcoxon([0.0, 0.0]) == 1.0
    assert st.wilcoxon([0.0, 1.0, 2.0, 3.0]) == st.power_floor(3)
    assert st.wilcoxon([math.inf, 1.0, 2.0, 4.0]) == st.wilcoxon([9.0, 1.0, 2.0, 4.0])


def test_wilcoxon_holds_its_level():
    rng = np.random.default_rng(4)
    p = np.array([st.wilcoxon(row) for row in rng.normal(size=(2000, 8))])
    assert np.mean(p <= 0.05) < 0.055


def test_holm_steps_down():
    """.005 · 4, .01 · 3, .03 · 2 and .04 · 1 raised to the former: the worked example of Holm's method."""
    assert st.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_ignores_what_was_not_tested_and_never_passes_one():
    found = st.holm([0.6, math.nan, 0.7])
    assert found[[0, 2]] == pytest.approx([1.0, 1.0])
    assert math.isnan(found[1])
    assert len(st.holm([])) == 0
