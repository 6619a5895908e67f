"""An edited grid is told from the one before, run by run; what is stored of it is small, and knows when it is stale."""

import errno
import gzip
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estimators import REGISTRY
from harness.grid.load import Grid, load_grid
from harness.plugins.registry import load_registry
from harness.storage import checksummed_file, plan
from harness.storage.checksummed_file import DamagedError
from harness.storage.plan import last_plugins, plan_fingerprint, planned_runs, save_plan, sweep_folder
from harness.storage.plan_changes import MAX_LINES, WIDTH, Changes, compare_plans, describe
from harness.storage.plan_file import Plan, PlannedRun, Setting, make_plan, read_plan, to_bytes

GRID = """\
name: mine
training: {epochs: 10, lr: [1e-3, 3e-4]}
estimators:
  - straight_through
  - {name: rloo, n_samples: [2, 4]}
schedules: [{kind: constant, tau: [0.5, 1.0]}]
seeds: [0, 1]
"""
PLUGIN = """
from estimators import Pathwise

class Mine(Pathwise):
    name, relaxes = "mine", True

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)
"""
Load = Callable[..., Grid]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def load_text(text: str, registry: Any = REGISTRY) -> Grid:
        path = tmp_path / "grid.yaml"
        path.write_text(text)
        return load_grid(path, registry)

    return load_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    return folder


