"""The report as a file: its numbers, every status of runs, hostile names, one file, the same bytes every time."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from reports_store import PROVENANCE, Planned, in_memory, main_grid, neg_elbo, planned

from reports import comparison
from reports.contract.errors import ReportError
from reports.page import curves, figures, numbers, quality_tables
from reports.page.context import Options
from reports.page.palette import styles
from reports.report import build_report
from reports.sections import findings


def report(runs, tmp_path, **options):
    path = build_report(runs, tmp_path, Options(**options))
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs():
    return in_memory(main_grid())


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    build_report(runs, out)
    return out


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_counts_are_all_there(page):
    for count in ("25 planned", "21 finished", "1 failed", "1 diverged", "1 skipped", "1 missing"):
        assert count in page.text


def test_the_verdict_names_the_best_setting_with_its_intervals(page, runs):
    best = [neg_elbo(Planned("gumbel_softmax", "exponential", seed)) for seed in range(3)]
    base = [neg_elbo(Planned("straight_through", "exponential", seed)) for seed in range(3)]
    assert f"lowest mean of 7 settings, {np.mean(best):.2f} nats per example (95 % t-interval [" in page.text
    assert f"Paired by seed it is {np.mean(base) - np.mean(best):.2f} nats below straight_through" in page.text
    assert "an interval without zero" in page.text


def test_the_power_floor_is_printed_instead_of_not_significant(page):
    assert "with 3 pairs the smallest possible two-sided Wilcoxon p is .250" in page.text
    assert "floor .250" in page.text
    assert "not significant" not in page.text


def test_provenance_and_command_are_there(page):
    for text in ("harness run --grid demo.yaml", "0123456789ab (uncommitted changes)", "torch 2.9.0", "AMD EPYC 7B13"):
        assert text in page.text
    assert "2025-10-09 08:53 UTC" in page.text


def test_contended_times_and_confounding_are_noted(page):
    assert "Contended: other runs shared the machine" in page.text
    assert "Temperature and learning rate are confounded" in page.text


def test_failures_show_the_first_line_of_the_error_escaped(page, folder):
    assert "RuntimeError: out of memory <b>on</b> & off" in page.text
    assert "&lt;b&gt;on&lt;/b&gt; &amp; off" in (folder / "report.html").read_text()


def test_every_picture_has_words(page):
    assert page.tags.count("svg") >= 10
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert any("mean 1" in label and "interval" in label for label in labels)
    assert page.tags.count("img") == sum(name == "alt" and bool(value) for name, value in page.attributes) == 15


def test_the_file_needs_nothing_else(folder):
    text = (folder / "report.html").read_text()
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#|data:)[^\s"')>]+""", text)
    assert outside == []
    assert not re.findall(r"https?://(?!www\.w3\.org/)", text)


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {value for name, value in page.attributes if name in ("href", "xlink:href") and value.startswith("#")}
    assert {link[1:] for link in links} <= set(ids)


def test_same_runs_same_bytes_in_any_order_of_rows(runs, folder, tmp_path):
    build_report(runs, tmp_path)
    for name in ("report.html", "tables/quality.csv", "tables/differences.tex"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_no_half_written_files_remain(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = ("completeness", "differences", "equal-cost", "failures", "latents", "published", "quality", "runs",
              "sensitivity", "targets", "timings", "wins")  # fmt: skip
    expected = {f"tables/{table}.{kind}" for table in tables for kind in ("csv", "md", "tex")}
    expected |= {"report.html", "tables/runs.parquet", "tables/history.parquet"}
    expected |= {"tables/.written.json", "figures/.written.json"}
    assert {name for name in names if not name.startswith("figures/") or name in expected} == expected
    figures = {name.rpartition(".")[0] for name in names - expected if name.startswith("figures/")}
    assert names - expected == {f"{name}.svg" for name in figures}
    assert {"figures/verdict", "figures/profile", "figures/pareto-1", "figures/curves-by-step-1"} <= figures


def test_csv_has_the_numbers_in_full(folder):
    frame = pd.read_csv(folder / "tables" / "quality.csv")
    row = frame[(frame["metric"] == "test/neg_elbo") & (frame["setting"] == "gumbel_softmax · constant(1)")].iloc[0]
    assert row["mean"] == pytest.approx(np.mean([neg_elbo(Planned("gumbel_softmax", "constant", s)) for s in range(3)]))
    assert row["n"] == 3


def test_latex_and_markdown_are_escaped(folder):
    latex = (folder / "tables" / "quality.tex").read_text()
    assert r"\toprule" in latex
    assert r"gumbel\_softmax $\cdot$ constant(1)" in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1
    assert "| gumbel_softmax · constant(1) |" in (folder / "tables" / "quality.md").read_text()


HOSTILE = "<script>alert(1)</script>\"'`&amp; $x_1$ {{ 7*7 }} \\end{table} | --> ]]> ☃ \u202e"


def test_hostile_names_are_text(tmp_path):
    planned = [Planned("straight_through", "constant", seed, axis=f"x={HOSTILE}") for seed in range(2)]
    planned += [Planned(HOSTILE, "none", seed, device=HOSTILE) for seed in range(2)]
    planned += [Planned("rloo", "none", 0, status="failed", error=HOSTILE)]
    provenance = {**PROVENANCE, HOSTILE: {HOSTILE: HOSTILE}, "cpu": HOSTILE, "packages": {HOSTILE: HOSTILE}}
    runs = in_memory(planned, question=HOSTILE, command=HOSTILE, provenance=provenance, grid=HOSTILE)
    page = report(dataclasses.replace(runs, notes=(HOSTILE,)), tmp_path, title=HOSTILE)
    assert page.tags.count("script") == 1
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7*7 }}" in page.text
    assert "$x_1$" in page.text
    assert not any(name.startswith("on") for name, _ in page.attributes)


