"""An edited grid is compared with the previous one, run by run, in few lines."""

import random
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plans import GRID, Load, assert_same_runs

from harness.storage.plan_changes import MAX_LINES, WIDTH, Changes, compare_plans, describe
from harness.storage.plan_file import Plan, PlannedRun, Setting, make_plan


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("[0, 1]", "[0, 1, 2]", ["6 runs added"]),
        ("seeds: [0, 1]", "seeds: [0]", ["6 runs removed (their results stay)"]),
        ("seeds: [0, 1]", "seeds: [2, 1]", ["6 runs added, 6 removed (their results stay)"]),
        ("epochs: 10", "epochs: 11", ["12 runs changed (they are new runs)", "  training.epochs: 10 → 11 (12 runs)"]),
        (
            "estimators:",
            "evaluation: {bound_samples: 7}\nestimators:",
            ["12 runs changed (they are new runs)", "  evaluation.bound_samples: 100 → 7 (12 runs)"],
        ),
        (
            "training: {epochs: 10",
            "training: {epochs: 10, grad_clip: 1.0",
            ["12 runs changed (they are new runs)", "  training.grad_clip: none → 1 (12 runs)"],
        ),
        ("name: mine\n", "name: mine\nquestion: Why?\n# Well\n", ["the grid is the same except for its text"]),
        ("straight_through", "{name: straight_through, label: st}", ["the grid has the same runs, 4 of them under"]),
    ],
)
def test_changes_of_a_grid_are_described(load_text: Load, before: str, after: str, expected: list[str]) -> None:
    seeds_only = GRID.replace("schedules: [{kind: constant, tau: [0.5, 1.0]}]", "schedules: [{kind: constant}]")
    old = make_plan(load_text(seeds_only), None)
    new = make_plan(load_text(seeds_only.replace(before, after)), None)
    lines = describe(compare_plans(old, new))
    said = re.sub(r"^grid changed since [-\d]+ [:\d]+: ", "", "\n".join(lines)).replace("\n  stay)", " stay)")
    assert said.startswith("\n".join(expected))
    assert describe(compare_plans(new, new)) == []


def test_one_changed_run_is_described_in_the_singular(load_text: Load) -> None:
    one = "estimators: [straight_through]\nseeds: [0]\n"
    grids = [load_text(one + rest) for rest in ("", "training: {epochs: 3}")]
    head, detail = describe(compare_plans(*(make_plan(grid, None) for grid in grids)))
    assert head.endswith(": 1 run changed (it is a new run)")
    assert detail == "  training.epochs: 10 → 3 (1 run)"


def test_a_schedule_of_another_kind_lists_the_settings_that_are_gone(load_text: Load) -> None:
    text = "estimators: [straight_through]\nseeds: [0]\nschedules: [{%s, label: mine}]\n"
    kinds = ("kind: constant, tau: 2", "kind: exponential, initial: 2, rate: 1e-3")
    lines = describe(compare_plans(*(make_plan(load_text(text % kind), None) for kind in kinds)))
    assert lines[1] == "  schedule.kind: constant → exponential (1 run)"
    assert lines[2] == "  schedule.compounding: – → false (1 run)"
    assert len(lines) == 1 + MAX_LINES


