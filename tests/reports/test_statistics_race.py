"""The rule that stops a sweep: its decisions on data made by hand, its guarantee by simulation."""

import json
import math

import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark

from reports import statistics as st

NAN, INF = math.nan, math.inf
NOISE = np.random.default_rng(0).normal(size=(3, 30))


@pytest.fixture(scope="module")
def stopping():
    return load_benchmark("stopping")


def test_the_race_is_open_until_enough_seeds():
    values = [[1.0, 1.1], [9.0, 9.3]]
    found = st.race(values)
    assert (found.state, found.ended, found.n_seeds, found.alive) == ("open", False, 2, (0, 1))
    assert found.leader == 0
    assert st.race(np.empty((2, 0))).state == "open"


def test_a_setting_that_is_certainly_worse_is_dropped_and_one_is_left():
    found = st.race([[1.0, 1.1, 0.9, NAN], [9.0, 9.3, 8.8, NAN]])
    assert (found.state, found.n_seeds, found.alive, found.near, found.leader) == ("best", 3, (0,), (0,), 0)
    (dropped,) = found.dropped
    assert (dropped.setting, dropped.n_seeds, dropped.against, dropped.failed) == (1, 3, 0, False)
    d = np.array([8.0, 8.2, 7.9])
    half = st.t_boundary(0.05)[0] * d.std(ddof=1) / math.sqrt(3)
    assert (dropped.interval.low, dropped.interval.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert found.excess == pytest.approx((0.0, d.mean() + half))


def test_the_level_is_shared_by_the_other_settings():
    pair, among_many = [[1.0, 1.1, 0.9], [2.0, 2.3, 1.9]], [[1.0, 1.1, 0.9], [2.0, 2.3, 1.9], *np.full((40, 3), 1e3)]
    assert st.race(pair).dropped
    assert {one.setting for one in st.race(among_many).dropped} == set(range(2, 42))


def test_a_setting_is_compared_with_all_and_not_with_the_leader_alone():
    quiet, noisy = NOISE[0, :8] * 1e-3, NOISE[1, :8] * 50 - 20
    found = st.race([quiet + 1, quiet + 2 + NOISE[2, :8] * 1e-3, noisy])
    assert found.leader == 2
    assert [(one.setting, one.against) for one in found.dropped] == [(1, 0)]


def test_equal_settings_are_equivalent_and_none_is_dropped():
    x = NOISE[0, :3] * 7
    found = st.race([x, x, x + 100])
    assert (found.state, found.alive, found.near) == ("equivalent", (0, 1), (0, 1))
    assert found.excess[:2] == (0.0, 0.0)


def test_settings_within_the_band_are_equivalent():
    x = NOISE[0] * 5
    found = st.race([x, x + 0.1 * NOISE[1], x + 0.1 * NOISE[2]], band=0.5)
    assert (found.state, found.alive) == ("equivalent", (0, 1, 2))
    assert max(found.excess) <= 0.5
    assert found.n_seeds < 30
    assert st.race([x, x + 0.1 * NOISE[1], x + 0.1 * NOISE[2]], band=1e-4).state == "undecided"


def test_one_within_the_band_ends_the_race_if_that_is_enough():
    # Setting 0 is at most 0.5 worse than 1, which may be much worse than 0.
    values = [NOISE[0] * 0, 0.5 + NOISE[1]]
    whole, first = (st.race(values, band=0.5, within=within) for within in ("all", "any"))
    assert (first.state, first.near, first.alive) == ("within band", (0,), (0, 1))
    assert first.n_seeds < whole.n_seeds


def test_undecided_at_the_last_seed():
    found = st.race(NOISE[:, :12], at_most=10)
    assert (found.state, found.n_seeds, found.alive) == ("undecided", 10, (0, 1, 2))


@pytest.mark.parametrize("band", [0.0, 0.7])
def test_a_race_is_a_pure_function_of_complete_seeds(band):
    values = np.random.default_rng(3).normal(size=(6, 30)) + np.arange(6)[:, None] * 0.6
    whole = st.race(values, band=band)
    with_gaps = values.copy()
    for one in whole.dropped:
        with_gaps[one.setting, one.n_seeds :] = NAN
    with_gaps[:, whole.n_seeds :] = NAN
    assert st.race(with_gaps, band=band) == whole
    for n in range(1, 31):
        so_far = st.race(with_gaps[:, : min(n, whole.n_seeds)], band=band)
        assert so_far.dropped == tuple(one for one in whole.dropped if one.n_seeds <= n)
        assert so_far.ended == (n >= whole.n_seeds)


def test_the_order_of_settings_does_not_matter():
    values = np.random.default_rng(4).normal(size=(5, 20)) + np.arange(5)[:, None]
    order = np.array([3, 0, 4, 1, 2])
    found, shuffled = st.race(values, at_most=20), st.race(values[order], at_most=20)
    assert shuffled.state == found.state
    assert {int(order[j]) for j in shuffled.alive} == set(found.alive)
    assert {(int(order[one.setting]), one.n_seeds) for one in shuffled.dropped} == {
        (one.setting, one.n_seeds) for one in found.dropped
    }


def test_a_common_effect_of_the_seed_changes_nothing():
    values = np.random.default_rng(5).normal(size=(4, 15)) + np.arange(4)[:, None]
    moved = values + 1000 * np.random.default_rng(6).normal(size=15)
    found, again = st.race(values, at_most=15), st.race(moved, at_most=15)
    assert [(one.setting, one.n_seeds) for one in again.dropped] == [
        (one.setting, one.n_seeds) for one in found.dropped
    ]


def test_a_failed_run_drops_a_setting_once_another_has_none():
    values = np.array([[1.0, 1.1, 0.9, 1.0], [0.0, INF, 0.1, 0.2], [1.1, 1.0, 1.2, 0.9]])
    assert not st.race(values[:, :2]).dropped
    found = st.race(values)
    (dropped,) = found.dropped
    assert (dropped.setting, dropped.n_seeds, dropped.against, dropped.failed) == (1, 3, 0, True)
    assert dropped.interval == st.Interval(-INF, INF)
    assert (found.alive, found.excess[1], found.leader) == ((0, 2), INF, 0)


def test_nothing_is_decided_where_all_that_are_left_have_failed_runs():
    found = st.race([[1.0, INF, 1.0], [2.0, 2.0, INF], [3.0, INF, INF]])
    assert (found.state, found.alive, found.dropped, found.near) == ("undecided", (0, 1, 2), (), ())
    assert found.leader == 0


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([[1.0, 2.0]], {}, "values: expected two settings or more"),
        ([1.0, 2.0], {}, "values: expected two settings or more"),
        ([[1.0, 2.0], [1.0, NAN]], {}, "got nan for setting 1 at seed 1"),
        ([[1.0, -INF], [1.0, 2.0]], {}, "got -inf for setting 0 at seed 1"),
        ([[1.0], [2.0]], {"band": -1.0}, "band: expected a finite number >= 0, got -1.0"),
        ([[1.0], [2.0]], {"band": NAN}, "band: expected a finite number >= 0, got nan"),
        ([[1.0], [2.0]], {"alpha": 0.5}, "alpha: expected 0 < alpha <= 0.1, got 0.5"),
        ([[1.0], [2.0]], {"at_least": 1}, "at_least: expected 2 <= at_least"),
        ([[1.0], [2.0]], {"within": "some"}, "within: expected 'all' or 'any', got 'some'"),
    ],
)
def test_what_cannot_be_raced_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        st.race(values, **options)


