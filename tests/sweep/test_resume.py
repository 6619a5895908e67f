"""Stopping and resuming a sweep: signals, limits, a changed grid, a damaged checkpoint."""

import os
import re
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest
from command_line import assert_refused, harness
from killed_sweeps import GRID, command, environment, journal_of, results, start

from harness.options import SavingEvery
from harness.units import DURATION, SAVING, SIZE


def run(folder: Path, out: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(folder, out, *more), capture_output=True, text=True, check=False, env=environment(), timeout=200
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "killed.yaml").write_text(GRID.format(epochs=60, seeds=1))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_the_epoch_and_saves_it(folder: Path, out: Path, number: int) -> None:
    process = start(folder, out, "--checkpoint-every", "never")
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert not errors
    stopped = [event for event in journal_of(out) if event["kind"] == "interrupted"]
    assert len(stopped) == 2
    assert len(list((out / "killed" / "checkpoints").glob("*.ckpt"))) == 2
    assert "next: run the same command again to continue" in output
    before = len(journal_of(out))
    assert run(folder, out).returncode == 0
    epochs = [event for event in journal_of(out)[before:] if event["kind"] == "epoch"]
    done = {str(event["run_key"]): re.search(r"\d+", str(event["error"])) for event in stopped}
    for key, epoch in done.items():
        assert epoch is not None
        assert min(e["epoch"] for e in epochs if e["run_key"] == key) == int(epoch[0]) + 1


def test_the_second_signal_stops_at_once(folder: Path, out: Path) -> None:
    (folder / "killed.yaml").write_text(GRID.format(epochs=60, seeds=1).replace("batch_size: 20", "batch_size: 1"))
    process = start(folder, out, "--workers", "1", n_epochs=1)
    process.send_signal(signal.SIGINT)
    while "stopping" not in (process.stdout.readline() if process.stdout else ""):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130, output + errors
    assert "interrupted by the user" in output
    assert "Traceback" not in errors


@pytest.mark.parametrize("delay_s", [0.2, pytest.param(0.6, marks=pytest.mark.slow)])
def test_ctrl_c_while_the_workers_start_is_quiet(folder: Path, out: Path, delay_s: float) -> None:
    process = subprocess.Popen(
        command(folder, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    while "starting " not in (process.stdout.readline() if process.stdout else ""):
        assert process.poll() is None
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "Traceback" not in errors


@pytest.mark.slow  # tests/training/test_checkpoint.py damages every byte of one
def test_a_damaged_checkpoint_is_reported_and_the_run_starts_over(folder: Path, out: Path) -> None:
    reference = folder / "reference"
    assert run(folder, reference).returncode == 0
    process = start(folder, out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    paths = sorted((out / "killed" / "checkpoints").glob("*.ckpt"))
    content = bytearray(paths[0].read_bytes())
    content[len(content) // 2] ^= 4
    paths[0].write_bytes(content)
    done = run(folder, out)
    assert done.returncode == 0
    assert len(re.findall("the run starts over", done.stdout)) == 1
    assert results(out) == results(reference)
    assert [path.name for path in (out / "killed" / "checkpoints").iterdir()] == [f"{paths[0].name}.damaged-1"]


@pytest.mark.slow  # tests/storage/test_plan.py has each kind of change
def test_an_edited_grid_says_what_it_changes(folder: Path, out: Path) -> None:
    text = GRID.format(epochs=2, seeds=2)
    (folder / "killed.yaml").write_text(text)
    assert "grid changed" not in run(folder, out).stdout
    (folder / "killed.yaml").write_text(text.replace("count: 2", "count: 3").replace(", rloo]", ", reinforce]"))
    done = run(folder, out, "--only", "seed=2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"grid changed since .*: 5 runs added, 2 removed", done.stdout)
    (folder / "killed.yaml").write_text(text.replace("epochs: 2", "epochs: 3"))
    done = run(folder, out, "--only", "seed=0")
    assert re.search(r"training.epochs: +2 → 3", done.stdout), done.stdout
    assert "3 runs to do" in done.stdout
    assert "grid changed" not in run(folder, out, "--only", "seed=0").stdout


SLOW = """
    import time
    from estimators import Pathwise

    class Slow(Pathwise):
        "Takes long."
        name, relaxes = "slow", True
        def sample(self, logits_BLK):
            time.sleep(0.2)
            return logits_BLK.softmax(-1).unsqueeze(0)
"""


@pytest.mark.slow  # tests/execution/test_dispatch.py has the limit itself
def test_a_run_beyond_its_time_limit_fails_and_resumes_with_a_larger_one(tmp_path: Path, out: Path) -> None:
    plugin = tmp_path / "slow.py"
    plugin.write_text(textwrap.dedent(SLOW))
    text = GRID.format(epochs=30, seeds=1).replace(
        "[straight_through, gumbel_softmax, rloo]", "[straight_through, slow]"
    )
    (tmp_path / "killed.yaml").write_text(text.replace("train_size: 500", "train_size: 40"))
    done = run(tmp_path, out, "--plugin", str(plugin), "--time-limit", "5s")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 finished, 1 failed." in done.stdout
    assert "took longer than the time limit of 5 s" in done.stdout
    before = [event["epoch"] for event in journal_of(out) if event["kind"] == "epoch"]
    again = run(tmp_path, out, "--plugin", str(plugin), "--retry", "failed", "--time-limit", "100s")
    assert again.returncode == 0, again.stdout + again.stderr
    epochs = [event["epoch"] for event in journal_of(out) if event["kind"] == "epoch"]
    assert len(epochs) == 60  # none twice
    assert len(before) > 30


@pytest.mark.parametrize(
    ("option", "value", "pattern"),
    [
        ("--time-limit", "soon", "expected a number and one of s, m, h, d"),
        ("--time-limit", "0s", "expected more than 0"),
        ("--memory-limit", "4", "expected a number and one of MB, GB, TB"),
        ("--checkpoint-every", "0epochs", "expected a number"),
        ("--retries", "-1", "-1 is not in the range"),
    ],
)
def test_an_invalid_limit_is_one_line(folder: Path, out: Path, option: str, value: str, pattern: str) -> None:
    assert_refused(harness("run", "--grid", folder / "killed.yaml", "--out", out, option, value), pattern)


def test_quantities() -> None:
    assert DURATION.convert("90s", None, None) == 90
    assert DURATION.convert("1.5h", None, None) == 5400
    assert SIZE.convert("4GB", None, None) == 4e9
    assert SAVING.convert("5 epochs", None, None) == SavingEvery(epochs=5)
    assert SAVING.convert("2m", None, None) == SavingEvery(seconds=120)
    assert SAVING.convert("never", None, None) == SavingEvery()
