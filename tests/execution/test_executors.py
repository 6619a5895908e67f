"""The local executor with real worker processes: reuse, failures, death."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness.config import RunConfig
from harness.events import EpochDone, Failed, Finished, Record, Started
from harness.execution.dispatch import Dispatch
from harness.execution.executor import Job
from harness.execution.local_executor import LocalExecutor
from harness.execution.worker import train_to_records
from harness.options import Policy
from harness.train import train

Make = Callable[..., RunConfig]

PLUGIN = """
import os
from estimators import Pathwise


class Raises(Pathwise):
    '''Raises at its first use.'''

    name = "raises"
    relaxes = False

    def __init__(self): super().__init__()

    def sample(self, logits_BLK):
        raise RuntimeError("a user's mistake\\nin two lines")


class Dies(Pathwise):
    '''Takes its process with it, as a crash or the out-of-memory killer does.'''

    name = "dies"
    relaxes = False

    def __init__(self): super().__init__()

    def sample(self, logits_BLK):
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "bad_estimators.py"
    path.write_text(textwrap.dedent(PLUGIN))
    return path


ONCE = Policy(retries=0)


def compute(executor: LocalExecutor, runs: list[RunConfig], policy: Policy = ONCE) -> list[Record]:
    executor.start(len(runs))
    try:
        return list(Dispatch(executor, policy, Job).records(runs))
    finally:
        executor.close()


def renamed(run: RunConfig, name: str) -> RunConfig:
    return run.model_copy(update={"estimator": run.estimator.model_copy(update={"name": name})})


def metrics(records: list[Record], run: RunConfig) -> list[dict[str, float]]:
    mine = [r.event for r in records if r.run_key == run.key]
    found = [e.metrics for e in mine if isinstance(e, EpochDone | Finished)]
    return [{k: v for k, v in m.items() if not k.startswith(("time/", "memory/"))} for m in found]


def test_a_failed_run_and_a_dead_worker_affect_no_other_run(tiny_run: Make, plugin: Path) -> None:
    good = [tiny_run(seed=seed) for seed in range(3)]
    raises, dies = renamed(tiny_run("reinforce"), "raises"), renamed(tiny_run("rloo"), "dies")
    executor = LocalExecutor(workers=2, plugins=[plugin])
    records = compute(executor, [good[0], raises, dies, good[1], good[2]])

    ends = {r.run_key: r.event for r in records if isinstance(r.event, Finished | Failed)}
    assert len(ends) == 5
    assert all(isinstance(ends[run.key], Finished) for run in good)
    failed, died = ends[raises.key], ends[dies.key]
    assert isinstance(failed, Failed)
    assert failed.error.startswith("RuntimeError: a user's mistake (bad_estimators.py:")
    assert "in two lines" in failed.traceback
    assert isinstance(died, Failed)
    assert died.error == "worker process died (SIGKILL, out of memory?)"
    assert (failed.crashed, died.crashed) == (False, True)

    starts = [record.event for record in records if isinstance(record.event, Started)]
    assert {started.provenance["threads"] for started in starts} == {1}
    here = [Record.now(good[1].key, event) for event in train(good[1], REGISTRY)]
    assert metrics(records, good[1]) == metrics(here, good[1])  # the same numbers, whatever the process


def test_closing_stops_the_workers(tiny_run: Make) -> None:
    executor = LocalExecutor(workers=1)
    executor.start(1)
    executor.submit(Job(tiny_run()))
    process = executor._pool[0].process
    executor.close()
    assert not process.is_alive()


def test_an_exception_becomes_a_record(tiny_run: Make) -> None:
    records = list(train_to_records(Job(renamed(tiny_run(), "unknown")), REGISTRY))
    end = records[-1].event
    assert isinstance(end, Failed)
    assert "got 'unknown'" in end.error


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"workers": 1, "threads": 0}])
def test_impossible_sizes_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected workers and threads >= 1"):
        LocalExecutor(**arguments)
