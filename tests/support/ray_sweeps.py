"""The command line on a Ray cluster: a small grid, processes that run it, and what they stored."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.storage.sweep_state import is_measured

GRID = """
name: tiny
question: Does it run?
data: {train_size: 1000}
model: {n_latents: 3, n_categories: 4, hidden: [64]}
training: {epochs: %s, batch_size: 50}
evaluation: {bound_samples: 2, n_images: 2}
estimators: [straight_through, gumbel_softmax]
seeds: [0, 1]
"""


def unmeasured(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not is_measured(name)}


def grid_file(folder: Path, epochs: int) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(GRID % epochs)
    return path


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Start the command in a folder that has nothing to do with the checkout: Ray looks there for modules."""
    command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe, start_new_session=True, cwd="/")


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def events(out: Path) -> list[dict[str, Any]]:
    path = out / "tiny" / "journal.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line[9:]) for line in whole.splitlines()]


def results(out: Path) -> dict[str, dict[str, float]]:
    """The final numbers of every run, but the measured ones."""
    return {event["run_key"]: unmeasured(event["metrics"]) for event in events(out) if event["kind"] == "finished"}


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("timed out")


def other_out(out: Path, name: str) -> Path:
    folder = out.parent / name
    folder.mkdir()
    (folder / "mlflow.db").write_bytes((out / "mlflow.db").read_bytes())
    return folder
