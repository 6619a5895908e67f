"""What the terminal shows, at 80 columns."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.config import RunConfig, TrainingConfig
from harness.events import EpochDone, Event, Failed, Finished, Interrupted, Record, Skipped, Started
from harness.grid.load import Grid
from harness.provenance import provenance
from harness.status.next_commands import NextCommand
from harness.status.progress import ECHO, LiveProgress, PlainProgress
from harness.status.terminal_summary import unfinished
from harness.storage.sweep_state import Sweep, describe_code
from harness.sweep.run import warn_of_other_code
from harness.units import duration

Make = Callable[..., RunConfig]


@pytest.fixture
def runs(tiny_run: Make) -> list[RunConfig]:
    return [tiny_run(name, seed=seed) for seed in range(2) for name in ("straight_through", "gumbel_softmax", "rloo")]


def sweep_of(runs: list[RunConfig]) -> Sweep:
    return Sweep(Grid(name="g", runs=tuple(runs), text=""), Path("g"), tuple(runs))


def finished(value: float) -> Finished:
    return Finished(8, {"test/neg_elbo": value, "time/total_s": 3.0})


def play(progress: PlainProgress | LiveProgress, sweep: Sweep, runs: list[RunConfig]) -> None:
    progress.start(sweep, runs)
    epoch = EpochDone(1, 4, 0.5, {"train/loss": 200.0, "val/loss": 190.0})
    ends: list[Event] = [finished(10), finished(12), Failed("ValueError: no (x.py:3)"), finished(11), finished(12.5)]
    for run, end in zip(runs, [*ends, Skipped("cuda: none here")], strict=True):
        for event in (Started({}), epoch, end):
            progress.show(Record.now(run.key, event))
        sweep.ends[run.key] = end
    progress.finish(
        sweep, None, [NextCommand("harness report --experiment g"), NextCommand("harness run", "the same again")]
    )


def test_plain_lines_say_what_ended_and_rank_the_settings(runs: list[RunConfig]) -> None:
    out = io.StringIO()
    play(PlainProgress(Console(file=out, width=80)), sweep_of(runs), runs)
    text = "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
    assert "[1/6] finished: straight_through · constant(1) · seed 0: test −ELBO 10.00 in 3.0 s" in text
    assert "[3/6] failed: rloo · seed 0: ValueError: no (x.py:3)" in text
    assert text[text.index("test −ELBO, nats") :] == OUTCOME


OUTCOME = """\
test −ELBO, nats per image (lower is better)
setting                          mean  ± 95 %  seeds  vs best  ± 95 %
straight_through · constant(1)  10.50    6.35    2/2     best
gumbel_softmax · constant(1)    12.25    3.18    2/2    +1.75    3.18  ?
rloo                                –       –    0/2        –
  1 failed
