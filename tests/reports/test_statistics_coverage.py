"""Coverage and level, simulated again and quicker: the figures of benchmarks/results/coverage.json hold."""

import json
import math

import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark

from reports import statistics as st

STORED = json.loads((BENCHMARKS / "results" / "coverage.json").read_text())
DEVIATIONS = 4.5  # standard errors: of 200 figures one is further off by chance with probability .0014


@pytest.fixture(scope="module")
def coverage():
    return load_benchmark("coverage")


def agree(found, stored, repetitions):
    """Two shares of a binomial, the error from both, at least that of one hit."""
    middle = (found * repetitions + stored * STORED["repetitions"] + 1) / (repetitions + STORED["repetitions"] + 2)
    error = math.sqrt(middle * (1 - middle) * (1 / repetitions + 1 / STORED["repetitions"]))
    return abs(found - stored) <= DEVIATIONS * error


def disagreements(rows, table, keys, value, repetitions):
    stored = {tuple(row[key] for key in keys): row[value] for row in STORED[table]}
    return [row for row in rows if not agree(row[value], stored[tuple(row[key] for key in keys)], repetitions)]


KEYS = ("statistic", "interval", "shape", "n")


def test_coverage_is_as_stated(coverage):
    rows = coverage.coverage(600, 0, seed=10, sizes=(3, 5, 10), leave_out="bootstrap")
    assert len(rows) == 6 * 3 * 3
    assert disagreements(rows, "coverage", KEYS, "coverage", 600) == []


def test_coverage_of_bootstraps_is_as_stated_and_falls_short(coverage):
    rows = coverage.coverage(250, 500, seed=11, sizes=(3, 10))
    assert disagreements(rows, "coverage", KEYS, "coverage", 250) == []
    of_mean = {row["interval"]: row["coverage"] for row in rows if (row["statistic"], row["n"]) == ("mean", 3)}
    assert of_mean["bootstrap, percentile"] < 0.85


def test_levels_are_as_stated(coverage):
    rows = coverage.levels(2000, seed=12)
    assert disagreements(rows, "levels", ("test", "shape", "n"), "rejected", 2000) == []


def test_level_of_friedman_is_as_stated(coverage):
    rows = coverage.friedman_levels(500, seed=13)
    for form in ("chi2", "F", "nemenyi"):
        assert disagreements(rows, "friedman", ("methods", "blocks"), form, 500) == []


def test_coverage_of_shares_is_exactly_as_stated(coverage):
    for row in STORED["shares"]:
        if row["n"] <= 10:
            assert coverage.share_coverage(row["n"], row["interval"], row["ties"]) == pytest.approx(row)


def test_the_tables_of_the_docs_are_the_stored_figures():
    """A line per interval and per test, a cell per n: normal / heavy-tailed / skewed in whole per cent, – for none."""
    page = (BENCHMARKS.parent / "docs" / "statistics.md").read_text()
    lines: dict[str, dict[int, list[str]]] = {}
    for row in STORED["coverage"] + STORED["levels"]:
        name = f"{row['statistic']} · {row['interval']}" if "interval" in row else row["test"]
        share = row["coverage"] if "interval" in row else row["rejected"]
        figure = f"{100 * share:.0f}" if row.get("finite", 1) else "–"
        lines.setdefault(name, {}).setdefault(row["n"], []).append(figure)
    assert len(lines) == 11 + 7
    for name, cells in lines.items():
        texts = ["–" if set(one) == {"–"} else " / ".join(one) for one in cells.values()]
        assert f"| {name} | {' | '.join(texts)} |\n" in page


def test_default_intervals_have_the_coverage_they_were_chosen_for():
    """Within three standard errors: t, sign test, signed rank and exact shares cover 95 %; the IQM's covers 92 %."""
    least = {"iqm": 0.92}
    error = 3 * math.sqrt(0.95 * 0.05 / STORED["repetitions"])
    for row in STORED["coverage"]:
        beyond_reach = row["statistic"] == "mean" and row["shape"] == "skewed"
        if "★" in row["interval"] and not beyond_reach:
            assert row["coverage"] >= least.get(row["statistic"], 0.95) - error, row
    for row in STORED["levels"]:
        if row["shape"] != "skewed" or "Wilcoxon" in row["test"]:
            assert row["rejected"] <= 0.05 + error, row
    assert all(row["least"] >= 0.95 for row in STORED["shares"] if row["interval"] == "clopper_pearson")
    assert all(row["chi2"] <= 0.05 + error for row in STORED["friedman"])


def test_the_vectorised_forms_are_the_functions_of_the_report(coverage):
    rng = np.random.default_rng(14)
    for n in (3, 6, 10):
        d = rng.normal(size=(20, n))
        low, high = coverage.t_ends(d)
        assert coverage.wilcoxon_rows(d) == pytest.approx([st.wilcoxon(row) for row in d])
        assert low == pytest.approx([st.t_interval(row).low for row in d])
        assert high == pytest.approx([st.t_interval(row).high for row in d])
        for band in (0.5, 1.0, 2.0):
            verdicts = [[st.equivalence(row + edge, band) == "equivalent" for row in d] for edge in (-band, band)]
            assert coverage.false_equivalent(d, band) == max(np.mean(one) for one in verdicts)
    one = coverage.bootstrap_ends(d[:1], "iqm", "percentile", np.random.default_rng(st.BOOTSTRAP_SEED), 4000)
    assert (one[0][0], one[1][0]) == (
        st.bootstrap_interval(d[0], statistic="iqm").low,
        st.bootstrap_interval(d[0], statistic="iqm").high,
    )


def test_the_family_wise_error_is_that_of_holm(coverage):
    """Holm rejects one at least exactly where the smallest p is small enough: the rate is the same, draw by draw."""
    rng = np.random.default_rng(15)
    values = rng.normal(size=(300, 1, 10)) + rng.normal(size=(300, 6, 10))
    p = coverage.wilcoxon_rows(values[:, 1:] - values[:, :1])
    by_holm = [bool(np.any(st.holm(row) <= 0.05)) for row in p]
    assert by_holm == (p.min(axis=1) * 5 <= 0.05 + 1e-12).tolist()


def test_truths_are_those_of_the_populations(coverage):
    rng = np.random.default_rng(16)
    for shape in coverage.SHAPES:
        d = coverage.differences(shape, 1, 400_000, rng)[0]
        assert coverage.truth(shape, "median") == pytest.approx(np.median(d), abs=0.02)
        assert coverage.truth(shape, "iqm") == pytest.approx(st.iqm(d), abs=0.02)
        assert coverage.truth(shape, "P(better)") == pytest.approx(np.mean(d < 0), abs=0.005)
        pairs = (d[:200_000] + d[200_000:]) / 2
        assert coverage.truth(shape, "pseudomedian") == pytest.approx(np.median(pairs), abs=0.03)
