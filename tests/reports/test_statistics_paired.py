"""One method against one baseline: signed ranks, shares, equivalence, sample sizes. Published examples."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as hs

from reports import statistics as st

# Hollander and Wolfe (1999), table 3.1: Hamilton depression scale factor IV of nine patients before and after a drug
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
DEPRESSION = st.paired_differences(AFTER, BEFORE)
# Student (1908), Cushny and Peebles' hours of additional sleep, second drug − first
SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
# Efron and Tibshirani (1993), table 2.1: survival of the treated mice in days
MICE = [94, 197, 16, 38, 99, 141, 23]
INF = math.inf

whole = hs.lists(hs.integers(-50, 50).map(float), min_size=1, max_size=12)
with_failures = hs.lists(hs.sampled_from([-INF, INF]) | hs.integers(-9, 9).map(float), min_size=1, max_size=12)


def test_signed_ranks_of_the_depression_scale():
    """Hollander and Wolfe (1999), examples 3.1, 3.3, 3.4: one-sided p .019, estimate −.46, interval −.786 to −.010."""
    assert st.wilcoxon(DEPRESSION) == pytest.approx(2 * 0.01953125)
    assert st.hodges_lehmann(DEPRESSION) == pytest.approx(-0.46)
    found = st.signed_rank_interval(DEPRESSION)
    assert (found.low, found.high) == pytest.approx((-0.786, -0.010))


def test_hodges_lehmann_interval_of_darwins_maize():
    """Darwin's 15 pairs at 90 %: the table gives 30 (5 %, one-sided, n = 15), so the 31st averages from the ends."""
    maize = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    averages = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(maize, 2))
    assert st.signed_rank_interval(maize, 0.90) == st.Interval(averages[30], averages[-31])
    assert st.hodges_lehmann(maize) == np.median(averages)


@pytest.mark.parametrize(("n", "left_out"), [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (15, 25), (20, 52), (25, 89)])
def test_signed_rank_interval_leaves_out_what_the_table_says(n, left_out):
    """The critical values of the signed-rank test at 5 %, two-sided, in Wilcoxon and Wilcox (1964), table 2."""
    values = 2.0 ** np.arange(n)
    averages = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    assert st.signed_rank_interval(values) == st.Interval(averages[left_out], averages[-1 - left_out])


def test_below_six_pairs_the_intervals_of_a_median_have_infinite_ends():
    for interval in (st.signed_rank_interval, st.median_interval):
        assert interval([1.0, 2.0, 3.0, 4.0, 5.0]) == st.Interval(-INF, INF)
        assert not interval([1.0, 2.0, 3.0, 4.0, 5.0]).known
        assert interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == st.Interval(1.0, 6.0)


@given(whole)
def test_the_signed_rank_interval_excludes_zero_only_where_the_test_rejects(values):
    found = st.signed_rank_interval(values)
    if found.excludes_zero:
        assert st.wilcoxon(values) <= 0.05
    assert found.low <= st.hodges_lehmann(values) <= found.high


@given(with_failures)
def test_failures_are_far_out_and_opposite_ones_cancel(values):
    """Infinite differences give what differences far beyond the others give, where those are rounded to infinity."""
    far = np.clip(values, -1e9, 1e9)
    expected, found = st.signed_rank_interval(far), st.signed_rank_interval(values)
    for big, infinite in [
        (st.hodges_lehmann(far), st.hodges_lehmann(values)),
        (expected.low, found.low),
        (expected.high, found.high),
    ]:
        assert not math.isnan(infinite)
        assert infinite == (big if abs(big) < 1e8 else math.copysign(INF, big))


@given(whole, hs.randoms())
def test_order_does_not_matter_and_a_shift_shifts(values, random):
    shuffled = random.sample(values, len(values))
    for interval in (st.signed_rank_interval, st.median_interval, st.improvement_interval, st.iqm_interval):
        assert repr(interval(shuffled)) == repr(interval(values))
    shift = np.array(values) + 1000
    assert st.hodges_lehmann(shift) == st.hodges_lehmann(values) + 1000
    assert st.signed_rank_interval(shift).low == st.signed_rank_interval(values).low + 1000


