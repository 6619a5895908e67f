"""Cases that could put a wrong number into a report; each of them did so once, or nearly."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from report_page import Page
from reports_store import Planned, in_memory, main_grid, neg_elbo, planned

from harness.commands import report
from harness.commands.shared import Refused
from reports import compare_sweeps, comparison
from reports import report as html
from reports import statistics as st
from reports.comparison import grouping
from reports.comparison.changes import changes, shared_runs
from reports.page import curves, export, numbers, quality_tables
from reports.page.blocks import Tabular, Words
from reports.page.context import Context, Options
from reports.page.wording import VAE
from reports.sections import SECTIONS, equal_cost, findings, published, targets
from reports.store.frame import tidy

ELBO = "test/neg_elbo"
LOSS = comparison.Metric("val/loss", "val/loss", "")


def with_status(grid, status, *seeds, estimator=None):
    """The same runs; those with these seeds, of one estimator or of all, end with a status."""
    return [dataclasses.replace(run, status=status)
            if run.seed in seeds and estimator in (None, run.estimator) else run for run in grid]  # fmt: skip


def two(n_seeds=4):
    return planned("gumbel_softmax", "straight_through", seeds=range(n_seeds))


def metric_of(runs, name=ELBO):
    return next(metric for metric in comparison.metrics(runs, first=name) if metric.name == name)


def sentence(runs, name=ELBO):
    metric = metric_of(runs, name)
    baseline = comparison.choose_baseline(runs, None)
    levels, rows = comparison.levels(runs, name), comparison.differences(runs, name, baseline)
    return "".join(findings.sentence(runs, metric, levels, rows, baseline))


def test_pairs_in_which_both_failed_have_no_difference_anywhere():
    runs = in_memory(with_status(two(), "diverged", 1, 2, 3)).runs
    row = comparison.differences(runs, ELBO, comparison.choose_baseline(runs, None)).iloc[0]
    only = neg_elbo(Planned("gumbel_softmax", "constant", 0)) - neg_elbo(Planned("straight_through", "constant", 0))
    assert (row["n_pairs"], row["n_bad"], row["equivalence"]) == (4, 3, "undecided")
    assert row["mean"] == pytest.approx(only)
    (points,) = comparison.difference_points(runs, ELBO, pd.DataFrame([row]))
    assert points == pytest.approx([only])
    assert st.equivalence(np.zeros(4), 1.0, both_failed=4) == "undecided"
    assert st.equivalence(np.zeros(4), 1.0) == "equivalent"


def test_the_second_best_is_judged_by_the_pairs_that_both_finished():
    runs = in_memory(with_status(planned("straight_through", "rloo", seeds=range(4)), "diverged", 3)).runs
    pairs = [neg_elbo(Planned("rloo", "none", s)) - neg_elbo(Planned("straight_through", "constant", s))
             for s in range(3)]  # fmt: skip
    assert f"is at {numbers.fixed(float(np.mean(pairs)), signed=True)} nats" in sentence(runs)


def test_a_lower_mean_behind_a_failure_is_named():
    grid = with_status(two(3), "diverged", 2, estimator="gumbel_softmax")
    words = sentence(in_memory(grid).runs)
    assert words.startswith("straight_through · constant(1) is the only one of 2 settings without a failed run")
    assert "(gumbel_softmax · constant(1) has 11" in words
    assert "but 1 of its 3 runs failed)" in words


def test_a_run_that_failed_before_its_first_epoch_has_not_reached_the_target():
    runs = in_memory(
        with_status(planned("rloo", "straight_through", seeds=range(3)), "diverged", 1, 2, estimator="rloo")
    )
    history = runs.history[~((runs.history["estimator"] == "rloo") & (runs.history["seed"] > 0))]
    context = Context(dataclasses.replace(runs, history=history))
    frame = pd.concat([block.frame for block in targets.section(context).blocks if isinstance(block, Tabular)])
    rloo = frame[(frame["setting"] == "rloo") & (frame["kind"] == "easy")].iloc[0]
    assert (rloo["n"], rloo["reached"]) == (3, 1)
    assert rloo["median_steps"] == math.inf


def lr_grid():
    return [Planned(name, "constant", seed, params={"training.lr": lr}, axis=f"lr={lr}")
            for name in ("gumbel_softmax", "straight_through") for lr in (0.1, 0.2) for seed in range(2)]  # fmt: skip


def test_groups_know_the_settings_of_a_run_without_history():
    grid = lr_grid()
    grid[5] = dataclasses.replace(grid[5], status="missing")  # straight_through, lr 0.1, seed 1
    found = grouping.grouped(in_memory(grid).runs, "training.lr", [ELBO])
    status = found.set_index(["group" if "group" in found else "label", "seed"])["status"].to_dict()
    assert status[("training.lr=0.1", 0)] == "finished"
    assert status[("training.lr=0.1", 1)] == "missing"
    assert set(found["label"]) == {"training.lr=0.1", "training.lr=0.2"}


def test_groups_take_estimators_that_are_in_all_of_them_and_name_the_others():
    runs = in_memory([*lr_grid(), Planned("reinmax", "constant", 0, params={"training.lr": 0.1}, axis="lr=0.1")])
    context = Context(runs, Options(group_by="training.lr"))
    assert context.left_out == ["reinmax"]
    assert (
        "Left out, because they are not in every group: reinmax."
        in Page(html.render(context, [SECTIONS[0](context)])).text
    )
    by_schedule = Context(in_memory(main_grid()), Options(group_by="schedule"))
    assert set(by_schedule.compared["label"]) == {"schedule=constant", "schedule=exponential"}


def test_a_parameter_that_only_some_have_can_be_grouped_by():
    grid = [*planned("straight_through", seeds=(0, 1)),
            *(Planned("rloo", "none", s, estimator_params={"n_samples": n}, params={"estimator.n_samples": n})
              for n in (2, 4) for s in (0, 1))]  # fmt: skip
    runs = in_memory(grid)
    assert "estimator.n_samples" in grouping.choices(runs.runs)
    with pytest.raises(Exception, match="--group-by: expected estimators that are in every group"):
        _ = Context(runs, Options(group_by="estimator.n_samples")).compared


def record(key, seed, **more):
    return {"run_key": key, "run_id": key, "estimator": "rloo", "label": "rloo", "schedule": "none", "device": "cpu",
            "seed": seed, "status": "finished", "error": "", ELBO: 1.0, **more}  # fmt: skip


def test_configurations_that_share_a_label_and_no_seed_are_settings_of_their_own():
    records = [record(f"a{s}", s, **{"training.lr": 0.001}) for s in range(3)]
    records += [record(f"b{s}", s + 3, **{"training.lr": 0.1}) for s in range(3)]
    assert set(tidy(records)["setting"]) == {"rloo · training.lr=0.001", "rloo · training.lr=0.1"}
    old = [{name: value for name, value in each.items() if name != "training.lr"} for each in records[:3]]
    assert set(tidy([*records[3:], *old])["setting"]) == {"rloo"}  # of an older version that did not store it


def test_a_metric_that_is_no_loss_has_its_own_unit_and_no_band():
    runs = in_memory(two())
    context = Context(runs, Options(metric="time/step_s_median"))
    metric = context.primary
    assert (metric.unit, metric.band, metric.digits >= 5) == ("s", None, True)
    table = quality_tables.differences_table(context.differences(metric), metric, "straight_through")
    assert not any("nats" in column.title for column in table.columns)
    page = Page(html.render(context, [SECTIONS[0](context)])).text
    assert re.search(r"0\.00\d+ s \(95", page)
    assert "found four times out of five" not in page


def test_published_numbers_are_of_one_device_and_prefer_settings_without_failures():
    grid = planned("gumbel_softmax", seeds=range(3)) + planned("gumbel_softmax", seeds=range(3), device="cuda")
    rows = [row for row in published._rows(Context(in_memory(grid))) if row["source"].startswith("Jang")]
    assert [row["n"] for row in rows] == [3]
    failing = [
        Planned("gumbel_softmax", "exponential", s, status="finished" if s == 0 else "diverged") for s in range(3)
    ]
    rows = [row for row in published._rows(Context(in_memory([*planned("gumbel_softmax", seeds=range(3)), *failing])))
            if row["source"].startswith("Jang")]  # fmt: skip
    assert [(row["n"], row["setting"]) for row in rows] == [(3, "gumbel_softmax · constant(1)")]


def test_published_numbers_name_settings_that_are_not_stored_or_stated():
    rows = list(published._rows(Context(in_memory(planned("gumbel_softmax", params={"model.n_categories": 8})))))
    assert rows
    for row in rows:
        assert "n_latents not stated" in row["differs"]
        assert "optimizer sgd → not stored" in row["differs"]


def test_equal_cost_needs_all_seeds_and_ranks_failures_last():
    runs = in_memory(with_status(two(3), "diverged", 2, estimator="gumbel_softmax"), epochs=4)
    history = runs.history.copy()
    slow = (history["estimator"] == "straight_through") & (history["seed"] == 2)
    history.loc[slow, "elapsed_s"] += 100
    found = equal_cost.losses(runs.runs, history, LOSS).set_index("estimator")
    assert math.isnan(found.loc["straight_through", "seconds_loss"])
    assert found.loc["gumbel_softmax", "updates_rank"] == 2
    assert found.loc["gumbel_softmax", "n_bad"] == 1
    table = equal_cost.table(found.reset_index(), LOSS, VAE)
    assert any("(1 failed)" in row[0].text for row in table.rows)


def test_budgets_are_those_of_a_device():
    grid = two(2) + [dataclasses.replace(run, device="cuda") for run in two(2)]
    runs = in_memory(grid, epochs=4)
    history = runs.history.copy()
    history.loc[history["device"] == "cuda", "elapsed_s"] /= 100
    found = equal_cost.losses(runs.runs, history, LOSS)
    assert found.groupby("device")["seconds_budget"].nunique().tolist() == [1, 1]
    assert found["seconds_loss"].notna().sum() >= 3


@pytest.mark.usefixtures("undrawn")
def test_infinite_cells_sort_last():
    grid = with_status(two(3), "diverged", 1, 2, estimator="gumbel_softmax")
    runs = in_memory(grid).runs
    table = quality_tables.levels_table(comparison.levels(runs, ELBO), metric_of(runs))
    sorts = [cell.sort for row in table.rows for cell in row if cell.text == "∞"]
    assert sorts == [1e300, 1e300]
    page = html.render(Context(in_memory(grid)), [section(Context(in_memory(grid))) for section in SECTIONS])
    assert 'data-sort="inf"' not in page


def sides(one, other):
    return compare_sweeps.Sides(("one", "other"), (Context(one), Context(other)))


def changed(first, second):
    both = sides(first, second)
    return changes([each.frame for each in both.contexts], compare_sweeps.shared_metric(both))


def test_a_comparison_sees_that_settings_were_exchanged_and_other_metrics_changed():
    first = in_memory(lr_grid())
    exchanged = first.runs.assign(**{"training.grad_clip": np.where(first.runs["estimator"] == "gumbel_softmax", 1, 2)})
    other = first.runs.assign(**{"training.grad_clip": np.where(first.runs["estimator"] == "gumbel_softmax", 2, 1)})
    both = sides(dataclasses.replace(first, runs=exchanged), dataclasses.replace(first, runs=other))
    assert ("training.grad_clip", "1 → 2, 2 → 1 (in 8 of 8 runs)") in compare_sweeps._differing(both)
    moved = first.runs.assign(**{"test/neg_bound": first.runs["test/neg_bound"] + 1})
    assert changed(first, first)["same"].all()
    assert not changed(first, dataclasses.replace(first, runs=moved))["same"].any()


def test_settings_that_failed_in_both_sweeps_do_not_compare_as_equal():
    runs = in_memory(with_status(two(3), "diverged", 0, 1, 2, estimator="gumbel_softmax"))
    found = changed(runs, runs).set_index("estimator")
    assert bool(found.loc["straight_through", "same"])
    assert not bool(found.loc["gumbel_softmax", "same"])
    assert found.loc["gumbel_softmax", "equivalence"] == "undecided"


def test_runs_without_a_seed_are_not_paired_with_each_other():
    runs = in_memory(planned("rloo", seeds=(0, 1, 2)))
    without = runs.runs.assign(seed=pd.array([pd.NA] * 3, dtype="Int64"))
    assert shared_runs((without, without)).empty


def test_different_data_and_budgets_are_noted():
    grid = [
        Planned("rloo", "none", s, params={"data.name": name}, axis=f"data={name}")
        for name in ("a", "b")
        for s in (0, 1)
    ]
    texts = findings.warnings(in_memory(grid).runs)
    assert any(text.startswith("Runs of different data are ranked together (data.name: a, b)") for text in texts)


def test_different_images_of_ones_own_are_noted():
    grid = [
        Planned(
            "rloo", "none", s, params={"data.name": "file", "data.path": "x.npz", "data.digest": digest}, axis=digest
        )
        for digest in ("a1", "b2")
        for s in (0, 1)
    ]
    texts = findings.warnings(in_memory(grid).runs)
    assert any(text.startswith("Runs of different data are ranked together (data.digest: a1, b2)") for text in texts)


def test_headings_of_a_csv_are_no_formulas():
    assert export.csv(pd.DataFrame({"=HYPERLINK(1)": [1]})).decode("utf-8-sig") == "'=HYPERLINK(1)\n1\n"


@pytest.mark.usefixtures("undrawn")
def test_a_previous_report_leaves_no_table_or_figure_behind(tmp_path):
    html.build_report(in_memory(main_grid()), tmp_path)
    (tmp_path / "tables" / "mine.csv").write_text("mine")
    before = set(tmp_path.rglob("*"))
    html.build_report(in_memory(planned("rloo")), tmp_path)
    gone = {path.name for path in before - set(tmp_path.rglob("*"))}
    assert {"wins.csv", "failures.tex", "profile.svg"} <= gone
    assert (tmp_path / "tables" / "mine.csv").read_text() == "mine"


@pytest.mark.parametrize("uri", ["http://user:s3cret/xx@host:5000", "http://localhost:99999/", "http://[x"])
def test_an_invalid_address_shows_no_password_and_makes_no_link(uri):
    assert report._ui_url(None, uri) == report.LOCAL_UI
    with pytest.raises(Refused, match="--ui-url: expected"):
        report._ui_url("http://[x", None)
    assert report._ui_url(None, "http://[::1]:5000/x") == "http://[::1]:5000/x"


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_history_with_invalid_times_is_not_drawn(value):
    from reports.store.records import _sane, read_history

    class Read:
        def records(self, run, name):
            return [{"epoch": 1, "step": 3, "elapsed_s": value, "val/loss": 1.0}]

    assert read_history(None, Read()) == []
    assert math.isnan(_sane(1.8e308))
    assert _sane(-3.5) == -3.5


def test_many_axes_become_one_panel():
    history = in_memory(main_grid(2)).history
    copies = [
        history.assign(axes=f"lr={i}", shared_axes=f"lr={i}", run_key=history["run_key"] + str(i)) for i in range(25)
    ]
    runs = dataclasses.replace(in_memory(main_grid(2)), history=pd.concat(copies, ignore_index=True))
    assert curves.n_panels(runs.history, "val/loss") == 50
    (section,) = [make(Context(runs)) for make in SECTIONS if make.__module__.endswith("learning")]
    assert [len(block.panels) for block in section.blocks if hasattr(block, "panels")][:2] == [1, 1]
    assert not any(isinstance(block, Words) for block in section.blocks)
