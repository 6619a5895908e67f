"""Measures for which higher is better: every number and word of a report, against the same data with the other sign."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from reports_store import Planned, in_memory, main_grid, neg_elbo, planned
from task_runs import CURVE, DIGITS, DISTANCE, FakeTask, measure, task_runs

from reports import compare_sweeps, comparison, report
from reports.comparison.changes import changes
from reports.contract.errors import ReportError
from reports.page import curves, quality_tables
from reports.page.blocks import Findings, Heading, How, Pictures, Tabular, Words
from reports.page.context import Context, Options
from reports.sections import (
    SECTIONS,
    cost,
    findings,
    gradients,
    intervals,
    latents,
    learning,
    published,
    targets,
    temperature,
)

pytestmark = pytest.mark.usefixtures("undrawn")

LOW = FakeTask("puzzle", [measure("score", "lower", band=2.0)], 0, 1)
HIGH = FakeTask("puzzle", [measure("score", "higher", band=2.0)], 0, -1)
FORBIDDEN = ("nats", "image", "decoder", "ELBO", "elbo", "encoder", "lower", "lowest", "reconstruct")


def grid():
    """Six settings and two learning rates, one with failed runs, one that fails at every seed."""
    runs = planned("gumbel_softmax", "straight_through", "st_gumbel_softmax", "rloo", seeds=range(7))
    runs += [Planned("gumbel_softmax", "exponential", s, params={"training.lr": lr}, axis=f"lr={lr}", shift=shift)
             for s in range(7) for lr, shift in ((0.01, 1.0), (0.1, -1.0))]  # fmt: skip
    bad = {("rloo", 2): "failed", ("st_gumbel_softmax", 0): "diverged", ("straight_through", 2): "failed"}
    runs = [dataclasses.replace(run, status=bad.get((run.estimator, run.seed), run.status)) for run in runs]
    return [*runs, *planned("reinforce", seeds=(0, 1), status="failed", error="no")]


@pytest.fixture(scope="module")
def low():
    return Context(task_runs(LOW, grid()))


@pytest.fixture(scope="module")
def high():
    return Context(task_runs(HIGH, grid()))


def blocks(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def is_turned(one, other):
    """Whether a column of numbers has the other sign; NaN fits NaN."""
    return np.allclose(one, -other, rtol=1e-9, atol=1e-12, equal_nan=True)


def is_same(one, other):
    return np.allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)


ENDS = {"low": "high", "high": "low", "median_low": "median_high", "median_high": "median_low", "iqm_low": "iqm_high",
        "iqm_high": "iqm_low"}  # fmt: skip
TURNED = {"mean", "median", "iqm", "target", "updates_loss", "evaluations_loss", "seconds_loss", "Score", *ENDS}


@pytest.mark.parametrize("make", SECTIONS, ids=lambda make: make.__module__.rpartition(".")[2])
def test_every_table_is_that_of_the_turned_values(make, low, high):
    """The same rows in the same order with the same tones, ranks, shares and p; values and differences turned."""
    pairs = zip(blocks(make(low), Tabular), blocks(make(high), Tabular), strict=True)
    for one, other in pairs:
        assert [[cell.tone for cell in row] for row in one.table.rows] == [
            [cell.tone for cell in row] for row in other.table.rows
        ]
        assert is_same(*([cell.shade or 0 for row in each.table.rows for cell in row] for each in (one, other)))
        assert [row[0].text for row in one.table.rows] == [row[0].text for row in other.table.rows]
        if one.name == "runs":
            continue
        for name in one.frame:
            if pd.api.types.is_numeric_dtype(one.frame[name]) and name in TURNED:
                assert is_turned(one.frame[name], other.frame[ENDS.get(name, name)]), (one.name, name)
            elif pd.api.types.is_numeric_dtype(one.frame[name]):
                assert is_same(one.frame[name], other.frame[name]), (one.name, name)
            elif name not in ("Score", "Median"):
                assert one.frame[name].fillna("").tolist() == other.frame[name].fillna("").tolist(), (one.name, name)


def test_the_turned_tables_have_something_in_them(low):
    names = {block.name for make in SECTIONS for block in blocks(make(low), Tabular)}
    assert {"quality", "differences", "wins", "targets", "equal-cost", "sensitivity"} <= names


def test_levels_put_the_highest_first_and_failures_last(high):
    found = high.levels(high.primary)
    whole = found[found["n_bad"] == 0]
    assert whole["mean"].is_monotonic_decreasing
    assert list(found["n_bad"] > 0) == sorted(found["n_bad"] > 0)
    assert found.iloc[-1]["setting"] == "reinforce"
    assert found.iloc[-1]["median"] == -math.inf
    assert math.isnan(found.iloc[-1]["mean"])


def test_a_failed_run_is_the_worst_and_never_the_best():
    failing = planned("gumbel_softmax", seeds=range(3)) + planned("rloo", seeds=range(3))
    failing = [dataclasses.replace(run, status="diverged") if (run.estimator, run.seed) == ("gumbel_softmax", 1)
               else run for run in failing]  # fmt: skip
    runs = task_runs(DIGITS, failing).runs
    metric = comparison.metrics(runs)[0]
    assert metric.worst == -math.inf
    assert list(comparison.levels(runs, "test/accuracy")["estimator"]) == ["rloo", "gumbel_softmax"]
    tried = comparison.by_seed(runs, metric)
    assert sorted(tried[("gumbel_softmax · constant(1)", "cpu")].values())[-1] == math.inf
    row = comparison.differences(runs, metric, comparison.choose_baseline(runs, "rloo")).iloc[0]
    assert (row["n_bad"], row["probability_of_improvement"]) == (1, pytest.approx(2 / 3))
    assert row["mean"] > 0


def verdict_of(context):
    metric = context.primary
    levels, rows = context.levels(metric), context.differences(metric)
    return "".join(findings.sentence(context.compared, metric, levels, rows, context.baseline))


def test_the_verdict_names_the_highest_mean_in_its_own_unit():
    runs = task_runs(DIGITS, planned("straight_through", "gumbel_softmax", seeds=range(4)))
    found = np.mean([DIGITS.value(Planned("gumbel_softmax", "constant", s)) for s in range(4)])
    words = verdict_of(Context(runs))
    assert words.startswith(f"gumbel_softmax · constant(1) has the highest mean of 2 settings, {found:.4f} (95")
    assert " 0.0289 above straight_through · constant(1) (95" in words
    assert "[+0.02" in words
    millimetres = verdict_of(Context(task_runs(CURVE, planned("straight_through", "gumbel_softmax", seeds=range(4)))))
    assert "has the lowest mean of 2 settings, 0.1123 mm (95" in millimetres
    assert "0.0058 mm below straight_through" in millimetres


def test_a_higher_mean_behind_a_failure_is_named():
    runs = planned("straight_through", "gumbel_softmax", seeds=range(3))
    runs = [dataclasses.replace(run, status="failed") if (run.estimator, run.seed) == ("gumbel_softmax", 2)
            else run for run in runs]  # fmt: skip
    words = verdict_of(Context(task_runs(DIGITS, runs)))
    assert words.startswith("straight_through · constant(1) is the only one of 2 settings without a failed run")
    assert "(gumbel_softmax · constant(1) has 0.43" in words


def test_the_best_is_compared_with_the_best_setting_of_the_baseline():
    runs = [Planned("gumbel_softmax", "exponential", s) for s in range(3)]
    runs += [Planned("straight_through", name, s) for name in ("constant", "exponential") for s in range(3)]
    runs += [Planned("rloo", "none", s, shift=-20) for s in range(3)]
    words = verdict_of(Context(task_runs(DIGITS, runs)))
    assert words.startswith("rloo has the highest mean")
    assert " above straight_through · exponential" in words  # not constant(1), which is further away


def test_bands_are_those_that_tasks_declare_or_that_are_given():
    runs = task_runs(DIGITS, planned("straight_through", "gumbel_softmax", seeds=range(4)))
    titles = [column.title for column in _differences_table(Context(runs)).columns]
    assert "±0.01" in titles
    assert "±0.05" in [column.title for column in _differences_table(Context(runs, Options(band=0.05))).columns]
    assert set(Context(runs, Options(band=0.05)).differences(Context(runs).primary)["equivalence"]) == {"equivalent"}
    without = task_runs(CURVE, planned("straight_through", "gumbel_softmax", seeds=range(4)))
    assert not any("±" in column.title for column in _differences_table(Context(without)).columns)
    assert set(Context(without).differences(Context(without).primary)["equivalence"]) == {""}
    given = _differences_table(Context(without, Options(band=0.002)))
    assert "±0.002 mm" in [column.title for column in given.columns]
    bands = {one.name: one.band for one in Context(runs, Options(band=0.05)).metrics}
    assert bands == {"test/accuracy": 0.05, "test/sum_accuracy": None}  # two shares need not be alike


def _differences_table(context):
    return quality_tables.differences_table(context.differences(context.primary), context.primary, "straight_through")


def test_the_number_of_seeds_is_given_for_the_band_in_its_unit():
    text = " ".join(block.text for block in blocks(SECTIONS[0](Context(task_runs(DIGITS, grid()))), Words))
    assert "so a difference of 0.01 would be found four times out of five" in text
    assert "found four times" not in " ".join(
        block.text for block in blocks(SECTIONS[0](Context(task_runs(CURVE, grid()))), Words)
    )


def test_a_target_of_a_higher_measure_is_reached_from_below(high):
    assert high.curve.name == "val/score"
    sections = targets.section(high)
    assert any("test/" not in block.title and "Target −" in block.title for block in blocks(sections, Heading))
    frame = pd.concat([block.frame for block in blocks(sections, Tabular)])
    easy = frame[frame["kind"] == "easy"]
    best = easy[easy["setting"].str.contains("lr=0.1")].iloc[0]
    values = [[HIGH.numbers(Planned("gumbel_softmax", "exponential", s, shift=-1.0), 3 / e)["score"]
               for e in range(1, 5)] for s in range(7)]  # fmt: skip
    first = [30 * (1 + next(i for i, value in enumerate(each) if value >= best["target"])) for each in values]
    assert (best["reached"], best["median_steps"]) == (7, np.median(first))
    assert easy["target"].iloc[0] < frame[frame["kind"] == "middle"]["target"].iloc[0]
    assert set(easy.loc[easy["setting"] == "reinforce", "reached"]) == {0}
    assert "≥" in blocks(sections, Tabular)[0].table.caption
    assert "has come up to the target" in blocks(sections, How)[-1].text


def test_curves_are_of_the_validation_metric_of_the_measure_that_ranks():
    runs = task_runs(DIGITS, planned("rloo", "straight_through"))
    assert Context(runs).curve.name == "val/accuracy"
    assert Context(runs, Options(metric="test/sum_accuracy")).curve.name == "val/sum_accuracy"
    assert Context(runs, Options(metric="time/step_s_median")).curve.name == "val/accuracy"
    without = dataclasses.replace(runs, history=runs.history.drop(columns=["val/accuracy", "val/sum_accuracy"]))
    assert (Context(without).curve.name, Context(without).curve.better) == ("val/loss", "lower")
    lone = dataclasses.replace(runs, history=without.history.drop(columns="val/loss"))
    assert Context(lone).curve.name == "train/loss"
    assert Context(in_memory(planned("rloo"))).curve.per == "nats per example"


def alts(section):
    return " ".join(panel.alt for block in blocks(section, Pictures) for panel in block.panels)


def test_curves_count_a_failed_run_as_lowest_and_name_the_highest_first(high):
    text = alts(learning.section(high))
    assert text.index("gumbel_softmax ends at") < text.index("straight_through ends at")
    runs = task_runs(HIGH, [*planned("rloo", seeds=range(3)), *planned("rloo", seeds=(3,), status="failed")])
    late = runs.history["status"].eq("failed") & (runs.history["epoch"] > 2)
    middle = curves._median_curve(runs.history[~late], curves._Curve("val/score", "step", "higher", 1))
    ends = sorted(HIGH.numbers(Planned("rloo", "none", s), 3 / 4)["score"] for s in range(3))
    assert middle["median"].iloc[-1] == pytest.approx((ends[0] + ends[1]) / 2)


def test_profiles_pareto_fronts_and_temperatures_look_for_the_highest(low, high):
    assert "half of its runs at −" not in alts(intervals.section(high))
    assert "or above" in alts(intervals.section(high))
    assert "or above" not in alts(intervals.section(low))
    fronts = [alts(cost.section(each)).count("gumbel_softmax · exponential") for each in (low, high)]
    assert fronts[0] == fronts[1] > 0
    cells = temperature.best_cells(high.frame, "test/score").set_index(["estimator", "schedule_label"])
    annealed = cells.loc["gumbel_softmax"].drop(index="constant(1)").iloc[0]
    assert annealed["axes"] == "lr=0.1"
    expected = np.median([-neg_elbo(Planned("gumbel_softmax", "exponential", s, shift=-1.0)) for s in range(7)])
    assert annealed["median"] == pytest.approx(expected)


def test_the_share_of_a_profile_is_that_of_runs_at_a_value_or_above(monkeypatch):
    drawn = {}

    def step(axes, x, y, **how):
        drawn.setdefault("lines", []).append((np.array(x), np.array(y), how["where"]))

    monkeypatch.setattr("matplotlib.axes.Axes.step", step)
    context = Context(task_runs(HIGH, planned("rloo", seeds=range(5))))
    intervals.profile(context, context.primary)
    values = np.sort([HIGH.value(Planned("rloo", "none", s)) for s in range(5)])
    ((x, y, where),) = drawn["lines"]
    assert where == "post"
    for value in (values[0], values[2], values[4]):
        assert y[np.flatnonzero(np.isclose(x, value))[0]] == pytest.approx(np.mean(values >= value))


@pytest.mark.parametrize("task", [DIGITS, CURVE], ids=lambda task: task.name)
def test_a_page_of_another_task_speaks_neither_of_images_nor_of_nats(task):
    context = Context(task_runs(task, main_grid()))
    page = Page(report.render(context, [section(context) for section in SECTIONS]))
    shown = " ".join([page.text, *(str(value) for name, value in page.attributes if name in ("title", "aria-label"))])
    found = [word for word in FORBIDDEN if word in shown]
    assert found == ([] if task is DIGITS else ["lower", "lowest"])
    assert blocks(published.section(context), Tabular) == []
    assert {column.title for column in latents.use_table(context.frame)[0].columns} >= {"Perplexity", "Entropy"}


def test_definitions_of_a_page_are_of_its_measures(high):
    context = Context(task_runs(DIGITS, grid()))
    page = Page(report.render(context, [section(context) for section in SECTIONS]))
    anchors = {value for name, value in page.attributes if name == "id"}
    linked = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#def-")}
    assert linked <= anchors
    assert "test/accuracy : Accuracy of the digits, higher is better" in page.text
    assert "Positive is better." in page.text
    assert "±0.01 that nobody would care about" in page.text


def test_measures_of_both_directions_share_a_page():
    task = FakeTask("both", [measure("score", "higher"), measure("cost", unit="s")], 0, -1)
    context = Context(task_runs(task, planned("rloo", "straight_through", seeds=range(3))))
    assert [one.better for one in context.metrics] == ["higher", "lower"]
    page = Page(report.render(context, [section(context) for section in SECTIONS]))
    assert "Negative is better where lower is, positive where higher is." in page.text
    assert [finding.subject for block in blocks(SECTIONS[0](context), Findings) for finding in block.findings] == [
        "straight_through · constant(1)", "rloo",
    ]  # fmt: skip  # both measures are larger for straight_through, which is better of one and worse of the other


def test_any_measure_can_rank():
    runs = task_runs(DIGITS, planned("rloo", "straight_through", seeds=range(3)))
    metric = Context(runs, Options(metric="val/loss")).primary if "val/loss" in runs.runs else None
    assert metric is None
    frame = runs.runs.assign(**{"val/accuracy": runs.runs["test/accuracy"], "val/loss": 1.0})
    wide = dataclasses.replace(runs, runs=frame)
    found = Context(wide, Options(metric="val/accuracy")).primary
    assert (found.name, found.better, found.band) == ("val/accuracy", "higher", 0.01)
    assert Context(wide, Options(metric="val/loss")).primary.better == "lower"
    assert Context(wide, Options(metric="time/images_per_s")).primary.better == "higher"
    with pytest.raises(ReportError, match=r"^--metric: expected one of .*test/accuracy.*; got 'test/neg_elbo'"):
        Context(wide, Options(metric="test/neg_elbo"))


def test_two_sweeps_of_a_higher_measure(low, high):
    worse = [dataclasses.replace(run, shift=5.0 if run.estimator == "gumbel_softmax" else -5.0)
             for run in planned("gumbel_softmax", "rloo", seeds=range(4))]  # fmt: skip
    frames = {task: [task_runs(task, each).runs for each in (planned("gumbel_softmax", "rloo", seeds=range(4)), worse)]
              for task in (LOW, HIGH)}  # fmt: skip
    one, other = (changes(each, comparison.metrics(each[0])[0]) for each in frames.values())
    assert list(one["equivalence"]) == list(other["equivalence"]) == ["worse", "better"]
    assert list(other["estimator"]) == ["gumbel_softmax", "rloo"]  # the worst change first
    assert other["mean"].tolist() == pytest.approx([-5, 5])
    assert is_turned(one["low"], other["high"])
    assert all(is_turned(one[f"mean_{i}"], other[f"mean_{i}"]) for i in (1, 2))


def test_a_page_about_two_sweeps_of_a_higher_measure(tmp_path):
    first = task_runs(HIGH, planned("gumbel_softmax", "rloo", seeds=range(4)))
    second = task_runs(HIGH, planned("gumbel_softmax", "rloo", seeds=range(4), shift=5.0))
    path = compare_sweeps.build_comparison(("one", first), ("other", second), tmp_path, Options())
    page = Page(path.read_text())
    assert "Of 2 settings that both have: 2 worse." in page.text
    assert "an interval above zero is an improvement, one below it a regression" in page.text
    assert "±2.00" in page.text
    assert "nats" not in page.text


def test_sweeps_without_a_common_task_do_not_compare(tmp_path):
    first, second = (task_runs(task, planned("rloo")) for task in (DIGITS, HIGH))
    with pytest.raises(ReportError, match=r"^--compare: expected sweeps with a task in common, got mnist_sum and puz"):
        compare_sweeps.build_comparison(("one", first), ("other", second), tmp_path, Options())


def test_each_layer_of_a_task_with_several_has_its_gradients():
    runs = task_runs(DIGITS, [*planned("rloo", seeds=(0, 1)), *planned("gumbel_softmax")])
    history = runs.history.copy()
    for layer, bias in (("z1", 0.5), ("z2", 0.25)):
        for measured in ("own", "reinmax-tau-1.5"):
            for name in ("relative_bias", "cosine", "snr", "variance", "evaluations"):
                history[f"gradient/{layer}.{measured}/{name}"] = bias
        history[f"gradient/{layer}.truth_error"] = bias / 10
    sweep = dataclasses.replace(runs.sweeps[0], basket={"reinmax-tau-1.5": "reinmax(tau=1.5)"})
    context = Context(dataclasses.replace(runs, history=history, sweeps=(sweep,)))
    section = gradients.section(context)
    for layer, bias in (("z1", "0.500"), ("z2", "0.250")):
        table = next(block.table for block in blocks(section, Tabular) if f"rloo, layer {layer}" in block.table.caption)
        assert [row[0].text for row in table.rows] == ["rloo (its own)", "reinmax(tau=1.5)"]
        assert [row[1].text for row in table.rows] == [bias, bias]
    assert "up to 0.05 of its norm" in blocks(section, Words)[0].text
    titles = [block.title for block in blocks(section, Heading)]
    assert {"Relative bias on the logits, layer z1", "Cosine on the logits, layer z2"} <= set(titles)
    assert "relative bias, layer z2 and test/accuracy of each setting" in alts(section)


def test_an_optimum_that_several_reach_is_shared():
    optimum = FakeTask("optimum", [DISTANCE], 0, 0)
    words = verdict_of(Context(task_runs(optimum, planned("straight_through", "gumbel_softmax", "rloo", seeds=(0, 1)))))
    assert words.startswith("gumbel_softmax · constant(1) has, with 2 others, the lowest mean of 3 settings, 0.00 mm")
    assert "it is equal to straight_through · constant(1)" in words


def test_points_of_a_figure_are_differences_as_they_are(low, high):
    rows = [each.differences(each.primary) for each in (low, high)]
    points = [comparison.difference_points(each.frame, "test/score", found)
              for each, found in zip((low, high), rows, strict=True)]  # fmt: skip
    assert len(points[0]) > 3
    assert all(is_turned(one, other) for one, other in zip(*points, strict=True))


def test_the_distance_to_the_best_setting_of_the_baseline_is_as_it_is():
    runs = planned("gumbel_softmax", seeds=range(3), shift=-20)
    runs += [Planned("straight_through", name, s) for name in ("constant", "exponential") for s in range(3)]
    words = verdict_of(Context(task_runs(DIGITS, runs)))
    assert "Against the baseline’s best setting, straight_through · exponential" in words
    assert "it is at +0.12" in words
    assert "(95\u00a0% interval [+0.1" in words


def test_the_best_temperature_is_where_the_highest_median_is(high):
    columns = {"estimator_label": "gumbel_softmax", "device": "cpu", "axes": ""}
    cells = pd.DataFrame({**columns, "median": [-2.0, -1.0, -3.0], "schedule.tau": [0.1, 0.5, 1.0]})
    panel = temperature._curves(high, cells, high.primary)
    assert "gumbel_softmax is best at τ = 0.5 with -1" in panel.alt


def test_words_on_how_to_read_a_page_have_its_direction(low, high):
    texts = [" ".join(how.text for make in SECTIONS for how in blocks(make(each), How)) for each in (low, high)]
    for lower, higher in (
        ("Left of zero is better", "Right of zero is better"),
        ("further down is better", "further up is better"),
        ("The further left and the steeper", "The further right and the steeper"),
        ("at which the row is lower", "at which the row is higher"),
        ("has come down to the target", "has come up to the target"),
        ("an interval below zero is an improvement", "an interval above zero is an improvement"),
    ):
        assert (lower in texts[0], higher in texts[0]) == (True, False), lower
        assert (lower in texts[1], higher in texts[1]) == (False, True), higher
