"""A task that breaks a rule is refused with one line that names the user's file and line; a right one passes."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from paths import ROOT, SUPPORT

from harness.cli import main
from harness.plugins.check_result import Result
from harness.plugins.registry import load_registry
from harness.plugins.task_check import check_task, check_whole_task
from harness.tasks.conformance.measures import rank_correlation
from harness.tasks.registry import TASKS

WRONG = SUPPORT / "wrong_tasks.py"
OF_FILE = {cls.name: cls for cls in load_registry([WRONG]).of_files}
RIGHT = ("right", "two_layers", "upside_down", "data_by_other_generators")
EXPECTED = {name: " ".join((cls.__doc__ or "").split()) for name, cls in OF_FILE.items() if name not in RIGHT}
ONLY_WHOLE = ("data_changes", "data_by_a_teacher", "loses_state", "other_noise")
"""What the quick checks do not look for."""
EXAMPLE = ROOT / "experiments" / "plugins" / "hard_gate.py"


def failures(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.failed]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_wrong_task_is_refused_in_one_line_that_names_the_place(name: str) -> None:
    first = failures(list(check_whole_task(OF_FILE[name])))[0]
    assert first.text.startswith(f"{name}: {EXPECTED[name]}")
    assert "\n" not in first.text
    assert first.place is not None
    assert re.fullmatch(r"wrong_tasks\.py:\d+", first.place)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in ONLY_WHOLE])
def test_the_quick_checks_refuse_it_too(name: str) -> None:
    results, n_checks, _ = check_task(OF_FILE[name], {})
    (first,) = failures(results)
    assert first.text.startswith(f"{name}: {EXPECTED[name]}")
    assert first is results[-1]
    assert len(results) <= n_checks


def test_the_place_is_the_method_that_breaks_the_rule() -> None:
    text = WRONG.read_text().splitlines()
    methods = {
        "logits_of_other_shape": "logits",
        "mixes_samples": "cost",
        "measure_is_nan": "measure",
        "data_is_a_tensor": "data",
        "skips_a_layer": "loss",
    }
    for name, method in methods.items():
        place = failures(list(check_whole_task(OF_FILE[name])))[0].place
        assert place is not None
        assert text[int(place.partition(":")[2]) - 1].strip().startswith(f"def {method}(")


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_task_passes(name: str) -> None:
    results = list(check_whole_task(OF_FILE[name]))
    assert failures(results) == []
    assert [result.check for result in results if result.check == "warning"] == ["warning"] * (name == "upside_down")
    quick, n_checks, _ = check_task(OF_FILE[name], {})
    assert failures(quick) == []
    assert len(quick) == n_checks


def test_a_measure_that_contradicts_the_cost_is_a_warning() -> None:
    (warning,) = (result for result in check_whole_task(OF_FILE["upside_down"]) if result.check == "warning")
    assert warning.text.startswith(
        "upside_down: the measure near is declared better='lower', but is a measure whose rank"
    )


def test_the_quick_checks_stop_when_time_is_up() -> None:
    results, n_checks, _ = check_task(OF_FILE["right"], {}, budget_s=0.0)
    assert len(results) == 1 < n_checks


@pytest.mark.parametrize("name", TASKS)
def test_every_built_in_task_conforms(name: str) -> None:
    assert failures(list(check_whole_task(TASKS[name]))) == []


def test_the_worked_example_conforms_in_forty_lines() -> None:
    (cls,) = load_registry([EXAMPLE]).of_files
    results = list(check_whole_task(cls))
    assert failures(results) == []
    assert not [result for result in results if result.check == "warning"]
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_parameters_are_those_of_the_grid() -> None:
    results, _, _ = check_task(OF_FILE["right"], {"width": 7})
    assert failures(results) == []
    results, _, _ = check_task(OF_FILE["right"], {"width": -1})
    assert failures(results)[0].place is not None


def run(capsys: pytest.CaptureFixture[str], *files: Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["check", *map(str, files)])
    code = caught.value.code
    return (code if isinstance(code, int) else 0, *capsys.readouterr())


def test_the_command_checks_estimators_and_tasks_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimator = ROOT / "experiments" / "plugins" / "heavy_tail_softmax.py"
    code, out, err = run(capsys, EXAMPLE, estimator)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "hard_gate: check_logits: logits of shape (16, 1, 4)" in lines
    assert (
        "heavy_tail_softmax: check_state: a new object with its state dict gives the same bits after 20 calls" in lines
    )
    assert re.fullmatch(r"\d+ checks passed, 0 failed\.", lines[-1])


def test_the_command_names_the_line_of_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE.read_text().replace(".unsqueeze(1)", "", 1).replace("hard_gate", "mine"))
    line = path.read_text().splitlines().index("    def logits(self, batch):") + 1
    code, out, _ = run(capsys, path)
    assert code == 1
    expected = f"mine.py:{line}: mine: expected logits of shape (B, L, K) = (16, 1, 4), got (16, 4). B is the length"
    assert [text for text in out.splitlines() if text.startswith(expected)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "mine.py: expected at least one concrete subclass of "),
        ("1 / 0", "mine.py:1: plugin failed to import: ZeroDivisionError"),
        (None, "mine.py: expected a readable Python file, got 'no such file or directory'."),
    ],
)
def test_the_command_refuses_a_file_without_plugins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, expected: str
) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    code, out, err = run(capsys, path)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


def test_rank_correlation_is_spearmans() -> None:
    x_SB = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [9.0, 1.0]])
    assert rank_correlation(x_SB, -x_SB) == pytest.approx(-1.0)
    assert rank_correlation(x_SB, torch.tensor([[1.0], [2.0], [2.0], [4.0]]).expand(4, 2)) == pytest.approx(0.9486833)
    assert rank_correlation(x_SB[:, 1:], x_SB[:, 1:]) == 0.0
