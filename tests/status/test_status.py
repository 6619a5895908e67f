"""`harness status`: finished, running and remaining runs, and the JSON document for scripts."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import harness
from rich.console import Console

from estimators import REGISTRY
from harness.events import Diverged, EpochDone, Event, Failed, Finished, Interrupted, Record, Started
from harness.grid.load import Grid, load_grid
from harness.status import json_document
from harness.status import sweep_status as status
from harness.storage import lease, plan
from harness.storage.journal import Journal
from harness.storage.lease import Lease
from harness.storage.sweep_state import Sweep, read_status, read_sweep

GRID = """\
name: asked
data: {train_size: 100}
model: {n_latents: 3, n_categories: 4, hidden: [16]}
training: {epochs: 10, batch_size: 50}
evaluation: {bound_samples: 2, n_images: 0}
estimators: [straight_through, gumbel_softmax, rloo]
seeds: [0, 1, 2]
"""
FACTS = {"source_sha256": "a", "git_commit": "c", "git_dirty": False, "packages": {"torch": "2", "argmax-harness": "1"}}


class Asked:
    """A sweep of nine runs with a journal of one's own making; times are seconds since its start."""

    def __init__(self, folder: Path) -> None:
        self.path, self.out = folder / "asked.yaml", folder / "results"
        self.path.write_text(GRID)
        self.grid: Grid = load_grid(self.path, REGISTRY)
        (self.out / "asked").mkdir(parents=True)
        plan.save_plan(self.out / "asked", self.grid, plan.plan_fingerprint())

    def write(self, *history: tuple[int, float, Event]) -> None:
        with Journal(self.out / "asked") as journal:
            for index, second, event in history:
                journal.append(Record(self.grid.runs[index].key, int(second * 1000), event))

    def quick(self) -> Sweep:
        found = read_status(self.path, self.out, ())
        assert found is not None
        return found

    def built(self) -> Sweep:
        return read_sweep(self.grid, self.out)

    def read(self, sweep: Sweep) -> status.Status:
        return status.sweep_status(sweep, self.path, self.out, ())


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr("time.time_ns", lambda: 70_000 * 1_000_000)
    return Asked(tmp_path)


def epoch(number: int) -> EpochDone:
    return EpochDone(number, number * 2, float(number), {"train/loss": 200.0})


def a_day() -> Iterator[tuple[int, float, Event]]:
    """Return two finished runs, a failed, a diverged, a running, a resumed one, and one without an epoch."""
    for index, begun, value in ((0, 0, 100.0), (1, 0, 102.0)):
        yield index, begun, Started(FACTS)
        yield from ((index, begun + 2 * n, epoch(n)) for n in range(1, 11))
        yield index, begun + 20, Finished(20, {"test/neg_elbo": value, "time/total_s": 19.0, "test/kl": 3.0})
    yield 2, 20, Started(FACTS)
    yield 2, 22, epoch(1)
    yield 2, 23, Failed("ValueError: no (x.py:3)", "Traceback (most recent call last):\n  File …\nValueError: no")
    yield 3, 20, Started(FACTS)
    yield 3, 21, Diverged(1, "loss is nan")
    yield 4, 24, Started(FACTS)
    yield from ((4, 24 + 2 * n, epoch(n)) for n in range(1, 4))
    yield 4, 31, Interrupted("stopped after epoch 3")
    yield 4, 50, Started(FACTS)
    yield 4, 56, epoch(4)
    yield 4, 60, epoch(5)
    yield 4, 64, epoch(6)
    yield 5, 60, Started(FACTS)
    yield 5, 67, epoch(1)
    yield 6, 69, Started(FACTS)


def shown(asked: Asked, sweep: Sweep, width: int = 80, **options: Any) -> str:
    out = io.StringIO()
    status.show(Console(file=out, width=width), asked.read(sweep), **options)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