CASES = {
    "one run": (planned("rloo"), "It is the only setting with a result"),
    "one seed": (planned("straight_through", "gumbel_softmax"), "One seed per setting: no interval can be given"),
    "one estimator": (planned("rloo", seeds=(0, 1, 2)), "nothing to compare it with"),
    "nothing finished": (planned("rloo", "straight_through", status="running"), "No run finished"),
    "all missing": (planned("rloo", "straight_through", seeds=(0, 1), status="missing"), "2 missing"),
    "all diverged": (planned("rloo", "straight_through", status="diverged", error="nan"), "No run finished"),
    "all skipped": (planned("rloo", device="cuda", status="skipped", error="no CUDA"), "1 skipped"),
    "baseline failed": (
        [*planned("gumbel_softmax", seeds=(0, 1)), *planned("straight_through", seeds=(0, 1), status="failed")],
        "gumbel_softmax · constant(1) reaches",
    ),
    "no seed in common": (
        [*planned("gumbel_softmax", seeds=(0, 1)), *planned("straight_through", seeds=(5, 6))],
        "cannot be paired with the baseline straight_through",
    ),
    "no temperature at all": (planned("rloo", "reinforce", seeds=(0, 1)), "no temperature"),
    "the baseline is best": (planned("straight_through", "reinforce", seeds=(0, 1, 2)), "It is the baseline; paired"),
    "an unknown status": (planned("rloo", status="finished") + planned("reinforce", status="weird"), "1 weird"),
}


RARE = ("no seed in common", "no temperature at all", "the baseline is best", "one estimator")
"""2 s each: in the slow suite."""


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in RARE)) for case in CASES])
def test_every_outcome_has_a_sensible_report(case, tmp_path):
    grid, sentence = CASES[case]
    page = report(in_memory(grid), tmp_path)
    assert sentence in page.text
    assert "nan" not in page.text.lower().split() or case == "all diverged"


@pytest.mark.usefixtures("undrawn")
def test_one_epoch_is_a_point_per_run(tmp_path):
    page = report(in_memory(planned("straight_through", "rloo", seeds=(0, 1)), epochs=1), tmp_path)
    assert "There is one epoch, so each run is one point" in page.text


def test_a_diverged_run_ranks_its_setting_last():
    grid = [*planned("gumbel_softmax", seeds=(0, 1)), *planned("reinforce", seeds=(0, 1))]
    grid += planned("gumbel_softmax", seeds=(2,), status="diverged")
    levels = comparison.levels(in_memory(grid).runs, "test/neg_elbo")
    assert list(levels["estimator"]) == ["reinforce", "gumbel_softmax"]
    worst = levels.iloc[1]
    assert (worst["n"], worst["n_bad"], worst["n_planned"]) == (2, 1, 3)
    assert math.isfinite(worst["median"])
    assert worst["iqm"] == math.inf


