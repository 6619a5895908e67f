"""Runs that crash, hang or take too much memory, with an executor that answers from a script."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from executors import DONE, SOON, Scripted

from harness.config import RunConfig, TrainingConfig
from harness.events import EpochDone, Failed, Finished, Interrupted, Record, Started
from harness.execution import memory_guard
from harness.execution.dispatch import Dispatch
from harness.execution.executor import Job
from harness.execution.local_executor import LocalExecutor
from harness.execution.memory_guard import MemoryGuard
from harness.options import Policy, SavingEvery

Make = Callable[..., RunConfig]


def play(scripts: list[list[list[object]]], policy: Policy, make: Make) -> tuple[Scripted, list[Record], list[str]]:
    runs = [make(seed=seed) for seed in range(len(scripts))]
    executor = Scripted({run.key: script for run, script in zip(runs, scripts, strict=True)})
    records = list(Dispatch(executor, policy, Job).records(runs))
    return executor, records, [run.key for run in runs]


def test_runs_that_wait_for_a_device_do_not_block_others(tiny_run: Make) -> None:
    on_gpu = [tiny_run(seed=seed, device="cuda") for seed in range(3)]
    on_cpu = [tiny_run(seed=seed) for seed in range(2)]
    scripts: dict[str, list[list[object]]] = {run.key: [[Started({}), DONE]] for run in (*on_gpu, *on_cpu)}
    executor = Scripted(scripts)
    records = list(Dispatch(executor, SOON, Job).records([*on_gpu, *on_cpu]))
    assert sum(isinstance(record.event, Finished) for record in records) == 5
    first, second, *_ = executor.submitted
    assert (first, second) == (on_gpu[0].key, on_cpu[0].key)  # the GPU has one place, the CPUs one more
    assert [key for key in executor.submitted if key in {run.key for run in on_gpu}] == [run.key for run in on_gpu]


def test_a_crash_is_retried_and_counted(tiny_run: Make) -> None:
    scripts: list[list[list[object]]] = [[[Started({}), "it died"], ["the node died"], [Started({}), DONE]], [[DONE]]]
    executor, records, (key, other) = play(scripts, SOON, tiny_run)
    events = [r.event for r in records if r.run_key == key]
    assert events == [
        Started({}),
        Interrupted("it died; retry 1 of 2 in 0 s", retrying=True),
        Interrupted("the node died; retry 2 of 2 in 0 s", retrying=True),
        Started({}),
        DONE,
    ]
    assert executor.submitted.count(key) == 3
    assert executor.submitted.count(other) == 1


def test_a_run_fails_after_its_last_retry(tiny_run: Make) -> None:
    _, records, _ = play([[["a"], ["b"], ["c"]]], SOON, tiny_run)
    assert records[-1].event == Failed("c", crashed=True)
    assert len(records) == 3


def test_an_exception_is_not_retried_but_running_out_of_memory_is(tiny_run: Make) -> None:
    out_of_memory = Failed("MemoryError: (x.py:1)", "…", crashed=True)
    scripts: list[list[list[object]]] = [[[Failed("ValueError: no")]], [[out_of_memory], [DONE]]]
    executor, records, (raises, greedy) = play(scripts, SOON, tiny_run)
    assert [r.event for r in records if r.run_key == raises] == [Failed("ValueError: no")]
    assert [r.event for r in records if r.run_key == greedy] == [
        Interrupted("MemoryError: (x.py:1); retry 1 of 2 in 0 s", retrying=True),
        DONE,
    ]
    assert executor.submitted.count(raises) == 1


def test_the_pause_between_retries_grows(tiny_run: Make) -> None:
    policy = Policy(retries=3, pause_s=0.1)
    begun = time.monotonic()
    _, records, _ = play([[["a"], ["a"], ["a"], [DONE]]], policy, tiny_run)
    assert time.monotonic() - begun > 0.1 + 0.2 + 0.4
    assert [getattr(r.event, "error", "")[-8:] for r in records[:3]] == ["in 0.1 s", "in 0.2 s", "in 0.4 s"]


def test_a_run_that_takes_too_long_is_stopped_and_others_continue(tiny_run: Make) -> None:
    scripts: list[list[list[object]]] = [[[Started({})]], [[Started({}), DONE]], [[DONE]]]
    executor, records, (slow, *_) = play(scripts, Policy(time_limit_s=0.1), tiny_run)
    assert executor.killed == [slow]
    (end,) = [r.event for r in records if r.run_key == slow and not isinstance(r.event, Started)]
    assert isinstance(end, Failed)
    assert end.crashed
    assert "took longer than the time limit of 0.1 s" in end.error
    assert sum(isinstance(r.event, Finished) for r in records) == 2


def test_a_stop_starts_no_more_runs_and_waits_for_those_in_progress(tiny_run: Make) -> None:
    runs = [tiny_run(seed=seed) for seed in range(5)]
    executor = Scripted({run.key: [[Started({}), EpochDone(1, 1, 0.1, {})]] for run in runs})
    dispatch = Dispatch(executor, SOON, Job)
    kinds = []
    for record in dispatch.records(runs):
        kinds.append(record.event.kind)
        if record.event.kind == "epoch":
            dispatch.stop()
    assert executor.stopped
    assert len(executor.submitted) == 2
    assert kinds.count("interrupted") == 2


def test_a_crash_while_stopping_is_neither_a_failure_nor_retried(tiny_run: Make) -> None:
    run = tiny_run()
    executor = Scripted({run.key: [[Started({}), "killed too"]]})
    dispatch = Dispatch(executor, SOON, Job)
    events = []
    for record in dispatch.records([run]):
        events.append(record.event)
        dispatch.stop()
    assert events[-1] == Interrupted("killed too")


@pytest.fixture
def looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_guard, "LOOK_EVERY_S", 0.0)


@pytest.mark.usefixtures("looks_always")
def test_a_run_above_the_memory_limit_is_stopped_for_good(tiny_run: Make) -> None:
    greedy, small = tiny_run(seed=0), tiny_run(seed=1)
    executor = Scripted(
        {greedy.key: [[Started({})]], small.key: [[Started({}), DONE]]}, {greedy.key: 5 * 10**9, small.key: 10**9}
    )
    records = list(Dispatch(executor, Policy(memory_limit=4e9), Job).records([greedy, small]))
    assert executor.killed == [greedy.key]
    (end,) = [r.event for r in records if isinstance(r.event, Failed)]
    assert end.error.startswith("used 5,000 MB of memory, more than the limit of 4,000 MB")
    assert end.crashed


@pytest.mark.usefixtures("looks_always")
def test_on_a_machine_short_of_memory_the_largest_run_waits(tiny_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = tiny_run(seed=0), tiny_run(seed=1)
    executor = Scripted({large.key: [[Started({})], [DONE]], small.key: [[Started({})]]}, {large.key: 9, small.key: 1})
    free = iter([10**12, 10**12, 10**12, 10])
    monkeypatch.setattr(memory_guard, "available", lambda: next(free, 10**12))

    def events() -> Iterator[Record]:
        for record in Dispatch(executor, Policy(retries=0, pause_s=0.0), Job).records([large, small]):  # costs no try
            if executor.killed:
                executor.ready.append(Record.now(small.key, DONE))
                executor.killed.clear()
                assert record.run_key == large.key
                assert re.search(
                    "of memory were left; .* it resumes when memory is free$", getattr(record.event, "error", "")
                )
            yield record

    ends = {record.run_key: record.event for record in events()}
    assert ends == {large.key: DONE, small.key: DONE}


@pytest.mark.usefixtures("looks_always")
def test_the_only_run_continues_though_other_programs_use_the_memory(
    tiny_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run()
    executor = Scripted({run.key: [[Started({}), EpochDone(1, 1, 0.1, {}), DONE]]}, {run.key: 9})
    monkeypatch.setattr(memory_guard, "available", lambda: 10)
    events = [record.event for record in Dispatch(executor, SOON, Job).records([run])]
    assert events[-1] == DONE
    assert not executor.killed


def test_the_memory_of_this_machine_is_read() -> None:
    assert 10**8 < memory_guard.available() < 10**14
    assert MemoryGuard(None).over_limit(dict) is None


def test_the_memory_of_a_container_is_limited_by_its_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_guard, "_GROUP", tmp_path)
    for name, text in (("max", "5000"), ("current", "4000"), ("stat", "anon 1\ninactive_file 300\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory_guard.available() == 1300
    (tmp_path / "memory.max").write_text("max")
    assert memory_guard.available() > 10**6


def test_real_workers_stop_after_their_epoch_with_a_checkpoint(tiny_run: Make) -> None:
    run = tiny_run(training=TrainingConfig(epochs=2000, batch_size=20))
    executor = LocalExecutor(workers=1, saving=SavingEvery(epochs=5))
    executor.start(1)
    dispatch = Dispatch(executor, SOON, Job)
    kinds = []
    try:
        for record in dispatch.records([run]):
            kinds.append(record.event.kind)
            if kinds.count("epoch") == 12:
                dispatch.stop()
    finally:
        executor.close()
    assert kinds[-2:] == ["checkpoint", "interrupted"]
    assert kinds.count("checkpoint") >= 3
    assert kinds.count("epoch") < 1000