? These seeds cannot tell it from the best: the interval contains 0.
Settings with failed or diverged runs rank after all others.
4 finished, 1 failed, 1 skipped.
failed: ValueError: no (x.py:3) (rloo · seed 0)
skipped: cuda: none here (rloo · seed 1)
next: harness report --experiment g
next: the same again
"""


def test_live_table_fits_and_shows_epoch_loss_and_time_left(runs: list[RunConfig]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    progress = LiveProgress(console)
    sweep = sweep_of(runs)
    progress.start(sweep, runs)
    key = runs[0].key
    progress.show(Record(key, 1_000, Started({})))
    progress.show(Record(runs[1].key, 1_000, Started({})))
    progress.show(Record(key, 31_000, EpochDone(1, 4, 0.5, {"train/loss": 200.04, "val/loss": 190.0})))
    with console.capture() as capture:
        console.print(progress._render())
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= 80 - ECHO
    assert "1/2  200.0  190.0     …" in shown  # the first epoch is no measure of the others
    assert "0/2" in shown
    assert "0/6" in shown
    progress.finish(sweep, None)


def test_a_live_table_of_more_runs_than_lines_keeps_its_bar(tiny_run: Make) -> None:
    many = [tiny_run(seed=seed) for seed in range(40)]
    progress = LiveProgress(Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None))
    progress.start(sweep_of(many), many)
    for run in many:
        progress.show(Record(run.key, 1_000, Started({})))
    out = io.StringIO()
    Console(file=out, width=80).print(progress._render())
    lines = out.getvalue().splitlines()
    assert len(lines) == 23
    assert lines[-2].rstrip() == "… and 20 more"
    assert "0/40" in lines[-1]
    progress.close()


def test_the_time_left_of_a_resumed_run_counts_remaining_epochs_only(runs: list[RunConfig]) -> None:
    run = runs[0].model_copy(update={"training": TrainingConfig(epochs=100)})
    sweep = sweep_of([run])
    for event in (Started({}), *(EpochDone(epoch, epoch, 0.0, {}) for epoch in range(1, 91)), Interrupted("killed")):
        sweep.add(Record(run.key, 1_000, event))
    progress = LiveProgress(Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None))
    progress.start(sweep, [run])
    progress.show(Record(run.key, 10_000, Started({})))
    for epoch, row in ((91, "91/100      –    –     …"), (92, "92/100      –    –  40 s")):
        progress.show(Record(run.key, (epoch - 90) * 5_000 + 10_000, EpochDone(epoch, epoch, 0.0, {})))
        with progress.console.capture() as capture:
            progress.console.print(progress._render())
        assert row in capture.get()
    progress.close()


def test_the_bar_waits_for_evidence_but_not_for_failed_runs(
    runs: list[RunConfig],
) -> None:
    progress = LiveProgress(Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None))
    sweep = sweep_of(runs[:3])
    progress.start(sweep, runs[:3])

    def show(index: int, second: int, event: Event) -> str:
        record = Record(runs[index].key, second * 1000, event)
        sweep.add(record)
        progress.show(record)
        return progress.remaining(second * 1000)

    start = Started({"source_sha256": "a", "git_commit": "c", "git_dirty": False, "packages": {"torch": "2"}})
    assert show(0, 10, start) == "…"
    assert show(0, 12, EpochDone(1, 4, 0.5, {})) == "…"
    assert show(0, 13, EpochDone(2, 8, 0.5, {})) == "about 4.0 s left"  # two runs of two epochs, as far as is known
    assert show(0, 20, finished(10)) == "…"  # nothing runs just now
    assert show(1, 20, start) == "about 20 s left"
    assert show(1, 25, Failed("ValueError: no")) == "…"
    assert show(2, 25, start) == "about 10 s left"
    progress.close()


def test_finished_runs_of_other_code_are_noted(runs: list[RunConfig]) -> None:
    out = io.StringIO()
    sweep = sweep_of(runs)
    here = provenance()
    sweep.code_by_run = {runs[0].key: describe_code(here)}
    warn_of_other_code(sweep, PlainProgress(Console(file=out, width=80)))
    assert out.getvalue() == ""
    sweep.code_by_run |= {
        run.key: describe_code(here | {"git_commit": "0123456789abcdef", "git_dirty": False}) for run in runs[1:3]
    }
    warn_of_other_code(sweep, PlainProgress(Console(file=out, width=80)))
    assert out.getvalue().startswith("note: 2 finished runs come from 0123456789ab, torch ")
    assert out.getvalue().count("\n") == 1


def test_runs_that_did_not_finish_are_grouped_by_reason(runs: list[RunConfig]) -> None:
    sweep = sweep_of(runs)
    for run in runs[:3]:
        sweep.ends[run.key] = Skipped("cuda: none here")
    assert unfinished(sweep) == [f"skipped: cuda: none here ({runs[0].name} and 2 more)"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (45, "45 s"), (600, "10 min"), (9000, "2.5 h"), (0, "0.0 s")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