def test_pairs_have_the_same_schedule_or_none(runs):
    baseline = comparison.choose_baseline(runs.runs, None)
    found = comparison.differences(runs.runs, "test/neg_elbo", baseline).set_index(["setting", "versus"])
    constant, annealed = "constant(1)", "exponential(1→0.5, rate=3e-05, every=100)"
    expected = {(f"{name} · {s}", f"straight_through · {s}") for name in ("gumbel_softmax", "st_gumbel_softmax")
                for s in (constant, annealed)}  # fmt: skip
    expected |= {
        (name, f"straight_through · {s}") for name in ("rloo(n_samples=4)", "reinforce") for s in (constant, annealed)
    }
    assert set(found.index) == expected
    row = found.loc[("rloo(n_samples=4)", f"straight_through · {constant}")]
    by_hand = [
        neg_elbo(Planned("rloo", "none", s)) - neg_elbo(Planned("straight_through", "constant", s)) for s in range(3)
    ]
    assert row["mean"] == pytest.approx(np.mean(by_hand))
    half = 4.302652729 * np.std(by_hand, ddof=1) / math.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((np.mean(by_hand) - half, np.mean(by_hand) + half))
    assert (row["probability_of_improvement"], row["p"], row["n_comparisons"]) == (0, 0.25, 8)
    failed = found.loc[("reinforce", f"straight_through · {constant}")]
    assert (failed["n_pairs"], failed["n_bad"], failed["median"]) == (2, 2, math.inf)


def test_the_baseline_can_be_an_estimator_a_label_or_a_setting(runs):
    assert comparison.choose_baseline(runs.runs, None).label == "straight_through"
    assert comparison.choose_baseline(runs.runs, "rloo").label == "rloo(n_samples=4)"
    setting = comparison.choose_baseline(runs.runs, "gumbel_softmax · constant(1)")
    found = comparison.differences(runs.runs, "test/neg_elbo", setting)
    assert set(found["versus"]) == {"gumbel_softmax · constant(1)"}
    assert len(found) == 7
    without = runs.runs[runs.runs["estimator"] != "straight_through"]
    assert comparison.choose_baseline(without, None).label == "gumbel_softmax"


def test_an_unknown_baseline_is_one_line(runs, tmp_path):
    with pytest.raises(ReportError, match=r"baseline: expected one of gumbel_softmax, .*; got 'nope'\."):
        build_report(runs, tmp_path, Options(baseline="nope"))
    assert not (tmp_path / "report.html").exists()


def test_holm_p_is_shown_where_there_are_enough_pairs():
    runs = in_memory(planned("straight_through", "gumbel_softmax", "st_gumbel_softmax", seeds=range(8))).runs
    differences = comparison.differences(runs, "test/neg_elbo", comparison.choose_baseline(runs, None))
    assert list(differences["p_holm"]) == pytest.approx([2 / 2**7] * 2)
    shown = quality_tables.differences_table(differences, comparison.metrics(runs)[0], "straight_through")
    assert [row[-1].text for row in shown.rows] == [".016", ".016"]
    assert "and .016 after Holm's correction for 2 comparisons" in findings.power_floor(differences)


def test_a_swept_learning_rate_is_an_axis_and_stops_the_warning():
    grid = [dataclasses.replace(run, params={"training.lr": lr}, axis=f"lr={lr}") for lr in (0.001, 0.01)
            for run in main_grid()[:18]]  # fmt: skip
    runs = in_memory(grid).runs
    assert not any("confounded" in text for text in findings.warnings(runs))
    differences = comparison.differences(runs, "test/neg_elbo", comparison.choose_baseline(runs, None))
    assert all(row["setting"].split(" · ")[1:] == row["versus"].split(" · ")[1:] for _, row in differences.iterrows())


def test_colours_belong_to_estimators_whatever_the_order():
    pairs = [("b", "b(n=2)"), ("a", "a"), ("b", "b(n=4)")]
    look = styles(pairs)
    assert look == styles(reversed(pairs))
    assert look["b(n=2)"].colour == look["b(n=4)"].colour == 1
    assert look["b(n=2)"].dash != look["b(n=4)"].dash


@pytest.mark.parametrize(
    ("value", "text"), [(-0.001, "0.00"), (-1.5, "−1.50"), (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "–")]
)
def test_numbers_are_written_for_readers(value, text):
    assert numbers.fixed(value) == text


def test_many_runs_become_panels_with_bands(tmp_path, monkeypatch):
    """More than six estimators get a panel each, and many seeds a band instead of a line each."""
    runs = in_memory([Planned(f"estimator_{i}", "constant", seed) for i in range(7) for seed in range(4)])
    look = styles(zip(runs.runs["estimator"], runs.runs["estimator_label"], strict=True))
    lines = figures.curves(runs.history, "val/loss", "step", look)
    monkeypatch.setattr(curves, "MAX_THIN_LINES", 3)
    bands = figures.curves(runs.history, "val/loss", "step", look)
    assert len(lines) == len(bands) == 7
    assert all(
        "fill-opacity: 0.18" in band.svg and "fill-opacity" not in line.svg
        for band, line in zip(bands, lines, strict=True)
    )
