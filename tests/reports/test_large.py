"""Large sweeps: what a report shows of many runs, schedules and settings, and the store that its benchmark makes."""

import re
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
from benchmark_scripts import load_benchmark
from mlflow.tracking import MlflowClient
from reports_store import Planned, in_memory

from estimators import REGISTRY
from harness.grid.load import load_grid
from reports.page import figures, gallery, svg
from reports.page.palette import styles
from reports.report import build_report


def sweep(n_estimators, n_seeds, n_schedules, **more):
    """Runs of estimators × schedules × seeds, each schedule with a label of its own."""
    planned = [
        Planned(f"estimator_{i}", "constant", seed)
        for i in range(n_estimators)
        for seed in range(n_seeds * n_schedules)
    ]
    runs = in_memory(planned, **more)
    number = runs.runs["seed"] % n_schedules
    label = "constant(" + number.astype(str) + ")"
    setting = runs.runs["estimator_label"] + " · " + label
    frame = runs.runs.assign(schedule_label=label, setting=setting, seed=runs.runs["seed"] // n_schedules)
    named = frame.set_index("run_key")
    history = runs.history.copy()
    for name in ("schedule_label", "setting", "seed"):
        history[name] = history["run_key"].map(named[name])
    return replace(runs, runs=frame, history=history)


def curves(runs):
    labels = zip(runs.runs["estimator"], runs.runs["estimator_label"], strict=True)
    return figures.curves(runs.history, "val/loss", "step", styles(labels))


def n_lines(panel):
    """Open paths of more than two points: curves, and neither ticks nor frames."""
    return sum(path.count("L") > 1 and "z" not in path for path in re.findall(r' d="([^"]*)"', panel.svg))


def test_a_crowded_panel_shows_a_median_for_each_schedule_and_names_them():
    panels = curves(sweep(7, 8, 3))
    assert len(panels) == 7
    assert all(n_lines(panel) == 3 + 3 for panel in panels)  # medians and their keys in the legend; not 24 runs
    assert all(f"constant({i})" in panel.svg for panel in panels for i in range(3))
    assert all(panel.svg.count("stroke-dasharray") >= 2 for panel in panels)


@pytest.mark.parametrize(
    ("n_seeds", "n_schedules"), [(2, 3), pytest.param(12, 2, marks=pytest.mark.slow)], ids=["few", "many of two"]
)
def test_a_panel_that_is_not_crowded_shows_every_run(n_seeds, n_schedules):
    panels = curves(sweep(7, n_seeds, n_schedules))
    assert all(n_lines(panel) == n_seeds * n_schedules + n_schedules for panel in panels)


def test_schedules_are_named_in_the_order_in_which_they_end():
    runs = sweep(7, 8, 3)
    worst = runs.history["schedule_label"] == "constant(1)"
    runs.history.loc[worst, "val/loss"] += 50
    runs.history.loc[runs.history["schedule_label"] == "constant(2)", "val/loss"] -= 5
    for panel in curves(runs):
        assert panel.svg.index("constant(1)") < panel.svg.index("constant(0)") < panel.svg.index("constant(2)")


def test_coordinates_have_two_decimals():
    assert svg._rounded(re.match(r".*", ' d="M 1.234567 20 L -0.001 3.50049 "')) == ' d="M 1.23 20 L -0 3.5 "'
    for panel in curves(sweep(2, 2, 1)):
        assert not re.search(r' d="[^"]*\.\d{3}', panel.svg)


@pytest.mark.usefixtures("undrawn")
def test_pictures_take_turns_among_all_estimators(monkeypatch, tmp_path):
    runs = sweep(4, 1, 3, epochs=1)
    monkeypatch.setattr(gallery, "MAX_SETTINGS", 6)
    (shown,) = gallery.galleries(runs)
    names = [picture.estimator for picture in shown.pictures]
    assert names == sorted(names)
    assert {name: names.count(name) for name in names} == {
        "estimator_0": 2, "estimator_1": 2, "estimator_2": 1, "estimator_3": 1,
    }  # fmt: skip
    text = build_report(runs, tmp_path).read_text()
    assert "; 6 of 12 settings are shown, the first of every estimator in turn." in text


@pytest.mark.usefixtures("undrawn")
def test_only_long_tables_are_in_a_box(tmp_path):
    grids = [sweep(n, 1, 1, epochs=1) for n in (3, 31)]
    runs = [replace(grid, history=grid.history.iloc[:0], images={}) for grid in grids]
    few, many = (build_report(each, tmp_path / str(len(each.runs))).read_text() for each in runs)
    assert 'class="scroll long"' in many
    assert 'class="scroll long"' not in few
    assert "settings are shown" not in few + many


@pytest.fixture(scope="module")
def report_store():
    return load_benchmark("report_store")


def stored(uri, name):
    """Everything that a store has of the one child run of an experiment, by name."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    (child,) = client.search_runs([experiment.experiment_id], filter_string="tags.`harness.kind` = 'run'")
    artifacts = {file.path for file in client.list_artifacts(child.info.run_id)}
    history = {
        key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(child.info.run_id, key)]
        for key in child.data.metrics
    }
    tags = {key: value for key, value in child.data.tags.items() if key not in ("mlflow.parentRunId", "harness.sweep")}
    return tags, child.data.params, child.data.metrics, history, artifacts, child.info.status, child.info.end_time


SMALL = """
name: small
data: {train_size: 100}
model: {n_latents: 3, n_categories: 4, hidden: [16]}
estimators: [gumbel_softmax]
seeds: [0]
"""


def test_the_benchmark_makes_the_store_that_a_sync_makes(report_store, monkeypatch, tmp_path, out):
    """Its shortcuts leave the same tags, params, metrics with their histories, artifacts and times."""
    monkeypatch.setattr(report_store, "EPOCHS", 5)
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    grid, found = load_grid(path, REGISTRY), []
    report_store.write_journal(grid, out)
    quick = tmp_path / "quick"
    shutil.copytree(out, quick)
    for folder, context in ((out, nullcontext()), (quick, report_store.bulk(f"sqlite:///{quick / 'mlflow.db'}"))):
        with context:
            report_store.sync(path, folder)
        found.append(stored(f"sqlite:///{folder / 'mlflow.db'}", "small"))
    assert found[0] == found[1]
    tags, _, metrics, history, artifacts, status, _ = found[1]
    assert (tags["harness.status"], status) == ("finished", "FINISHED")
    assert {"history.json", "config.json", "provenance.json", "images"} <= artifacts
    assert [step for step, _, _ in history["train/loss"]] == [36 * epoch for epoch in range(1, 6)]
    curves = {
        "train/loss",
        "train/bce",
        "train/kl",
        "val/loss",
        "val/bce",
        "val/kl",
        "val/soft_hard_gap",
        "tau",
    }  # times: once a run
    assert {key for key, values in history.items() if len(values) >= 5} == curves
    assert metrics["test/neg_elbo"] > 90