def stored(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def check_is(found: Plan, grid: Grid) -> None:
    assert (found.name, found.text) == (grid.name, grid.text)
    assert [(run.key, run.name, run.label) for run in found.runs] == [(r.key, r.name, r.label) for r in grid.runs]
    for run, config in zip(found.runs, grid.runs, strict=True):
        expected = config.flat()
        shown = {name: run.values[name] for name in expected if name != "diagnostics.basket"}
        expected.pop("diagnostics.basket", None)
        assert shown == expected
        assert run.values.keys() - {"diagnostics.basket"} == expected.keys()
        assert list(map(type, shown.values())) == list(map(type, expected.values()))


def test_a_new_grid_is_stored_and_an_unchanged_one_left_alone(folder: Path, load_text: Load) -> None:
    grid = load_text(GRID)
    assert save_plan(folder, grid, "digest") == []
    check_is(read_plan(folder / "frozen.json"), grid)
    before = (folder / "frozen.json").stat()
    assert save_plan(folder, load_text(GRID), "digest") == []
    assert (folder / "frozen.json").stat() == before
    assert stored(folder) == {"frozen.json"}


def test_edits_are_told_and_former_versions_kept(folder: Path, load_text: Load) -> None:
    save_plan(folder, load_text(GRID))
    first = (folder / "frozen.json").read_bytes()
    since = read_plan(folder / "frozen.json").saved_at[:16]
    edited = GRID.replace("[2, 4]", "4").replace("straight_through", "straight_through\n  - reinforce")
    assert save_plan(folder, load_text(edited)) == [
        f"grid changed since {since}: 4 runs added, 4 removed (their results",
        "  stay)",
    ]
    assert stored(folder) == {"frozen.json", "frozen-0001.json"}
    assert (folder / "frozen-0001.json").read_bytes() == first
    lines = save_plan(folder, load_text(edited.replace("epochs: 10", "epochs: 20")))
    assert " ".join(map(str.strip, lines)) == (
        f"grid changed since {since}: 16 runs changed (they are new runs) training.epochs: 10 → 20 (16 runs)"
    )
    assert stored(folder) == {"frozen.json", "frozen-0001.json", "frozen-0002.json"}


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
def test_what_is_said(load_text: Load, before: str, after: str, expected: list[str]) -> None:
    seeds_only = GRID.replace("schedules: [{kind: constant, tau: [0.5, 1.0]}]", "schedules: [{kind: constant}]")
    old = make_plan(load_text(seeds_only), None)
    new = make_plan(load_text(seeds_only.replace(before, after)), None)
    lines = describe(compare_plans(old, new))
    said = re.sub(r"^grid changed since [-\d]+ [:\d]+: ", "", "\n".join(lines)).replace("\n  stay)", " stay)")
    assert said.startswith("\n".join(expected))
    assert describe(compare_plans(new, new)) == []


def test_one_run_is_spoken_of_as_one(load_text: Load) -> None:
    one = "estimators: [straight_through]\nseeds: [0]\n"
    grids = [load_text(one + rest) for rest in ("", "training: {epochs: 3}")]
    head, detail = describe(compare_plans(*(make_plan(grid, None) for grid in grids)))
    assert head.endswith(": 1 run changed (it is a new run)")
    assert detail == "  training.epochs: 10 → 3 (1 run)"


def test_a_schedule_of_another_kind_under_the_same_label_shows_what_is_gone(load_text: Load) -> None:
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


def test_runs_whose_keys_changed_with_the_version_are_said_to_have_equal_settings(load_text: Load) -> None:
    grid = make_plan(load_text(GRID), None)
    other = Plan("mine", GRID, "", None, tuple(PlannedRun("x" + r.key, r.setting, r.seed) for r in grid.runs))
    head, detail = describe(compare_plans(grid, other))
    assert "changed" in head
    assert "no setting, but this version of the harness identifies runs in another way" in detail


def test_a_new_version_of_the_code_alone_is_no_change(folder: Path, load_text: Load) -> None:
    grid = load_text(GRID)
    save_plan(folder, grid, "one")
    assert save_plan(folder, grid, "two") == []
    assert read_plan(folder / "frozen.json").fingerprint == "two"
    assert stored(folder) == {"frozen.json"}


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
    check_is(old, grids[0])
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


@pytest.mark.parametrize("seeds", [1, 100])
def test_ten_thousand_runs_are_small(folder: Path, load_text: Load, seeds: int) -> None:
    """All values of their own, or a hundred seeds of each."""
    lrs = [f"{n}e-6" for n in range(1, 1 + 100 // seeds)]
    decays = [f"{n}e-5" for n in range(25)]
    text = f"""name: mine
training: {{lr: [{", ".join(lrs)}], weight_decay: [{", ".join(decays)}]}}
estimators: [straight_through, gumbel_softmax, {{name: rloo, n_samples: [2, 4]}}, reinmax]
schedules: [{{kind: exponential, rate: 3e-5, every: 500, floor: 0.5}}]
seeds: {{count: {seeds}}}
"""
    grid = load_text(text)
    assert len(grid.runs) >= 10_000
    save_plan(folder, grid)
    assert (folder / "frozen.json").stat().st_size < 2e6
    found = read_plan(folder / "frozen.json")
    assert [(run.key, run.name) for run in found.runs] == [(run.key, run.name) for run in grid.runs]
    assert found.runs[-1].values == grid.runs[-1].flat()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        checksummed_file.add_checksum(b"{}"),
        checksummed_file.add_checksum(b"[]"),
        checksummed_file.add_checksum(b"\xff"),
        checksummed_file.add_checksum(b'{"format": 2, "runs": []}'),
        checksummed_file.add_checksum(b'{"format": 2, "settings": [{"label": "a"}], "shared": {}, "runs": []}'),
        checksummed_file.add_checksum(b'{"format": 2, "settings": 3, "shared": {}, "runs": []}'),
        checksummed_file.add_checksum(gzip.compress(b'{"format": 2}')[:-9]),
        checksummed_file.add_checksum(b"\x1f\x8bgarbage"),
    ],
)
def test_a_damaged_file_is_set_aside_with_a_line(folder: Path, load_text: Load, content: bytes) -> None:
    path = folder / "frozen.json"
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_plan(path)
    assert planned_runs(folder, GRID) is None
    grid = load_text(GRID)
    (line,) = save_plan(folder, grid)
    assert "\n" not in line
    assert line.startswith(f"{path}: expected ")
    assert line.endswith("kept as frozen.json.damaged-1; earlier edits of the grid are not reported.")
    assert (folder / "frozen.json.damaged-1").read_bytes() == content
    check_is(read_plan(path), grid)


def test_a_plan_of_an_older_version_is_kept_with_a_line(folder: Path, load_text: Load) -> None:
    path, old = (
        folder / "frozen.json",
        checksummed_file.add_checksum(b'{"format": 1, "columns": {}, "settings": [["a", 1]]}'),
    )
    path.write_bytes(old)
    assert planned_runs(folder, GRID) is None
    assert last_plugins(folder) == ()
    grid = load_text(GRID)
    assert save_plan(folder, grid, plan_fingerprint()) == [
        f"{path}: expected a plan of format 2, got format 1. It is kept as frozen-0001.json; earlier edits of the grid"
        " are not reported."
    ]
    assert (folder / "frozen-0001.json").read_bytes() == old
    check_is(read_plan(path), grid)
    assert planned_runs(folder, GRID) is not None
    assert save_plan(folder, grid, plan_fingerprint()) == []
    assert stored(folder) == {"frozen.json", "frozen-0001.json"}


def test_a_plan_that_is_huge_when_unpacked_is_damaged(
    folder: Path, load_text: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(folder, load_text("name: mine\nestimators: [straight_through]\nseeds: [0]\n"))
    monkeypatch.setattr("harness.storage.plan_file.MAX_BYTES", 100)
    with pytest.raises(DamagedError, match="expected at most 100 bytes"):
        read_plan(folder / "frozen.json")


@pytest.mark.parametrize("content", [b"[" * 100_000, gzip.compress(b"[" * 100_000), gzip.compress(b"{}")[:-4]])
def test_nested_and_cut_plans_are_damaged(folder: Path, content: bytes) -> None:
    checksummed_file.write(folder / "frozen.json", content)
    with pytest.raises(DamagedError, match="expected a plan of format 2"):
        read_plan(folder / "frozen.json")


def test_flipped_bytes_are_seen(folder: Path, load_text: Load) -> None:
    path = folder / "frozen.json"
    save_plan(folder, load_text("name: mine\nestimators: [straight_through]\nseeds: [0]\n"))
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):  # tests/storage/test_checksummed_file.py flips every bit
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DamagedError):
            read_plan(path)