def test_lines_are_few_and_fit_a_terminal() -> None:
    def run(number: int, values: dict[str, Any]) -> PlannedRun:
        return PlannedRun(str(number), Setting(f"run {number % 1000}", values), 0)

    long = {f"estimator.{'long_' * 20}{n}": "x" * 200 for n in range(2)}
    old = Plan("g", "", "2026-11-25 10:12:03", None, tuple(run(n, long | {"a": n}) for n in range(1000)))
    newer = {name: value + "y" for name, value in long.items()} | {"evaluation.validation_fraction": "z" * 70}
    new = Plan("g", "", "", None, tuple(run(1000 + n, newer | {"a": n // 7}) for n in range(1000)))
    lines = describe(compare_plans(old, new))
    assert len(lines) == 1 + MAX_LINES
    assert all(len(line) <= WIDTH for line in lines), lines
    assert re.fullmatch(r"  and \d+ other changes of settings", lines[-1])
    assert lines[1].endswith(" (1000 runs)")


def test_the_basket_of_the_diagnostics_is_a_setting(load_text: Load) -> None:
    text = GRID + "diagnostics: {basket: [{name: rloo, n_samples: 2, label: one}]}\n"
    old, new = (
        make_plan(load_text(t), None) for t in (text, text.replace("n_samples: 2, label", "n_samples: 3, label"))
    )
    head, *details = describe(compare_plans(old, new))
    assert head.endswith(": 16 runs changed (they are new runs)")
    assert details[0].startswith("  diagnostics.basket: one {")


def test_runs_whose_keys_alone_changed_are_described_as_equal_in_settings(load_text: Load) -> None:
    grid = make_plan(load_text(GRID), None)
    other = Plan("mine", GRID, "", None, tuple(PlannedRun("x" + r.key, r.setting, r.seed) for r in grid.runs))
    head, detail = describe(compare_plans(grid, other))
    assert "changed" in head
    assert "no setting, but this version of the harness identifies runs in another way" in detail


subsets = st.fixed_dictionaries(
    {
        "lr": st.lists(st.sampled_from(["1e-3", "3e-4", "1e-2"]), min_size=1, unique=True),
        "epochs": st.sampled_from([2, 3]),
        "estimators": st.lists(
            st.sampled_from(
                ["straight_through", "gumbel_softmax", "{name: rloo, n_samples: [2, 3]}", "{name: rebar, label: r}"]
            ),
            min_size=1,
            unique=True,
        ),
        "tau": st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, unique=True),
        "seeds": st.lists(st.integers(0, 3), min_size=1, unique=True),
    }
)


def write(parts: dict[str, Any]) -> str:
    lists = {name: f"[{', '.join(map(str, value))}]" for name, value in parts.items() if isinstance(value, list)}
    return (
        f"name: mine\ntraining: {{epochs: {parts['epochs']}, lr: {lists['lr']}}}\nestimators: {lists['estimators']}\n"
        f"schedules: [{{kind: constant, tau: {lists['tau']}}}]\nseeds: {lists['seeds']}\n"
    )


def sizes(found: Changes) -> tuple[Counter[str], Counter[str]]:
    """The keys of the old and of the new grid, as the changes add up to them."""
    old = [*found.removed, *(pair[0] for pair in found.changed), *(pair[0] for pair in found.unchanged)]
    new = [*found.added, *(pair[1] for pair in found.changed), *(pair[1] for pair in found.unchanged)]
    return Counter(run.key for run in old), Counter(run.key for run in new)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(subsets, subsets, st.randoms())
def test_every_run_is_added_removed_changed_or_unchanged(
    load_text: Load, one: dict[str, Any], other: dict[str, Any], shuffle: random.Random
) -> None:
    grids = load_text(write(one)), load_text(write(other))
    old, new = (make_plan(grid, None) for grid in grids)
    assert_same_runs(old, grids[0])
    found = compare_plans(old, new)
    assert sizes(found) == tuple(Counter(run.key for run in grid.runs) for grid in grids)
    assert all(before.name == after.name and before.key != after.key for before, after in found.changed)
    assert all(before.key == after.key for before, after in found.unchanged)
    lines = describe(found)
    assert all(len(line) <= WIDTH for line in lines)
    assert bool(lines) == (old.text != new.text)
    assert (old.runs == new.runs) <= (not (found.added or found.removed or found.changed))

    shuffled = shuffle.sample(new.runs, len(new.runs))
    again = compare_plans(old, Plan(new.name, new.text, "", None, tuple(shuffled)))
    assert describe(again) == lines
    assert sizes(again) == sizes(found)
    back = compare_plans(new, old)
    assert (len(back.added), len(back.removed), len(back.changed)) == (
        len(found.removed), len(found.added), len(found.changed)
    )  # fmt: skip
