"""One sweep by the command line in a process of its own, and when each of its runs began and ended.

The times are those of the journal; the wall clock is that of the whole command, from the start of Python to its exit.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class Timed:
    """Seconds since the command was started; `training_s` is each run's own `time/total_s`."""

    wall_s: float
    memory_mb: list[tuple[float, float]]  # (when, the driver's resident memory); empty where /proc does not tell
    starts_s: list[float]
    ends_s: list[float]
    training_s: list[float]

    @property
    def startup_s(self) -> float:
        """Until the first run starts: imports, a new MLflow database, workers."""
        return self.starts_s[0]

    @property
    def run_s(self) -> list[float]:
        """Seconds from start to end of each run: data, training, validation, test, pictures."""
        return [end - start for start, end in zip(self.starts_s, self.ends_s, strict=True)]

    @property
    def peak_mb(self) -> float:
        return max((mb for _, mb in self._while_running()), default=0.0)

    @property
    def growth_kb(self) -> float:
        """Kilobytes of the driver's memory per run, from the first tenth of the runs to the last."""
        tenth = len(self.starts_s) // 10
        samples = [mb for when, mb in self._while_running() if when >= self.starts_s[tenth]]
        return (samples[-1] - samples[0]) * 1024 / (len(self.starts_s) - tenth) if samples else 0.0

    def pace_s(self, tenth: int) -> float:
        """Return the seconds between starts in one tenth of the runs, counted from 1."""
        n = len(self.starts_s) // 10
        first, last = (tenth - 1) * n, tenth * n - 1
        return (self.starts_s[last] - self.starts_s[first]) / max(last - first, 1)

    def _while_running(self) -> list[tuple[float, float]]:
        return [(when, mb) for when, mb in self.memory_mb if when <= self.ends_s[-1]]


def timed_sweep(grid: str, workers: int, plugins: Sequence[Path] = ()) -> Timed:
    """Run a grid with MLflow on SQLite in a new folder. Raises CalledProcessError unless all runs finish."""
    with TemporaryDirectory(prefix="benchmark-") as folder:
        path = Path(folder, "grid.yaml")
        path.write_text("name: timed\n" + grid)
        command = [sys.executable, "-m", "harness.cli", "run", "--grid", str(path), "--out", folder]
        command += ["--workers", str(workers), *(part for plugin in plugins for part in ("--plugin", str(plugin)))]
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        begun, begun_ms = time.perf_counter(), time.time_ns() / 1e6
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        memory_mb: list[tuple[float, float]] = []
        while process.poll() is None:
            if mb := _resident_mb(process.pid):
                memory_mb.append((time.perf_counter() - begun, mb))
            time.sleep(0.05)
        wall_s = time.perf_counter() - begun
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        journal = Path(folder, "timed", "journal.jsonl").read_text().splitlines()
    return _timed(wall_s, memory_mb, begun_ms, journal)


def _timed(wall_s: float, memory_mb: list[tuple[float, float]], begun_ms: float, journal: list[str]) -> Timed:
    records = [json.loads(line.partition(" ")[2]) for line in journal]
    starts = {r["run_key"]: (r["time_ms"] - begun_ms) / 1e3 for r in records if r["kind"] == "started"}
    ends = {r["run_key"]: r for r in records if r["kind"] == "finished"}
    keys = sorted(starts, key=starts.__getitem__)
    return Timed(
        wall_s, memory_mb,
        [starts[key] for key in keys],
        [(ends[key]["time_ms"] - begun_ms) / 1e3 for key in keys],
        [ends[key]["metrics"]["time/total_s"] for key in keys],
    )  # fmt: skip


def _resident_mb(pid: int) -> float:
    """Return the resident memory of a process, or 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)
