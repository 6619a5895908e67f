"""A small MLflow store with synthetic but plausible runs, written as docs/architecture.md says ("stored runs").

Numbers are formulas of (estimator, schedule, seed), so that tests can compute what a report must show.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from empty_store import add_empty_store

from reports.store.frame import Runs, Sweep, history_frame, tidy

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

START_MS = 1_760_000_000_000  # 9 October 2025
STEPS_PER_EPOCH = 30
QUALITY = {  # final test/neg_elbo, nats per example; and τ's share of the soft/hard gap
    "straight_through": (118.0, 0.0),
    "gumbel_softmax": (112.0, 9.0),
    "st_gumbel_softmax": (114.5, 4.0),
    "rloo": (121.0, 0.0),
    "reinforce": (131.0, 0.0),
}
SCHEDULES = {"constant": "constant(1)", "exponential": "exponential(1→0.5, rate=3e-05, every=100)"}


@dataclass(frozen=True)
class Planned:
    """One planned run and how it ends."""

    estimator: str
    schedule: str
    seed: int
    device: str = "cpu"
    status: str = "finished"
    error: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    estimator_params: Mapping[str, Any] = field(default_factory=dict)
    axis: str = ""
    shift: float = 0.0  # added to every loss

    @property
    def label(self) -> str:
        shown = ", ".join(f"{name}={value}" for name, value in sorted(self.estimator_params.items()))
        estimator = f"{self.estimator}({shown})" if shown else self.estimator
        schedule = [] if self.schedule == "none" else [SCHEDULES[self.schedule]]
        return " · ".join([estimator, *schedule, *filter(None, [self.axis])])

    @property
    def key(self) -> str:
        text = json.dumps([self.label, self.device, self.seed, sorted(self.params.items())])
        return f"{zlib.crc32(text.encode()):08x}{zlib.adler32(text.encode()):08x}"

    def plan_entry(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("label", "estimator", "schedule", "device", "seed")}
        return {"run_key": self.key, "name": f"{self.label} · seed {self.seed}", **fields}


def neg_elbo(run: Planned) -> float:
    """Final test/neg_elbo of a finished run."""
    annealed = -1.5 if run.schedule == "exponential" else 0.0
    seed = 0.8 * math.sin(2.3 * run.seed + 1)  # shared by all estimators: what pairing removes
    own = 0.25 * math.sin(7.1 * run.seed + len(run.estimator))
    return QUALITY.get(run.estimator, (125.0, 1.0))[0] + annealed + seed + own + run.shift


def final_metrics(run: Planned) -> dict[str, float]:
    hard = neg_elbo(run)
    gap = QUALITY.get(run.estimator, (125.0, 1.0))[1]
    step = 0.004 + 0.0007 * len(run.estimator) / 10 + 0.0001 * run.seed
    return {
        "test/neg_elbo": hard,
        "test/neg_bound": hard - 6.5 + 0.1 * math.cos(run.seed),
        "test/relaxed_loss": hard - gap,
        "time/step_s_median": step,
        "time/step_s_p90": step * 1.3,
        "time/images_per_s": 128 / step,
        "time/total_s": step * STEPS_PER_EPOCH * 10 * 1.4,
        "memory/peak_mb": 412.0 + 3 * run.seed + 20 * len(run.estimator_params),
        "cost/n_cost_evals": float(run.estimator_params.get("n_samples", 1)),
        "test/kl": 14.0 + 0.1 * run.seed,
        "latent/perplexity": 5.0 + 0.2 * len(run.estimator) / 10,
        "latent/dead_classes": float(run.seed % 3),
        "latent/entropy": 6.0 + 0.1 * run.seed,
    }


def latents(run: Planned) -> dict[str, Any]:
    """What latents.json says, for four variables of three classes."""
    kl = [0.9, 0.1 * (1 + run.seed), 0.5, 0.0]
    return {"kl": kl, "perplexity": [3.0, 2.0, 2.5, 1.0], "entropy": [0.2] * 4, "dead_classes": [0, 1, 0, 2],
            "usage": [[0.3, 0.3, 0.4]] * 4}  # fmt: skip


def history(run: Planned, epochs: int) -> list[dict[str, float]]:
    """One object per epoch; a diverged or failed run stops after a third of its epochs."""
    until = epochs if run.status == "finished" else max(1, epochs // 3)
    step_s = final_metrics(run)["time/step_s_median"]
    rows = []
    for epoch in range(1, until + 1):
        step = epoch * STEPS_PER_EPOCH
        loss = neg_elbo(run) + 95.0 * math.exp(-0.55 * epoch) + 0.4 * math.sin(3 * epoch + run.seed)
        row = {"epoch": epoch, "step": step, "elapsed_s": step * step_s}
        row |= {"train/loss": loss - 2, "train/bce": loss - 14, "train/kl": 12.0, "val/loss": loss}
        row["latent/perplexity"] = 4 + math.log(1 + epoch)
        if final_metrics(run)["test/relaxed_loss"] < neg_elbo(run):
            row["val/soft_hard_gap"] = 9 / epoch
        if run.schedule != "none":
            row["tau"] = 1.0 if run.schedule == "constant" else max(0.5, math.exp(-0.002 * step))
        rows.append(row)
    return rows


def png(run: Planned, kind: str, size: tuple[int, int] = (8 * 28, 28)) -> bytes:
    """A small greyscale picture: blobs that depend on the run and the kind."""
    phase = {"originals": 0.0, "reconstructions": 1.3, "prior_samples": 3.4}[kind]
    return blobs(phase + (0 if kind == "originals" else 0.7 * len(run.estimator)), size)


@cache
def blobs(phase: float, size: tuple[int, int]) -> bytes:
    width, height = size
    rows = b""
    for y in range(height):
        row = bytearray([0])
        for x in range(width):
            u, v = (x % 28 - 13.5) / 9, (y % 28 - 13.5) / 9
            ring = math.hypot(u * (1 + 0.3 * math.sin(phase + x // 28)), v) - 0.8
            row.append(int(255 * math.exp(-12 * ring * ring)))
        rows += bytes(row)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PROVENANCE = {
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "git_dirty": True,
    "python": "3.12.3",
    "platform": "Linux-6.1-x86_64",
    "packages": {"argmax-harness": "0.1.0", "torch": "2.9.0", "mlflow": "3.17.2", "entmax": None},
    "cpu": "AMD EPYC 7B13",
    "cpu_count": 2,
    "gpu": None,
    "threads": 1,
    "workers": 2,
    "hostname": "bench-1",
}


class StoreWriter:
    """Writes sweeps into one SQLite store through MlflowClient."""

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self._folder = folder
        add_empty_store(folder)
        self._client = MlflowClient(tracking_uri=self.uri)

    def sweep(
        self,
        name: str,
        runs: Sequence[Planned],
        *,
        epochs: int = 10,
        images: bool = True,
        question: str = "Which estimator carries a gradient through argmax?",
        command: str | None = None,
        provenance: Mapping[str, Any] = PROVENANCE,
        start_ms: int = START_MS,
    ) -> None:
        """One parent, one child for each run that is not missing."""
        found = self._client.get_experiment_by_name(name)
        artifacts = (self._folder / "artifacts" / f"{len(self._client.search_experiments())}").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(name, artifacts)
        tags = {"harness.kind": "sweep", "grid": name, "harness.question": question}
        tags["harness.command"] = command or f"harness run --grid experiments/{name}.yaml"
        parent = self._client.create_run(experiment, start_time=start_ms, tags=tags, run_name=name).info
        self._client.log_text(parent.run_id, f"name: {name}\nquestion: {question}\n", "grid.yaml")
        self._client.log_text(parent.run_id, json.dumps(provenance), "provenance.json")
        self._client.log_text(parent.run_id, json.dumps([run.plan_entry() for run in runs]), "plan.json")
        for number, run in enumerate(run for run in runs if run.status != "missing"):
            self._child(experiment, parent.run_id, name, run, epochs, start_ms + 1000 * number, images)
        self._client.set_terminated(parent.run_id, "FINISHED", end_time=start_ms + 1000 * (len(runs) + 9))

    def _child(
        self, experiment: str, parent: str, grid: str, run: Planned, epochs: int, start_ms: int, images: bool
    ) -> None:
        from mlflow.entities import Metric, Param

        identity = {name: getattr(run, name) for name in ("estimator", "schedule", "device", "seed")}
        identity |= {"run_key": run.key, "grid": grid}
        tags = {name: str(value) for name, value in identity.items()}
        tags |= {"harness.kind": "run", "harness.sweep": parent, "harness.label": run.label}
        tags |= {"mlflow.parentRunId": parent, "harness.status": run.status}
        if run.error:
            tags["harness.error"] = run.error
        name = f"{run.label} · seed {run.seed}"
        run_id = self._client.create_run(experiment, start_time=start_ms, tags=tags, run_name=name).info.run_id
        params = {"training.lr": 0.001, "training.epochs": epochs, "training.grad_clip": None, "model.n_latents": 20}
        params |= {"evaluation.bound_samples": 100, "data.name": "mnist-mini"} | dict(run.params)
        params |= {f"estimator.{name}": value for name, value in run.estimator_params.items()}
        metrics = final_metrics(run) if run.status == "finished" else {}
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, start_ms + 900, epochs) for name, value in metrics.items()],
            params=[Param(name, str(value)) for name, value in (params | identity).items()],
        )
        if run.status != "skipped":
            self._client.log_text(run_id, json.dumps(history(run, epochs)), "history.json")
        if images and run.status == "finished":
            folder = Path(self._client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "images"
            folder.mkdir(parents=True, exist_ok=True)
            for kind in ("originals", "reconstructions", "prior_samples"):
                (folder / f"{kind}.png").write_bytes(png(run, kind))
        status = {"finished": "FINISHED", "running": "RUNNING", "interrupted": "KILLED"}.get(run.status, "FAILED")
        if status != "RUNNING":
            self._client.set_terminated(run_id, status, end_time=start_ms + 900)


def main_grid(n_seeds: int = 3) -> list[Planned]:
    """Four estimators with a temperature and one without × two schedules × seeds; one run of each bad kind."""
    runs = [
        Planned(estimator, schedule, seed)
        for estimator in ("straight_through", "gumbel_softmax", "st_gumbel_softmax")
        for schedule in SCHEDULES
        for seed in range(n_seeds)
    ]
    runs += [Planned("rloo", "none", seed, estimator_params={"n_samples": 4}) for seed in range(n_seeds)]
    ends = {
        0: ("diverged", "loss was nan at step 211"),
        1: ("failed", "RuntimeError: out of memory <b>on</b> & off"),
        2: ("missing", ""),
    }
    runs += [Planned("reinforce", "none", seed, status=ends[seed][0], error=ends[seed][1]) for seed in range(3)]
    reason = "cuda: no CUDA device is visible to torch 2.9.0 on this machine"
    runs += [Planned("gumbel_softmax", "constant", 0, device="cuda", status="skipped", error=reason)]
    return runs


def in_memory(planned: Sequence[Planned], *, epochs: int = 4, name: str = "demo", **sweep: Any) -> Runs:
    """What ``reports.load`` would give, without a store."""
    records = []
    for number, run in enumerate(planned):
        record: dict[str, Any] = {"run_id": "" if run.status == "missing" else f"{number:032x}", "run_key": run.key}
        record |= {name: getattr(run, name) for name in ("estimator", "schedule", "device", "seed", "label")}
        record |= {
            "name": f"{run.label} · seed {run.seed}",
            "status": run.status,
            "error": run.error,
            "sweep": "s",
            "shared_machine": True,
        }
        if run.status != "missing":
            start = pd.Timestamp(START_MS + 1000 * number, unit="ms", tz="UTC")
            record |= {"start": start, "end": start + pd.Timedelta(seconds=1), "training.lr": 0.001} | dict(run.params)
            record |= {"evaluation.bound_samples": 100, "model.n_latents": 20, "model.n_categories": 10}
            record |= {"schedule.tau": 1.0} if run.schedule == "constant" else {}
            record |= {"data.name": "mnist", "experiment": name, "experiment_id": "1"} | dict(run.params)
        if run.status == "finished":
            record |= final_metrics(run)
        records.append(record)
    frame = tidy(records)
    histories = {run.key: history(run, epochs) for run in planned if run.status not in ("missing", "skipped")}
    kinds = ("originals", "reconstructions", "prior_samples")
    images = {run.key: {kind: png(run, kind) for kind in kinds} for run in planned if run.status == "finished"}
    about = {"command": f"harness run --grid {name}.yaml", "provenance": PROVENANCE, "grid": f"name: {name}\n"} | sweep
    codes = {run.key: latents(run) for run in planned if run.status == "finished"}
    sweeps = (Sweep("s", **about),)
    return Runs(name, frame, history_frame(frame, histories), images, sweeps, latents=codes)


GRADIENT_METRICS = (
    "relative_bias",
    "cosine",
    "snr",
    "variance",
    "encoder/relative_bias",
    "encoder/cosine",
    "encoder/snr",
)


def planned(*names, seeds=(0,), **more):
    schedule = {"rloo": "none", "reinforce": "none"}
    return [Planned(name, schedule.get(name, "constant"), seed, **more) for name in names for seed in seeds]


def with_diagnostics():
    """Runs with diagnostics after the epochs 1 and 4: own and one other, formulas of seed and epoch."""
    found = in_memory([*planned("rloo", seeds=range(3)), Planned("gumbel_softmax", "constant", 0)])
    history = found.history.copy()
    at = history["epoch"].isin((1, 4))
    for measured, shift in (("own", 0.0), ("reinmax-tau-1-note-2", 0.5)):
        for metric in GRADIENT_METRICS:
            history.loc[at, f"gradient/{measured}/{metric}"] = (
                shift + 0.1 * history["seed"].astype(float) + history["epoch"]
            )
        history.loc[at, f"gradient/{measured}/evaluations"] = 4
    history.loc[at, "gradient/truth_error"] = 0.0
    planned_runs = found.runs.assign(**{"diagnostics.basket": "straight_through, reinmax(tau=1, note=2)"})
    return dataclasses.replace(found, history=history, runs=planned_runs)
