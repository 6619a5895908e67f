"""Rankings of tasks: by their own measure and its direction, one task after the other, in every output."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from small_tasks import grid_of

from harness.events import Event, Failed, Finished, Record
from harness.grid.load import load_grid
from harness.measures import Measure
from harness.plugins.registry import load_registry
from harness.status.json_document import document
from harness.status.progress import PlainProgress
from harness.status.ranking import decimals_of, rank
from harness.status.sweep_description import best_runs, best_settings, description
from harness.status.terminal_summary import show_results
from harness.storage.journal import Journal
from harness.storage.plan import plan_fingerprint, planned_runs, save_plan
from harness.storage.plan_file import read_plan
from harness.storage.sweep_state import Sweep, read_status

ONE = "estimators: [rloo, reinforce, exact]\nseeds: [0, 1]\ntraining: {batch_size: 8}\n"
ACCURACY = {"rloo": (0.5, 0.7), "reinforce": (0.9, 0.925), "exact": (0.95, None)}
GAP = {"rloo": (0.004, 0.006), "reinforce": (0.001, 0.0012), "exact": (0.0, 0.0001)}


def sweep_of(task: str = "hard_gate") -> Sweep:
    """A sweep that has ended: `exact` has the best values, but one of its runs of `hard_gate` failed."""
    grid = grid_of(f"task: {task}\n{ONE}")
    sweep = Sweep(grid, Path("small"), grid.runs)
    for run in grid.runs:
        name, end = run.estimator.name, 5.0
        metrics = {"test/loss": end, "test/accuracy": ACCURACY[name][run.seed], "time/total_s": 3.0}
        if run.task_name == "targets":
            metrics = {"test/loss": end, "test/gap": GAP[name][run.seed], "time/total_s": 3.0}
        if run.task_name == "categorical_vae":
            metrics = {"test/neg_elbo": 100 + ord(name[0]) + run.seed, "time/total_s": 3.0}
        failed = metrics.get("test/accuracy", 0) is None
        event: Event = Failed("ValueError: no", "") if failed else Finished(8, metrics)
        sweep.add(Record(run.key, 1, event))
    return sweep


def shown(sweep: Sweep, width: int = 80) -> list[str]:
    out = io.StringIO()
    show_results(Console(file=out, width=width), sweep)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_where_higher_is_better_the_highest_ranks_first_and_failed_settings_last() -> None:
    ranked = rank(sweep_of())
    assert [one.setting for one in ranked] == ["reinforce", "rloo", "exact"]
    assert [one.value.mean for one in ranked if one.value] == pytest.approx([0.9125, 0.6, 0.95])
    first, second, _ = ranked
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.mean == pytest.approx(-0.3125)
    assert {(one.task, one.measure.metric, one.measure.better) for one in ranked} == {
        ("hard_gate", "test/accuracy", "higher")
    }


def test_a_setting_without_a_finished_run_is_last_in_either_direction() -> None:
    for task in ("hard_gate", "targets"):
        sweep = sweep_of(task)
        hopeless = [run for run in sweep.grid.runs if run.estimator.name == "reinforce"]
        for run in hopeless:
            sweep.add(Record(run.key, 2, Failed("ValueError: no", "")))
        assert rank(sweep)[-1].setting == "reinforce"


def test_the_terminal_names_measure_direction_and_as_many_decimals_as_needed() -> None:
    assert shown(sweep_of())[:6] == [
        "test accuracy (higher is better)",
        "setting       mean  ± 95 %  seeds  vs best  ± 95 %",
        "reinforce   0.9125  0.1588    2/2     best",
        "rloo        0.6000  1.2706    2/2  -0.3125  1.1118  ?",
        "exact       0.9500       –    1/2  +0.0500       –",
        "  1 failed",
    ]
    assert shown(sweep_of("targets"))[:3] == [
        "test distance to the optimum, cost (lower is better)",
        "setting        mean    ± 95 %  seeds    vs best    ± 95 %",
        "exact      0.000050  0.000635    2/2       best",
    ]


SEVERAL = "[hard_gate, targets, categorical_vae]"


def test_several_tasks_are_ranked_apart_each_by_its_own_measure() -> None:
    ranked = rank(sweep_of(SEVERAL))
    assert [(one.task, one.setting) for one in ranked] == [
        ("hard_gate", "reinforce · task=hard_gate"),
        ("hard_gate", "rloo · task=hard_gate"),
        ("hard_gate", "exact · task=hard_gate"),
        ("targets", "exact · task=targets"),
        ("targets", "reinforce · task=targets"),
        ("targets", "rloo · task=targets"),
        ("categorical_vae", "exact · task=categorical_vae"),
        ("categorical_vae", "rloo · task=categorical_vae"),
        ("categorical_vae", "reinforce · task=categorical_vae"),
    ]
    assert [one.difference is None for one in ranked] == [True, False, False] * 3
    titles = [line for line in shown(sweep_of(SEVERAL), width=120) if line.endswith("is better)")]
    assert titles == [
        "hard_gate: test accuracy (higher is better)",
        "targets: test distance to the optimum, cost (lower is better)",
        "categorical_vae: test −ELBO, nats per image (lower is better)",
    ]


def test_settings_of_a_task_with_other_parameters_are_ranked_apart() -> None:
    ranked = rank(sweep_of("{name: targets, p: [1.5, 2]}"))
    assert [(one.task, one.setting) for one in ranked[::3]] == [
        ("targets(p=1.5)", "exact · task=targets(p=1.5)"),
        ("targets(p=2)", "exact · task=targets(p=2)"),
    ]
    assert ranked[3].difference is None


def test_the_document_has_task_metric_and_direction_of_every_setting() -> None:
    found = document(sweep_of(SEVERAL), [])
    assert found["metric"] == "test/accuracy"
    assert [(row["rank"], row["task"], row["metric"], row["better"]) for row in found["ranking"]] == [
        *((position, "hard_gate", "test/accuracy", "higher") for position in (1, 2, 3)),
        *((position, "targets", "test/gap", "lower") for position in (1, 2, 3)),
        *((position, "categorical_vae", "test/neg_elbo", "lower") for position in (1, 2, 3)),
    ]
    assert [row["difference"] and row["difference"]["to"] for row in found["ranking"][:4]] == [
        None, "reinforce · task=hard_gate", "reinforce · task=hard_gate", None,
    ]  # fmt: skip
    by_name = {run["name"]: run["value"] for run in found["runs"]}
    assert by_name["rloo · task=hard_gate · seed 1"] == 0.7
    assert by_name["rloo · task=targets · seed 0"] == 0.004
    assert by_name["exact · task=hard_gate · seed 1"] is None
    assert json.loads(json.dumps(document(sweep_of(), [])))["metric"] == "test/accuracy"


def test_the_best_run_of_each_estimator_is_that_of_its_task_and_direction() -> None:
    sweep = sweep_of()
    names = {run.key: run.name for run in sweep.grid.runs}
    assert {name: names[key] for name, key in best_runs(sweep).items()} == {
        "rloo": "rloo · seed 1",
        "reinforce": "reinforce · seed 1",
        "exact": "exact · seed 0",
    }
    sweep = sweep_of("[hard_gate, targets]")
    names = {run.key: run.name for run in sweep.grid.runs}
    assert {name: names[key] for name, key in best_runs(sweep).items()} == {
        "hard_gate: rloo": "rloo · task=hard_gate · seed 1",
        "hard_gate: reinforce": "reinforce · task=hard_gate · seed 1",
        "hard_gate: exact": "exact · task=hard_gate · seed 0",
        "targets: rloo": "rloo · task=targets · seed 0",
        "targets: reinforce": "reinforce · task=targets · seed 0",
        "targets: exact": "exact · task=targets · seed 0",
    }
    assert [one.setting for one in best_settings(sweep)[:3]] == [
        "reinforce · task=hard_gate",
        "rloo · task=hard_gate",
        "exact · task=hard_gate",
    ]


def test_the_description_for_the_store_says_which_setting_is_best_by_what() -> None:
    told = description(sweep_of(), None, is_over=True)
    assert "Best: `reinforce`, test accuracy 0.9125 (mean of 2 seeds)." in told
    assert "by its mean test accuracy; those with failed or diverged runs are last:" in told
    assert told.index("- 0.9125 `reinforce`") < told.index("- 0.6000 `rloo`") < told.index("- 0.9500 `exact`")
    several = description(sweep_of("[hard_gate, targets]"), None, is_over=True)
    assert "Best" not in several
    assert "by its mean first measure, one task after the other" in several
    assert several.index("`exact · task=hard_gate`") < several.index("`exact · task=targets`")


def test_a_finished_run_is_shown_with_its_measure() -> None:
    out = io.StringIO()
    progress, sweep = PlainProgress(Console(file=out, width=100)), sweep_of("targets")
    progress.start(sweep, sweep.grid.runs)
    run = sweep.grid.runs[0]
    progress.show(Record(run.key, 1, Finished(8, {"test/gap": 0.00412, "test/loss": 3.0, "time/total_s": 2.0})))
    assert f"finished: {run.name}: test distance to the optimum 0.004120 in 2.0 s" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "unit", "decimals"),
    [(0.9125, "", 4), (0.0123, "", 5), (3.14159, "", 2), (31.4159, "", 2), (0.0, "", 2), (0.0123, "nats", 2)],
)
def test_numbers_have_three_digits_four_below_1_and_nats_two_decimals(value: float, unit: str, decimals: int) -> None:
    assert decimals_of([value], Measure("m", unit=unit)) == decimals


def test_a_plan_keeps_the_measures_of_every_setting(tmp_path: Path) -> None:
    sweep, folder = sweep_of(SEVERAL), tmp_path / "small"
    folder.mkdir()
    assert save_plan(folder, sweep.grid) == []
    plan = read_plan(folder / "frozen.json")
    for ours, theirs in zip(plan.runs, sweep.grid.runs, strict=True):
        assert (ours.key, ours.name, ours.measures) == (theirs.key, theirs.name, theirs.measures)
        assert (ours.task_label, ours.n_epochs) == (theirs.task_label, theirs.n_epochs)
    for task in ("hard_gate", SEVERAL):
        sweep = sweep_of(task)
        quick = Sweep(sweep.grid, folder, sweep.selected, ends=sweep.ends)
        assert [one.setting for one in rank(quick)] == [one.setting for one in rank(sweep)]


def test_status_of_a_stored_plan_ranks_as_the_built_grid_does(tmp_path: Path) -> None:
    text = f"name: small\ntask: [gated_experts, polynomial]\n{ONE}"
    grid = load_grid(tmp_path / "g.yaml", load_registry(), text)
    folder = tmp_path / "small"
    folder.mkdir()
    save_plan(folder, grid, plan_fingerprint())
    assert planned_runs(folder, text) is not None
    with Journal(folder) as journal:
        for index, run in enumerate(grid.runs):
            journal.append(Record(run.key, 1, Finished(8, {run.measures[0].metric: 0.1 * index, "time/total_s": 1.0})))
    quick = read_status(tmp_path / "g.yaml", tmp_path, (), text)
    assert quick is not None
    built = Sweep(grid, folder, grid.runs, ends=dict(quick.ends))
    assert [(one.task, one.setting, one.measure, one.value) for one in rank(quick)] == [
        (one.task, one.setting, one.measure, one.value) for one in rank(built)
    ]
    assert rank(quick)[0].measure.better == "higher"