def test_many_pairs_use_the_normal_approximation_and_hardly_differ():
    values = np.random.default_rng(0).normal(size=61)
    found, exact = st.signed_rank_interval(values), scipy.stats.bootstrap((values,), np.median).confidence_interval
    assert found.low == pytest.approx(exact.low, abs=0.25)
    assert found.high == pytest.approx(exact.high, abs=0.25)


@given(hs.lists(hs.integers(-50, 50).map(float), min_size=6, max_size=12, unique=True))
def test_median_interval_is_that_of_the_sign_test(values):
    expected = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert st.median_interval(values) == st.Interval(expected.low, expected.high)


def test_an_interval_with_one_infinite_end_can_exclude_zero():
    assert st.signed_rank_interval([1.0, 2.0, 3.0, 4.0, 5.0, INF]).excludes_zero
    assert st.median_interval([INF] * 6).excludes_zero
    assert not st.median_interval([INF] * 5).excludes_zero
    assert not st.UNKNOWN.excludes_zero


def test_median_interval_accepts_failures():
    assert st.median_interval([-1.0, -2.0, -3.0, -4.0, -5.0, INF]) == st.Interval(-5.0, INF)
    assert st.median_interval([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, INF]) == st.Interval(-7.0, -1.0)
    assert st.median_interval([]) == st.Interval(-INF, INF)