IN_PROGRESS = """\
in progress                              epoch    started  last epoch  left
gumbel_softmax · constant(1) · seed 1     6/10   20 s ago   6.0 s ago  10 s
rloo · seed 1                             1/10   10 s ago   3.0 s ago     …
straight_through · constant(1) · seed 2   0/10  1.0 s ago           –     …
The whole sweep needs about 28 s more with 3 runs at a time.
test −ELBO, nats per image (lower is better)
setting                           mean  ± 95 %  seeds  vs best  ± 95 %
gumbel_softmax · constant(1)    102.00       –    1/3     best
straight_through · constant(1)  100.00       –    1/3    -2.00       –
  1 diverged
rloo                                 –       –    0/3        –
  1 failed
One seed: no interval (–), and the order may be chance.
Settings with failed or diverged runs rank after all others.
3 running, 2 finished, 2 planned, 1 failed, 1 diverged.
failed: ValueError: no (x.py:3) (rloo · seed 0)
diverged: loss is nan (straight_through · constant(1) · seed 1)
"""


def test_running_runs_are_listed_by_name(asked: Asked) -> None:
    asked.write(*a_day())
    with Lease(asked.out / "asked"):
        text = shown(asked, asked.quick())
    assert text.startswith("driven by ")
    # an epoch of what finished took 2 s: 10 + 15 + 19 s are left of these three and 20 each of two that wait, by three
    # at once; the first epoch of a run is no measure of its others
    assert text.partition("\n")[2].partition("next: ")[0] == IN_PROGRESS
    assert "next: harness report --experiment asked" in text
    assert "next: harness run" not in text


@pytest.mark.parametrize("driven", [True, False])
def test_the_outline_of_a_journal_gives_the_status_of_all_epochs(asked: Asked, driven: bool) -> None:
    asked.write(*a_day())
    if driven:
        with Lease(asked.out / "asked"):
            found = [status.to_text(asked.read(sweep)) for sweep in (asked.quick(), asked.built())]
    else:
        found = [status.to_text(asked.read(sweep)) for sweep in (asked.quick(), asked.built())]
    quick, built = ({k: v for k, v in json.loads(text).items() if k != "driver"} for text in found)
    assert quick == built
    assert [run["epoch"] for run in quick["runs"]] == [10, 10, None, None, 6, 1, 0, 0, 0]


def test_without_a_driver_the_commands_to_resume_and_retry_are_shown(asked: Asked) -> None:
    asked.write(*a_day())
    text = shown(asked, asked.quick())
    grid = f"--grid {asked.path} --out {asked.out}"
    assert f"next: harness run {grid}\n" in text
    assert f"next: harness run {grid} --retry failed\n" in text
    assert f"next: harness status {grid} --tracebacks (in MLflow: error.txt of the run)\n" in text
    assert f"next: harness report --experiment asked --from {asked.out}\n" in text
    assert "interrupted: no driver is alive; run the sweep again to continue (gumbel_softmax" in text
    assert "in progress" not in text
    assert "at a time" not in text


def test_tracebacks_are_shown_when_asked_for(asked: Asked) -> None:
    asked.write(*a_day())
    assert "File …\nValueError: no" not in shown(asked, asked.quick())
    text = shown(asked, asked.quick(), tracebacks=True)
    assert "rloo · seed 0\nTraceback (most recent call last):\n" in text


def test_a_sweep_that_has_not_begun(asked: Asked) -> None:
    assert shown(asked, asked.built()) == f"9 planned.\nnext: harness run --grid {asked.path} --out {asked.out}\n"


RUN = {
    "key": str, "name": str, "setting": str, "seed": int, "status": str, "epoch": int, "n_epochs": int,
    "value": float, "seconds": float, "error": str, "traceback": str, "since_start_s": float, "since_epoch_s": float,
    "left_s": float, "selected": bool,
}  # fmt: skip
MEAN = {"n": int, "mean": float, "low": float, "high": float}
LEVEL = {
    "rank": int, "task": str, "metric": str, "better": str, "setting": str, "n_planned": int, "n_failed": int,
    "n_diverged": int, **MEAN, "difference": dict,
}  # fmt: skip
DIFFERENCE = {"to": str, **MEAN, "excludes_zero": bool}
TOP = {
    "schema": int, "sweep": str, "folder": str, "driver": dict, "counts": dict, "seconds_left": float, "metric": str,
    "confidence": float, "ranking": list, "next": list, "runs": list,
}  # fmt: skip
NULLABLE = {"epoch", "value", "seconds", "error", "traceback", "since_start_s", "since_epoch_s", "left_s", "mean",
            "low", "high", "difference", "driver", "seconds_left", "excludes_zero", "forecast"}  # fmt: skip


