"""What a store says of a sweep as a whole: true, short enough, and text whatever a grid says."""

import re
from pathlib import Path

import pytest
from hostile_store import PAYLOADS, UNSEEN

from estimators import REGISTRY
from harness.events import Diverged, Failed, Finished, Record
from harness.grid.load import Grid, load_grid
from harness.status.ranking import rank
from harness.status.sweep_description import best_runs, best_settings, block, code, description, text
from harness.storage.last_command import LastCommand
from harness.storage.sweep_state import Sweep

GRID = """
name: told
question: Which one?
estimators: [straight_through, {name: rloo, n_samples: [2, 3]}]
schedules: [{kind: constant, tau: [0.5, 1.0]}]
seeds: [0, 1]
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    path = tmp_path / "told.yaml"
    path.write_text(GRID)
    grid = load_grid(path, REGISTRY)
    return Sweep(grid, tmp_path / "told", grid.runs)


def finish(sweep: Sweep, values: dict[int, float]) -> None:
    for index, value in values.items():
        sweep.add(Record(sweep.grid.runs[index].key, 1, Finished(1, {"test/neg_elbo": value})))


def test_the_description_of_a_sweep_says_question_grid_result_and_commands(sweep: Sweep) -> None:
    made_with = LastCommand("harness run --grid told.yaml", {}, "harness report --experiment told")
    assert "**Under way.** When it began: 8 planned." in description(sweep, made_with, is_over=False)
    finish(sweep, {i: 100.0 + i for i in range(8)})
    told = description(sweep, made_with, is_over=True)
    first, second, *_ = told.split("\n\n")
    assert first == "**Which one?**"
    assert second.startswith(
        "**Ended:** 8 finished. Best: `straight_through · constant(0.5)`, test −ELBO 102.00 (mean of"
    )
    assert "3 estimators × 2 schedules × 1 device × 2 seeds: 8 runs." in told
    assert {"`straight_through`", "`rloo(n_samples=2)`", "`rloo(n_samples=3)`"} <= set(re.findall("`[^`]*`", told))
    assert told.count("```sh\nharness r") == 2


def test_the_best_of_each_estimator(sweep: Sweep) -> None:
    assert best_runs(sweep) == {}
    runs = sweep.grid.runs
    rloo = [i for i, run in enumerate(runs) if run.estimator.name == "rloo"]
    finish(sweep, {i: 100.0 + i for i in range(len(runs))} | {rloo[-1]: 50.0})
    assert best_runs(sweep) == {"straight_through": runs[0].key, "rloo": runs[rloo[-1]].key}


def settings(sweep: Sweep, estimator: str) -> list[str]:
    return list(dict.fromkeys(run.label for run in sweep.grid.runs if run.estimator.name == estimator))


def end(sweep: Sweep, setting: str, *ends: float | str) -> None:
    """End the runs of a setting, in the order of their seeds: with a number, failed or diverged."""
    runs = [run for run in sweep.grid.runs if run.label == setting]
    for run, how in zip(runs, ends, strict=True):
        bad = Failed("no", "") if how == "failed" else Diverged(1, "the loss is nan")
        event = bad if isinstance(how, str) else Finished(1, {"test/neg_elbo": how})
        sweep.add(Record(run.key, 1, event))


@pytest.fixture
def three_seeds(tmp_path: Path) -> Sweep:
    path = tmp_path / "told.yaml"
    path.write_text(GRID.replace("[0, 1]", "[0, 1, 2]"))
    grid = load_grid(path, REGISTRY)
    return Sweep(grid, tmp_path / "told", grid.runs)


def test_a_setting_with_failed_or_diverged_runs_is_best_only_without_another(
    three_seeds: Sweep,
) -> None:
    first, second = settings(three_seeds, "straight_through")
    end(three_seeds, first, "diverged", 50.0, "diverged")
    assert (
        "Best: `straight_through · constant(0.5)`, test −ELBO 50.00 (mean of 1 of 3 seeds, 2 diverged)."
        in description(three_seeds, None, is_over=True)
    )
    end(three_seeds, second, 101.0, 102.0, 103.0)
    end(three_seeds, settings(three_seeds, "rloo")[0], 60.0, "failed", "diverged")
    told = description(three_seeds, None, is_over=True)
    assert f"Best: `{second}`, test −ELBO 102.00 (mean of 3 seeds)." in told
    assert told.partition("those with failed or diverged runs are last:\n\n")[2].splitlines()[:2] == [
        f"- 102.00 `{second}` (3 seeds)",
        f"- 60.00 `{settings(three_seeds, 'rloo')[0]}` (1 of 3 seeds, 1 failed, 1 diverged)",
    ]


def test_settings_have_the_order_of_the_terminal(three_seeds: Sweep) -> None:
    labels = list(dict.fromkeys(run.label for run in three_seeds.grid.runs))
    for number, label in enumerate(labels[:-1]):
        end(three_seeds, label, 100.0 - number, 90.0, "failed" if number % 2 else 110.0)
    ranked = [level.setting for level in rank(three_seeds)]
    best = best_settings(three_seeds)
    assert [level.setting for level in best] == [each for each in ranked if each in {level.setting for level in best}]
    assert best[0].setting == ranked[0]
    names = {run.label: run.estimator.name for run in three_seeds.grid.runs}
    assert [names[level.setting] for level in best] == list(dict.fromkeys(names[each] for each in ranked[:-1]))


def test_an_unfinished_setting_says_how_many_of_its_seeds_count(three_seeds: Sweep) -> None:
    finish(three_seeds, {0: 100.0})
    assert "test −ELBO 100.00 (mean of 1 of 3 seeds)." in description(three_seeds, None, is_over=False)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_a_grid_makes_no_markup(payload: str) -> None:
    shown = text(payload, 600)
    assert not re.search(r"[<>`*\[\]|\\~$]|://|(?<!&)#", shown)
    assert not re.search(UNSEEN, shown)
    assert shown.count("\n") == 0
    name = code(payload)
    assert not re.search(r"[`\n]", name[1:-1])


def test_a_command_stays_within_its_block() -> None:
    told = block("harness run --grid '```\n# heading'")
    first, *inside, last = told.splitlines()
    assert (first, last) == ("````sh", "````")
    assert len(inside) == 1


def test_the_description_of_a_huge_grid_fits_into_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    labels = "\n".join(f"  - {{name: rloo, n_samples: {n}, label: {'x' * 190}{n}}}" for n in range(2, 80))
    path.write_text(f"name: huge\nquestion: {'why ' * 1000}\nestimators:\n{labels}\nseeds: {{count: 2}}\n")
    grid: Grid = load_grid(path, REGISTRY)
    sweep = Sweep(grid, tmp_path, grid.runs)
    finish(sweep, {i: float(i) for i in range(len(grid.runs))})
    command = "harness run " + "--only estimator=rloo " * 500
    assert len(description(sweep, LastCommand(command, {}, command), is_over=True)) < 7000