@pytest.mark.parametrize(
    ("successes", "n", "wilson", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_intervals_of_a_share(successes, n, wilson, exact):
    """Newcombe (1998), Statistics in Medicine 17:857, table I: methods 3 (score) and 5 (exact)."""
    assert [float(end) for end in st.wilson(successes, n)] == pytest.approx(wilson, abs=6e-5)
    assert [float(end) for end in st.clopper_pearson(successes, n)] == pytest.approx(exact, abs=6e-5)


@pytest.mark.parametrize("n", range(1, 21))
def test_improvement_interval_leaves_out_a_half_exactly_where_the_sign_test_rejects(n):
    for wins in range(n + 1):
        found = st.improvement_interval([-1.0] * wins + [1.0] * (n - wins))
        assert (found.low > 0.5 or found.high < 0.5) == (scipy.stats.binomtest(wins, n).pvalue < 0.05)


def test_improvement_interval_counts_ties_half_and_failures_as_losses():
    assert st.improvement_interval([-1.0, -1.0, 0.0, 0.0]) == st.improvement_interval([-1.0, -1.0, -1.0, 5.0])
    assert st.improvement_interval([-1.0, INF, -INF]) == st.improvement_interval([-1.0, 1.0, -1.0])
    found = st.improvement_interval([0.0])
    assert 0 < found.low < 0.5 < found.high < 1
    assert not st.improvement_interval([]).known


def test_equivalence_of_the_sleep_data():
    """Schuirmann's two tests on Student's data: mean 1.58, s.e. .38896, so t(9) = 2.777 against ±.5, not equivalent.

    The 90 % interval is .867 to 2.293: equivalent from a band of 2.2930 on. (The same data and band are the example of
    R's TOSTER, "An introduction to t_TOST".)
    """
    assert (SLEEP.mean() - 0.5) / (SLEEP.std(ddof=1) / math.sqrt(10)) == pytest.approx(2.777, abs=5e-4)
    assert st.equivalence(SLEEP, 0.5) == "worse"
    assert st.equivalence(-SLEEP, 0.5) == "better"
    assert st.equivalence(SLEEP, 2.2929) == "worse"
    assert st.equivalence(SLEEP, 2.2931) == "equivalent"


@given(hs.lists(hs.floats(-5, 5), min_size=2, max_size=9), hs.floats(0.01, 5))
def test_equivalence_is_two_one_sided_tests(values, band):
    values = np.round(values, 3)
    if np.ptp(values) == 0:
        return
    above = scipy.stats.ttest_1samp(values, -band, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(values, band, alternative="less").pvalue
    assert (st.equivalence(values, band) == "equivalent") == (max(above, below) < 0.05)
    opposite = {"better": "worse", "worse": "better"}
    found = st.equivalence(values, band)
    assert st.equivalence(-values, band) == opposite.get(found, found)


def test_only_differences_entirely_inside_the_band_are_equivalent():
    small = np.array([-0.11, -0.10, -0.09, -0.10, -0.10])
    assert st.t_interval(small).high < 0
    assert st.equivalence(small, 0.5) == "equivalent"
    assert st.equivalence(small, 0.1) == "better"
    assert st.equivalence([0.0, 0.0, 0.0], 0.1) == "equivalent"


def test_equivalence_is_undecided_where_little_is_known():
    assert st.equivalence([], 1.0) == st.equivalence([-3.0], 1.0) == "undecided"
    assert st.equivalence([-3.0, 2.0, 0.5], 0.1) == "undecided"
    assert st.equivalence([0.0, 0.0], 0.0) == "undecided"


def test_a_failed_run_is_never_equivalent():
    assert st.equivalence([0.0] * 20 + [INF], 1.0) == "undecided"
    assert st.equivalence([INF] * 5, 1.0) == "undecided"  # five pairs cannot reach .05
    assert st.equivalence([INF] * 6, 1.0) == "worse"
    assert st.equivalence([-INF] * 6, 1.0) == "better"
    assert st.equivalence([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, INF], 1.0) == "undecided"
    assert st.equivalence([-1.0 - i for i in range(12)] + [INF], 1.0) == "better"


@pytest.mark.parametrize("band", [-1.0, math.nan])
def test_equivalence_refuses_an_invalid_band(band):
    with pytest.raises(ValueError, match=r"^band: expected a number >= 0, got .*\.$"):
        st.equivalence([1.0, 2.0], band)


@pytest.mark.parametrize(
    ("size", "power", "expected"), [(0.2, 0.8, 199), (0.5, 0.8, 34), (0.8, 0.8, 15), (0.2, 0.95, 327), (0.5, 0.95, 54)]
)
def test_sample_sizes_are_those_of_gpower(size, power, expected):
    """G*Power 3.1, "means: difference between two dependent means", two-tailed, α = .05: the usual table of d_z."""
    assert st.sample_size(1.0, size, power) == expected
    assert st.sample_size(3.0, -3 * size, power) == expected


def test_sample_size_reaches_the_power_that_it_promises():
    rng = np.random.default_rng(0)
    n = st.sample_size(1.0, 1.0)
    d = rng.normal(1, 1, size=(20_000, n))
    t = d.mean(axis=1) / d.std(axis=1, ddof=1) * math.sqrt(n)
    power = np.mean(abs(t) > scipy.stats.t.ppf(0.975, n - 1))
    assert power == pytest.approx(st.paired_t_power(n, 1.0), abs=4 * math.sqrt(0.16 / 20_000))
    assert st.paired_t_power(n - 1, 1.0) < 0.8 <= st.paired_t_power(n, 1.0)


@settings(max_examples=30, deadline=None)
@given(hs.floats(0.05, 50))
def test_more_spread_needs_more_seeds(size):
    assert 2 <= st.sample_size(1.0, size) <= st.sample_size(1.1, size)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_power_is_the_integral_over_the_estimated_spread(n):
    """P(|Z + δ| > t s) over s²(n−1) ~ χ²(n−1), also at n = 3 and 5.0625, where scipy's lower tail is NaN."""
    limit = scipy.stats.t.ppf(0.975, n - 1)

    def density(s, shift):
        beyond = scipy.stats.norm.sf(limit * s - shift) + scipy.stats.norm.cdf(-limit * s - shift)
        return beyond * scipy.stats.chi2.pdf((n - 1) * s * s, n - 1) * 2 * (n - 1) * s

    for size in (0.1, 0.5, 1.0, 2.0, 4.5, 5.0625, 8.0):
        shift = math.sqrt(n) * size
        expected = scipy.integrate.quad(density, 0, 12, args=(shift,), points=[0.5, 1, 2], limit=200)[0]
        assert st.paired_t_power(n, size) == pytest.approx(expected, abs=1e-6)


def test_sample_size_at_the_ends():
    assert st.sample_size(0.0, 0.1) == 2
    assert st.sample_size(1e-9, 1.0) == 2
    assert st.sample_size(1.0, 0.01) == pytest.approx((1.959964 + 0.841621) ** 2 / 1e-4, rel=1e-3)


@pytest.mark.parametrize("wrong", [(math.nan, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, math.inf), (1.0, 1.0, 0.01)])
def test_sample_size_refuses_what_has_no_answer(wrong):
    with pytest.raises(ValueError, match=r"^\w+: expected [^\n]*\.$"):
        st.sample_size(*wrong)


def test_holm_of_demsar():
    """Demšar (2006), §3.2.2: three methods against C4.5, p .016, .019, .607; Holm rejects the first two at 5 %."""
    error = math.sqrt(4 * 5 / (6 * 14))
    p = [2 * scipy.stats.norm.sf((3.143 - rank) / error) for rank in (1.964, 2.000, 2.893)]
    assert p == pytest.approx([0.016, 0.019, 0.607], abs=2e-3)
    assert (st.holm(p) <= 0.05).tolist() == [True, True, False]
    assert st.holm(p) == pytest.approx([3 * p[0], 3 * p[0], p[2]])


@given(hs.lists(hs.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_the_raw_p_and_bonferroni_and_keeps_the_order(p):
    found = st.holm(p)
    assert np.all(found >= p)
    assert np.all(found <= np.minimum(1, len(p) * np.array(p)) + 1e-12)
    assert np.all(np.diff(found[np.argsort(p)]) >= 0)


@given(hs.lists(hs.floats(-100, 100), min_size=1, max_size=6).map(lambda quarter: quarter * 4))
def test_iqm_is_the_trimmed_mean_of_rliable_where_four_divides_n(values):
    """Agarwal et al. (2021): rliable.metrics.aggregate_iqm is scipy.stats.trim_mean(scores, 0.25)."""
    assert st.iqm(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25), abs=1e-9)


def test_iqm_interval_is_tukey_and_mclaughlins():
    """At n = 9 the quartiles are the third and seventh value: clip there, 5 − 1 degrees of freedom, s.e. s_w/(√n/2)."""
    ordered = np.sort(DEPRESSION)
    clipped = np.array([ordered[2]] * 2 + list(ordered[2:7]) + [ordered[6]] * 2)
    half = scipy.stats.t.ppf(0.975, 4) * clipped.std(ddof=1) / (0.5 * 3)
    found = st.iqm_interval(DEPRESSION)
    assert (found.low, found.high) == pytest.approx((st.iqm(DEPRESSION) - half, st.iqm(DEPRESSION) + half))
    assert not st.iqm_interval([1.0, 2.0]).known
    assert not st.iqm_interval([1.0, 2.0, 3.0, 4.0, INF]).known


def test_bootstrap_of_the_mice():
    """Efron and Tibshirani (1993), §13.3: the 90 % percentile interval of the mean, 86.86, is 49.7 to 126.7.

    Theirs has 1000 resamples; all 7⁷ of them give 49.4 and 126.7. For the median Efron (1982), §10.3, gives the
    distribution in closed form: 95 % reach from the second to the sixth value.
    """
    from reports.statistics.intervals import bootstrap_ends

    found = bootstrap_ends(
        np.array(MICE, dtype=float), "mean", confidence=0.9, rng=np.random.default_rng(0), method="percentile"
    )
    assert [float(end) for end in found] == pytest.approx([49.43, 126.71], abs=1.5)
    k = np.arange(8)
    reached = scipy.stats.binom.sf(3, 7, k / 7)  # P(median* ≤ the k-th value): four draws or more from the first k
    ordered = sorted(MICE)
    low, high = (ordered[int(np.argmax(reached >= q)) - 1] for q in (0.025, 0.975))
    assert st.bootstrap_interval(MICE, statistic="median") == st.Interval(low, high) == st.Interval(23, 141)


def test_bootstrap_is_paired_and_leaves_the_global_generator_alone():
    """Fed differences, the effect of the seed cancels however large it is; the same call gives the same ends."""
    rng = np.random.default_rng(0)
    gain, baseline = rng.integers(-9, 9, 12).astype(float), rng.integers(0, 1000, 12) * 1024.0
    state = np.random.get_state()[1].copy()
    for statistic in ("mean", "median", "iqm"):
        plain = st.bootstrap_interval(gain, statistic=statistic)
        assert st.bootstrap_interval(st.paired_differences(baseline + gain, baseline), statistic=statistic) == plain
    assert np.array_equal(np.random.get_state()[1], state)
    assert st.BOOTSTRAP_RESAMPLES >= 2000