def check(found: dict[str, Any], expected: dict[str, type]) -> None:
    assert list(found) == list(expected)
    for name, value in found.items():
        assert isinstance(value, expected[name]) or (name in NULLABLE and value is None), (name, value)


def check_document(text: str, **more: type) -> dict[str, Any]:
    """The schema of docs/json.md."""
    found: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert text.isascii()
    first = ("schema", "sweep", "folder")
    check(found, {name: TOP[name] for name in first} | more | {n: t for n, t in TOP.items() if n not in first})
    assert found["schema"] == 1
    assert list(found["counts"]) == ["total", *json_document.STATUSES]
    assert (
        found["counts"]["total"] == sum(found["counts"][name] for name in json_document.STATUSES) == len(found["runs"])
    )
    for run in found["runs"]:
        check(run, RUN)
    for level in found["ranking"]:
        check(level, LEVEL)
        if level["difference"] is not None:
            check(level["difference"], DIFFERENCE)
    return found


def test_the_document_has_its_schema_and_unrounded_numbers(asked: Asked) -> None:
    asked.write(*a_day())
    with Lease(asked.out / "asked"):
        found = check_document(status.to_text(asked.read(asked.quick())))
    assert found["driver"]["pid"] == os.getpid()
    assert found["counts"]["running"] == 3
    assert found["seconds_left"] == pytest.approx(28.0)
    by_name = {level["setting"]: level for level in found["ranking"]}
    assert by_name["straight_through · constant(1)"]["mean"] == 100.0
    assert by_name["straight_through · constant(1)"]["n_diverged"] == 1
    assert by_name["rloo"]["mean"] is None
    live = found["runs"][4]
    assert (live["status"], live["epoch"], live["since_start_s"], live["since_epoch_s"]) == ("running", 6, 20.0, 6.0)
    assert live["left_s"] == 4 * 4.0 - 6.0
    assert found["runs"][2]["error"] == "ValueError: no (x.py:3)"
    assert found["runs"][2]["traceback"].startswith("Traceback")


def test_a_document_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_document.to_text({"value": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        json_document.to_text({"values": [{"value": float("inf")}]})


def test_a_damaged_lease_counts_as_a_driver(asked: Asked) -> None:
    asked.write(*a_day())
    (asked.out / "asked" / "driver.json").write_bytes(b"damaged")
    assert lease.holder(asked.out / "asked") is not None
    check_document(status.to_text(asked.read(asked.quick())))


def test_run_status_and_plan_print_one_document(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "asked.yaml"
    path.write_text(GRID.replace("epochs: 10", "epochs: 1").replace("[0, 1, 2]", "[0, 1]"))
    here = ("--grid", path, "--out", out)
    plan = harness("run", *here, "--dry-run", "--json", "--only", "estimator=rloo")
    assert (plan.returncode, plan.stderr) == (0, "")
    planned = check_document(plan.stdout, forecast=dict, notes=list)
    assert [run["selected"] for run in planned["runs"]] == [run["setting"] == "rloo" for run in planned["runs"]]
    assert planned["forecast"]["n_runs"] == 2
    assert planned["forecast"]["seconds"] > planned["forecast"]["start_s"] > 0
    assert planned["next"] == [f"harness run --grid {path} --out {out} --only estimator=rloo"]
    done = harness("run", *here, "--json", "--workers", 2)
    assert done.returncode == 0, done.stderr
    ran = check_document(done.stdout, exit_code=int)
    assert (ran["exit_code"], ran["counts"]["finished"]) == (0, 6)
    assert "6 finished." in done.stderr
    assert ran["next"] == [f"harness report --experiment asked --from {out}"]
    asked = check_document(harness("status", *here, "--json").stdout)
    assert asked["ranking"] == ran["ranking"]
    assert [run["value"] for run in asked["runs"]] == [run["value"] for run in ran["runs"]]
    refused = harness("run", "--grid", tmp_path / "none.yaml", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
