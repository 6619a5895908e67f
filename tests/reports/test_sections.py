"""The sections of a report against numbers computed by hand, and their text without data."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from reports_store import Planned, final_metrics, history, in_memory, main_grid, neg_elbo, planned
from undrawn import figures_undrawn

from reports import comparison, report
from reports.comparison import grouping
from reports.contract.errors import ReportError
from reports.page.blocks import How, Pictures, Tabular, Words
from reports.page.context import Context, Options, best_settings
from reports.page.definitions import SLUGS
from reports.page.gradients import COLUMNS
from reports.sections import SECTIONS, equal_cost, intervals, published, targets, temperature, win_matrix

ORDER = ["verdict", "completeness", "quality", "curves", "intervals", "wins", "targets", "cost", "sensitivity",
         "gradients", "latents", "pictures", "published", "failures", "methods"]  # fmt: skip
LOSS = comparison.Metric("val/loss", "val/loss", "")


@pytest.fixture(scope="module")
def context():
    return Context(in_memory(main_grid()), Options(ui="http://127.0.0.1:5000"))


@pytest.fixture(scope="module")
def sections(context):
    with figures_undrawn():
        return [section(context) for section in SECTIONS]


def blocks(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def only_table(context, module):
    return blocks(module.section(context), Tabular)[0]


def test_all_fifteen_sections_are_there_in_order(sections):
    assert [section.slug for section in sections] == ORDER
    assert all(section.blocks for section in sections)


@pytest.mark.parametrize("grid", [planned("rloo", "straight_through", status="running"), planned("rloo")], ids=str)
def test_every_section_says_something_without_data(grid):
    for section in (make(Context(in_memory(grid))) for make in SECTIONS):
        assert section.blocks, section.slug


def test_every_figure_has_words_on_how_to_read_it(sections):
    for section in sections:
        if section.slug != "verdict" and blocks(section, Pictures):
            assert blocks(section, How), section.slug
        assert all(panel.alt for block in blocks(section, Pictures) for panel in block.panels)


def test_every_number_is_defined_one_click_away(context, sections):
    page = Page(report.render(context, sections))
    anchors = {value for name, value in page.attributes if name == "id"}
    linked = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#def-")}
    assert linked <= anchors
    assert {f"def-{slug}" for slug in SLUGS} <= anchors
    free = {"Device", "Estimator", "Seed", "Run", "First line of the error", "Machine", "Metric", "Published",
            "Difference", "What differs"}  # fmt: skip  # words, not statistics
    free |= {column.title for column in COLUMNS}  # defined below their table
    for section in sections:
        for block in blocks(section, Tabular):
            if "matrix" not in block.style:
                named = [column.title for column in block.table.columns if not column.term and column.title not in free]
                assert named in ([], ["Setting", "Seed", "Status"], ["Setting", "Status"], ["n"]), (section.slug, named)


def test_runs_link_to_mlflow(context):
    shown = blocks(SECTIONS[1](context), Tabular)[1].table
    links = [row[-1].link for row in shown.rows]
    stored = context.frame["run_id"].ne("")
    assert [bool(link) for link in links] == list(stored)
    assert (
        links[0]
        == f"http://127.0.0.1:5000/#/experiments/1/runs/{context.frame['run_id'].iloc[0]}?workflowType=machine_learning"
    )


@pytest.mark.parametrize(("run_id", "experiment"), [("x" * 32, "1"), ("0" * 32, "1/../2"), ("", "1")])
def test_invalid_run_and_experiment_ids_have_no_link(context, run_id, experiment):
    assert context.link({"run_id": run_id, "experiment_id": experiment}) == ""


def test_wins_are_shares_of_seeds(context):
    frame = only_table(context, win_matrix).frame.set_index(["setting", "versus"])
    one, other = "gumbel_softmax · constant(1)", "straight_through · constant(1)"
    found = [neg_elbo(Planned("gumbel_softmax", "constant", s)) - neg_elbo(Planned("straight_through", "constant", s))
             for s in range(3)]  # fmt: skip
    row = frame.loc[(one, other)]
    assert (row["share"], row["n"]) == (1.0, 3)
    assert row["mean"] == pytest.approx(np.mean(found))
    assert frame.loc[(other, one), "share"] == 0
    assert frame.loc[("reinforce", other), "share"] == 0  # a failure is a loss


def test_many_settings_leave_the_best_of_each_estimator():
    levels = pd.DataFrame(
        {"setting": ["a1", "a2", "b1", "a3", "c1"], "device": "cpu", "estimator_label": ["a", "a", "b", "a", "c"]}
    )
    assert [key[0] for key in best_settings(levels, 4)] == ["a1", "a2", "b1", "c1"]
    assert len(best_settings(levels, 9)) == 5


def test_targets_count_failures_as_not_reached(context):
    ends = targets._final_medians(context)
    found = targets.targets(ends, context.curve)
    assert list(found) == ["easy", "middle"]
    assert found["middle"] <= found["easy"]
    frame = pd.concat([block.frame for block in blocks(targets.section(context), Tabular)])
    failed = frame[frame["setting"] == "reinforce"]
    assert set(failed["reached"]) == {0}
    assert np.isinf(failed["median_steps"]).all()
    best = frame[(frame["setting"] == "gumbel_softmax · constant(1)") & (frame["kind"] == "easy")].iloc[0]
    first = [next(row["step"] for row in history(Planned("gumbel_softmax", "constant", s), 4)
                  if row["val/loss"] <= best["target"]) for s in range(3)]  # fmt: skip
    assert best["median_steps"] == np.median(first)
    assert (best["reached"], best["n"]) == (3, 3)


def test_equal_cost_takes_the_loss_at_the_smallest_budget():
    grid = planned("straight_through", seeds=(0, 1))
    grid += [Planned("rloo", "none", seed, estimator_params={"n_samples": 2}) for seed in (0, 1)]
    runs = in_memory(grid, epochs=4)
    found = equal_cost.losses(runs.runs, runs.history, LOSS).set_index("estimator")
    assert set(found["updates_budget"]) == {120}
    assert set(found["evaluations_budget"]) == {4}  # straight_through's four epochs, one evaluation an image each
    mean = {epoch: np.mean([history(Planned("rloo", "none", s), 4)[epoch - 1]["val/loss"] for s in (0, 1)])
            for epoch in (2, 4)}  # fmt: skip
    assert found.loc["rloo", "updates_loss"] == pytest.approx(mean[4])
    assert found.loc["rloo", "evaluations_loss"] == pytest.approx(mean[2])  # two of four: each costs twice as much
    assert sorted(found["updates_rank"]) == [1, 2]


def test_equal_cost_needs_two_settings_and_a_loss():
    runs = in_memory(planned("rloo"))
    assert equal_cost.losses(runs.runs, runs.history, LOSS) is None
    assert equal_cost.losses(runs.runs, runs.history, None) is None


def test_sensitivity_shows_the_best_learning_rate_of_each_cell():
    grid = [Planned("gumbel_softmax", schedule, seed, params={"training.lr": lr}, axis=f"lr={lr}", shift=shift)
            for schedule in ("constant", "exponential") for seed in range(3)
            for lr, shift in ((0.001, 0.0), (0.01, 3.0 if schedule == "constant" else -3.0))]  # fmt: skip
    cells = temperature.best_cells(in_memory(grid).runs, "test/neg_elbo").set_index("schedule_label")
    assert cells.loc["constant(1)", "axes"] == "lr=0.001"
    annealed = cells.drop(index="constant(1)").iloc[0]
    assert (annealed["axes"], annealed["n"]) == ("lr=0.01", 3)
    expected = np.median([neg_elbo(Planned("gumbel_softmax", "exponential", s, shift=-3.0)) for s in range(3)])
    assert annealed["median"] == pytest.approx(expected)


def test_sensitivity_counts_failures_as_worst():
    grid = [*planned("gumbel_softmax", seeds=(0,)), *planned("gumbel_softmax", seeds=(1, 2), status="diverged")]
    cells = temperature.best_cells(in_memory(grid).runs, "test/neg_elbo")
    assert cells["median"].tolist() == [math.inf]
    assert cells["n"].tolist() == [3]


def test_published_numbers_are_shown_next_to_runs_of_the_same_shape(context):
    rows = [row for row in published._rows(context) if row["source"].startswith("Jang")]
    assert {row["estimator"] for row in rows} == {"straight_through", "gumbel_softmax", "st_gumbel_softmax"}
    gumbel = next(row for row in rows if row["estimator"] == "gumbel_softmax")
    best = [final_metrics(Planned("gumbel_softmax", "exponential", s))["test/neg_bound"] for s in range(3)]
    assert (gumbel["published"], gumbel["n"]) == (101.5, 3)
    assert gumbel["measured"] == pytest.approx(np.mean(best))
    assert "bound_samples 1000 → 100" in gumbel["differs"]


def test_published_numbers_of_another_shape_are_not_shown():
    runs = in_memory(planned("gumbel_softmax", params={"model.n_categories": 3}))
    (words,) = blocks(published.section(Context(runs)), Words)
    assert "20 × 3" in words.text
    (words,) = blocks(
        published.section(Context(in_memory(planned("gumbel_softmax", params={"data.name": "x"})))), Words
    )
    assert "data (x)" in words.text


def test_groups_are_means_at_the_same_seed():
    runs = in_memory(main_grid())
    found = Context(runs, Options(group_by="schedule_label"))
    frame = found.compared
    row = frame[(frame["label"] == "schedule_label=constant(1)") & (frame["seed"] == 1) & (frame["device"] == "cpu")]
    names = ("straight_through", "gumbel_softmax", "st_gumbel_softmax")
    expected = np.mean([neg_elbo(Planned(name, "constant", 1)) for name in names])
    assert row["test/neg_elbo"].item() == pytest.approx(expected)
    assert row["status"].item() == "finished"
    assert "Compared by schedule_label" in Page(report.render(found, [SECTIONS[0](found)])).text


def test_a_group_with_a_failure_is_worst_and_one_that_is_incomplete_makes_no_pair():
    grid = planned("gumbel_softmax", "straight_through", seeds=(0, 1, 2))
    grid[0] = dataclasses.replace(grid[0], status="failed")
    frame = grouping.grouped(in_memory(grid[:-1]).runs, "estimator", ["test/neg_elbo"])
    found = frame.set_index(["estimator", "seed"])["status"]
    assert found[("gumbel_softmax", 0)] == "failed"
    assert found[("straight_through", 1)] == "finished"
    assert ("straight_through", 2) not in found.index


def test_an_unknown_group_or_metric_is_one_line():
    runs = in_memory(main_grid())
    with pytest.raises(ReportError, match=r"^--group-by: expected one of estimator, .*; got 'x'\.$"):
        Context(runs, Options(group_by="x"))
    with pytest.raises(ReportError, match=r"^--metric: expected one of cost/n_cost_evals, .*; got 'x'\.$"):
        Context(runs, Options(metric="x"))


def test_a_metric_that_is_asked_for_comes_first():
    found = Context(in_memory(main_grid()), Options(metric="time/step_s_median"))
    assert [metric.name for metric in found.metrics][:2] == ["time/step_s_median", "test/neg_elbo"]
    assert Context(in_memory(main_grid()), Options(metric="test/neg_bound")).primary.name == "test/neg_bound"


def test_the_profile_steps_at_the_runs(context):
    panel = intervals.profile(context, context.primary)
    assert "gumbel_softmax: half of its runs at" in panel.alt
    assert re.search(r"reinforce: half of its runs at no value", panel.alt)


def test_differences_take_no_pair_in_which_both_failed():
    grid = planned("gumbel_softmax", "straight_through", seeds=(0, 1, 2))
    grid = [dataclasses.replace(run, status="diverged") if run.seed == 2 else run for run in grid]
    runs = in_memory(grid).runs
    row = comparison.differences(runs, "test/neg_elbo", comparison.choose_baseline(runs, None)).iloc[0]
    finite = [neg_elbo(Planned("gumbel_softmax", "constant", s)) - neg_elbo(Planned("straight_through", "constant", s))
              for s in (0, 1)]  # fmt: skip
    assert (row["n_pairs"], row["n_bad"]) == (3, 1)
    assert row["mean"] == pytest.approx(np.mean(finite))


def test_the_verdict_says_how_many_seeds_would_be_enough(sections):
    texts = [block.text for block in blocks(sections[0], Words)]
    assert any(re.search(r"found four times out of five with \d+ seeds", text) for text in texts)


def test_panels_are_files_for_papers(context):
    (block,) = blocks(SECTIONS[0](context), Pictures)
    svg = block.panels[0].for_paper()
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "var(" not in svg
    assert block.panels[0].pdf() == block.panels[0].pdf()
    assert block.panels[0].pdf().startswith(b"%PDF")


def test_a_notebook_makes_tables_and_figures_from_frames():
    from reports import figures, tables

    runs = in_memory(main_grid())
    assert tables.quality(runs.runs).frame().iloc[0, 0].startswith("gumbel_softmax")
    assert "−5.67" in tables.differences(runs.runs)._repr_html_()
    assert "rloo" in tables.differences(runs.runs, baseline="rloo").caption
    assert len(figures.curves(runs.history)) == 2
    for panel in (figures.levels(runs.runs), figures.differences(runs.runs)):
        assert panel._repr_svg_().startswith("<svg")
    with pytest.raises(ReportError, match="expected a finished run"):
        tables.quality(in_memory(planned("rloo", status="running")).runs)
