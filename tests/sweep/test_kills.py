"""Sweeps that are killed repeatedly at random moments end with the results of an undisturbed sweep."""

import random
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from command_line import harness
from empty_store import add_empty_store
from killed_sweeps import GRID, assert_whole, command, environment, journal_of, run_quietly, workers_of


def undisturbed(folder: Path, *, seeds: int, epochs: int) -> Path:
    """Write the grid; return where it was run without a kill."""
    (folder / "killed.yaml").write_text(GRID.format(epochs=epochs, seeds=seeds))
    add_empty_store(folder / "reference")
    run_quietly(folder, folder / "reference")
    return folder / "reference"


@pytest.mark.parametrize(
    ("kills", "seeds", "epochs", "pause_s"),
    [pytest.param(1, 1, 20, 0.2, id="1"), pytest.param(50, 4, 400, 2.0, id="50", marks=pytest.mark.slow)],
)
def test_the_driver_is_killed_again_and_again(
    tmp_path: Path, out: Path, kills: int, seeds: int, epochs: int, pause_s: float
) -> None:
    reference = undisturbed(tmp_path, seeds=seeds, epochs=epochs)
    chance = random.Random(0)  # noqa: S311
    codes, orphans = [], list[psutil.Process]()
    for number in range(kills):
        process = subprocess.Popen(command(tmp_path, out), stdout=subprocess.DEVNULL, env=environment())
        if number == 0 or chance.random() < 0.8:  # while it trains; else while it starts
            wait_for_epoch(out / "killed" / "journal.jsonl", process)
        time.sleep(chance.uniform(0, pause_s))
        orphans += workers_of(process.pid)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert codes.count(-signal.SIGKILL) > kills / 2  # it had not ended before
    assert orphans
    assert not psutil.wait_procs(orphans, timeout=20)[1]  # the workers of a driver that was killed end with it
    shown = harness("status", "--grid", tmp_path / "killed.yaml", "--out", out).stdout
    assert "running" not in shown  # though the journal of a driver that was killed says so
    assert "interrupted: no driver is alive; run the sweep again to continue" in shown
    run_quietly(tmp_path, out)
    assert_whole(out, reference, epochs)
    resumed = Counter(e["run_key"] for e in journal_of(out) if e["kind"] == "started")
    print(f"{codes.count(-9)} kills, {sum(resumed.values())} starts of {len(resumed)} runs")


def wait_for_epoch(path: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the journal has an epoch more, or the process ends."""
    before = n_epochs(path)
    while process.poll() is None and n_epochs(path) <= before:
        time.sleep(0.02)


def n_epochs(path: Path) -> int:
    return path.read_bytes().count(b'"kind": "epoch"') if path.exists() else 0


@pytest.mark.slow
def test_workers_are_killed_again_and_again(tmp_path: Path, out: Path) -> None:
    kills, epochs = 20, 150
    reference = undisturbed(tmp_path, seeds=4, epochs=epochs)
    chance = random.Random(0)  # noqa: S311
    log = tmp_path / "log"
    with log.open("w") as stdout:
        process = subprocess.Popen(
            command(tmp_path, out, "--retries", str(kills)), stdout=stdout, stderr=stdout, env=environment()
        )
        killed = 0
        while killed < kills and process.poll() is None:
            wait_for_epoch(out / "killed" / "journal.jsonl", process)
            time.sleep(chance.uniform(0, 1))
            if workers := workers_of(process.pid):
                chance.choice(workers).kill()
                killed += 1
        assert process.wait(timeout=600) == 0, log.read_text()
    assert killed == kills
    assert_whole(out, reference, epochs)
    retries = re.findall(r"worker process died \(SIGKILL, out of memory\?\); retry \d+ of \d+", log.read_text())
    cut = [event for event in journal_of(out) if event["kind"] == "interrupted"]
    assert len(retries) == len(cut)
    assert 0 < len(cut) <= kills  # an idle worker that dies costs no run its try
    starts = Counter(e["run_key"] for e in journal_of(out) if e["kind"] == "started")
    assert len(starts) < sum(starts.values()) <= len(starts) + len(cut)  # one may die before its run has started