def test_the_simulated_rule_is_the_rule(stopping):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(25, 4, 30)) + np.array([0, 0.2, 0.5, 2])[:, None]
    ends = [(0.0, "all"), (1.6, "all"), (0.6, "any")]
    rules = [stopping.Rule(st.t_boundary(0.05 / 3), band=band, within=within) for band, within in ends]
    states = set()
    for (band, within), found in zip(ends, stopping.races(x, rules), strict=True):
        for k, values in enumerate(x):
            one = st.race(values, band=band, within=within)
            states.add(one.state)
            assert one.alive == tuple(np.flatnonzero(found.alive[k]))
            assert one.near == tuple(np.flatnonzero(found.near[k]))
            assert (one.state != "undecided") == found.decided[k]
            runs = len(one.alive) * one.n_seeds + sum(dropped.n_seeds for dropped in one.dropped)
            assert runs == found.runs[k]
    assert states == {"best", "equivalent", "within band", "undecided"}


@pytest.mark.parametrize("gap", [0.0, 0.5 + 1e-6])
def test_at_most_5_per_cent_of_final_statements_are_false(stopping, gap):
    """Where all are equal, and where all are just outside of the band and nothing but the band decides."""
    x = np.random.default_rng(8).normal(size=(3000, 3, 30)) / math.sqrt(2)
    x[:, 1:] += gap
    rule = stopping.Rule(st.t_boundary(0.05 / 2), band=0.5, within="any")
    (found,) = stopping.races(x, [rule])
    false = stopping.is_false(found, np.array([0, gap, gap]), 0.5 - 1e-8)
    assert np.mean(false) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 3000)
    if gap:
        assert np.mean(false) > 0.02  # the test has the power to see twice the rate


def test_upper_bounds_of_the_excess_hold_together():
    means = np.array([0, 0.3, 1.0, 4.0])
    x = np.random.default_rng(9).normal(size=(300, 4, 15)) + means[:, None]
    held = [np.all(np.array(st.race(values, at_most=15, band=0.5).excess) >= means - 1e-9) for values in x]
    assert np.mean(held) > 0.95 - 4 * math.sqrt(0.05 * 0.95 / 300)


def test_figures_are_as_stated(stopping):
    stored = json.loads((BENCHMARKS / "results" / "stopping.json").read_text())
    keys = ("settings", "means", "noise", "band", "within")
    by_case = {tuple(row[key] for key in keys): row for row in stored["sweeps"]}
    for row in stopping.table({2: 600, 5: 200}, ("normal", "skewed"), seed=5):
        old = by_case[tuple(row[key] for key in keys)]
        for name in ("dropped_best", "false", "right"):
            share = (row[name] * row["repetitions"] + old[name] * old["repetitions"] + 1) / (
                row["repetitions"] + old["repetitions"] + 2
            )
            error = math.sqrt(share * (1 - share) * (1 / row["repetitions"] + 1 / old["repetitions"]))
            assert abs(row[name] - old[name]) < 4.5 * error
    assert all(row["false"] < 0.055 for row in stored["sweeps"] + stored["edges"])