def test_a_grid_that_cannot_be_stored_is_one_line(
    folder: Path, load_text: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    (line,) = save_plan(folder, load_text(GRID))
    assert line == (
        f"{folder / 'frozen.json'}: the grid could not be saved (No space left on device). "
        "Later edits will not be reported."
    )


def test_runs_are_known_by_the_text(folder: Path, load_text: Load) -> None:
    grid = load_text(GRID)
    save_plan(folder, grid, plan_fingerprint())
    found = planned_runs(folder, GRID)
    assert found is not None
    assert [(run.key, run.name, run.label) for run in found] == [(run.key, run.name, run.label) for run in grid.runs]
    assert planned_runs(folder, GRID + "\n") is None
    assert planned_runs(folder.parent, GRID) is None
    copy = folder.parent / "other"
    folder.rename(copy)
    assert planned_runs(copy, GRID) is None


def test_who_does_not_say_what_made_the_runs_is_not_believed_later(folder: Path, load_text: Load) -> None:
    save_plan(folder, load_text(GRID))
    assert planned_runs(folder, GRID) is None


def test_a_plugin_is_part_of_what_makes_the_runs(folder: Path, tmp_path: Path, load_text: Load) -> None:
    plugin, text = tmp_path / "mine.py", GRID + "description: with a plugin\n"
    plugin.write_text(PLUGIN)
    text = text.replace("straight_through", "mine")
    save_plan(folder, load_text(text, load_registry([plugin])), plan_fingerprint([plugin]))
    found = planned_runs(folder, text, [plugin])
    assert found is not None
    assert {run.key for run in found} == {run.key for run in load_text(text, load_registry([plugin])).runs}
    assert planned_runs(folder, text) is None
    plugin.write_text(PLUGIN + "\n# edited\n")
    assert planned_runs(folder, text, [plugin]) is None
    lines = save_plan(folder, load_text(text, load_registry([plugin])), plan_fingerprint([plugin]))
    assert re.fullmatch(r"  estimator\.source: [0-9a-f]{8} → [0-9a-f]{8} \(4 runs\)", lines[-1])
    assert planned_runs(folder, text, [plugin]) is not None
    plugin.unlink()
    assert planned_runs(folder, text, [plugin]) is None


def test_a_plugin_that_reads_other_code_is_not_trusted(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    for extra in ("import numpy", "from my_package.parts import A", "from . import other", "def f(): import foo", "?"):
        plugin.write_text(f"{PLUGIN}\n{extra}\n")
        assert plan_fingerprint([plugin]) is None
    plugin.write_text(f"{PLUGIN}\nimport math, torch.nn\nfrom collections.abc import Mapping\n")
    assert plan_fingerprint([plugin]) not in (None, plan_fingerprint())


def test_installed_plugins_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "mine:Mine", "harness.estimators")
    monkeypatch.setattr(plan, "entry_points", lambda group: (point,))
    assert plan_fingerprint() is None


def test_other_sources_of_the_harness_are_noticed(
    folder: Path, load_text: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(folder, load_text(GRID), plan_fingerprint())
    assert planned_runs(folder, GRID) is not None
    monkeypatch.setattr(plan, "source_sha256", lambda: "other")
    assert planned_runs(folder, GRID) is None


def test_the_folder_of_a_grid_is_found_by_its_name_or_its_files(tmp_path: Path) -> None:
    for text, expected in {
        GRID: "mine",
        "seeds: [0]\n": "my-grid",
        "name: [1]\n": None,
        "name: ../up\n": None,
        "[1]": None,
        "{": None,
        "": None,
    }.items():
        assert sweep_folder(tmp_path, Path("my grid.yaml"), text) == (tmp_path / expected if expected else None)


def test_runs_are_known_without_torch(folder: Path, load_text: Load) -> None:
    load_text(GRID)
    save_plan(folder, load_text(GRID), plan_fingerprint())
    code = (
        "import sys; from pathlib import Path; from harness.storage.plan import planned_runs, sweep_folder\n"
        "assert not {'torch', 'harness.grid.load', 'pydantic'} & sys.modules.keys()\n"
        "out, text = Path(sys.argv[1]), sys.argv[2]\n"
        "print(len(planned_runs(sweep_folder(out, Path('g.yaml'), text), text)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder.parent), GRID], capture_output=True, text=True)
    assert done.stdout == "16 False\n", done.stderr


def test_a_plan_is_read_as_it_was_written(folder: Path, load_text: Load) -> None:
    grid = make_plan(load_text(GRID), "digest")
    checksummed_file.write(folder / "frozen.json", to_bytes(grid))
    assert read_plan(folder / "frozen.json") == grid
