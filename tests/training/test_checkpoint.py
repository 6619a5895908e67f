"""Checkpoints: a run that was interrupted and resumed ends with the same bits as one that was not."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cut_runs import cut_after, without_times

from estimators import REGISTRY
from harness.config import DiagnosticsConfig, ModelConfig, RunConfig, TrainingConfig
from harness.events import Checkpoint, EpochDone, Event, Finished, Interrupted, Record, Started
from harness.schedules import Exponential, Learned
from harness.storage import checksummed_file
from harness.storage.attempt import Attempt
from harness.storage.checkpoint_files import CheckpointFiles
from harness.train import train
from harness.training.checkpoint import split_label
from harness.training.run_controls import RunControls

Make = Callable[..., RunConfig]


def assert_the_same_however_often_cut(run: RunConfig) -> None:
    whole = without_times(train(run, REGISTRY))
    first, checkpoint = cut_after(run, 1)
    torch.manual_seed(12345)  # another run has used the process meanwhile
    second, checkpoint = cut_after(run, 2, checkpoint)
    torch.rand(7)
    last = list(train(run, REGISTRY, checkpoint))
    assert without_times(first) + without_times(second) + without_times(last) == whole


DIFFERENT = (
    "aimle",
    "straight_through",
    "gumbel_softmax",
    "rloo",
    "reinforce_ema",
    "nvil",
    "rebar",
    "relax",
    "double_cv",
)
"""Estimators with a state, and one of each kind without; of the others, `check_state` says that they have none."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in DIFFERENT)) for name in sorted(REGISTRY)]
)
def test_every_estimator_resumes_with_the_same_bits(name: str, tiny_run: Make) -> None:
    n_categories = 2 if name == "disarm" else 4
    model = ModelConfig(n_latents=3, n_categories=n_categories, hidden=(16,))
    assert_the_same_however_often_cut(tiny_run(name, model=model, training=TrainingConfig(epochs=3, batch_size=60)))


@pytest.mark.parametrize(
    "training",
    [
        TrainingConfig(epochs=3, batch_size=50, optimizer="sgd", momentum=0.9, lr_schedule="linear"),
        TrainingConfig(epochs=3, batch_size=50, optimizer="radam", lr_schedule="cosine", lr_warmup=2),
        TrainingConfig(epochs=3, batch_size=50, optimizer="adamw", weight_decay=0.1, grad_clip=0.5),
    ],
    ids=lambda training: training.optimizer,
)
def test_every_optimizer_resumes_with_the_same_bits(training: TrainingConfig, tiny_run: Make) -> None:
    assert_the_same_however_often_cut(tiny_run(training=training))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("gumbel_softmax", Exponential(initial=1.0, rate=0.05, floor=0.2, every=3)),
        ("gumbel_softmax", Learned(initial=1.0, lr=0.05)),
        ("rebar", Learned(initial=0.5, lr=0.05, through="variance")),
    ],
    ids=["exponential", "learned through the loss", "learned through the variance"],
)
def test_temperatures_resume_with_the_same_bits(name: str, schedule: object, tiny_run: Make) -> None:
    training = TrainingConfig(epochs=3, batch_size=50)
    assert_the_same_however_often_cut(tiny_run(name, schedule=schedule, training=training))


def test_a_run_with_diagnostics_resumes_with_the_same_bits(tiny_run: Make) -> None:
    settings = DiagnosticsConfig(every=1, resamples=64, probe=10)
    run = tiny_run("rloo", diagnostics=settings, training=TrainingConfig(epochs=3, batch_size=50))
    assert_the_same_however_often_cut(run)


@pytest.mark.slow
def test_a_compiled_run_resumes_with_the_same_bits(tiny_run: Make) -> None:
    assert_the_same_however_often_cut(tiny_run(training=TrainingConfig(epochs=3, batch_size=50, compile="on")))


def test_after_the_last_epoch_only_the_evaluation_is_left(tiny_run: Make) -> None:
    run = tiny_run()
    whole = without_times(train(run, REGISTRY))
    events, checkpoint = cut_after(run, run.training.epochs)
    rest = list(train(run, REGISTRY, checkpoint))
    assert not any(isinstance(event, EpochDone) for event in rest)
    assert without_times(events) + without_times(rest) == whole


def test_times_add_up_over_the_parts(tiny_run: Make) -> None:
    run = tiny_run(training=TrainingConfig(epochs=3, batch_size=50))
    first, checkpoint = cut_after(run, 2)
    before = [event.elapsed_s for event in first if isinstance(event, EpochDone)]
    *rest, end = train(run, REGISTRY, checkpoint)
    after = [event.elapsed_s for event in rest if isinstance(event, EpochDone)]
    assert before[0] < before[1] < after[0]
    assert isinstance(end, Finished)
    assert end.metrics["time/total_s"] == after[-1]


def test_saving_changes_nothing(tiny_run: Make) -> None:
    run = tiny_run()
    events = list(train(run, REGISTRY, None, RunControls(every_epochs=1)))
    assert [e.epoch for e in events if isinstance(e, Checkpoint)] == [1, 2]
    assert without_times(events) == without_times(train(run, REGISTRY))


@pytest.mark.parametrize("field", ["made_by", "run_key", "format"])
def test_a_checkpoint_of_other_code_is_not_resumed(field: str, tiny_run: Make) -> None:
    run = tiny_run()
    _, checkpoint = cut_after(run, 1)
    label, body = split_label(checkpoint)
    other = {"made_by": ["0123", "2.0"], "run_key": "0123456789abcdef", "format": 7}[field]
    changed = json.dumps(label._asdict() | {field: other}).encode() + b"\n" + body
    assert without_times(train(run, REGISTRY, changed)) == without_times(train(run, REGISTRY))


def test_checkpoints_are_due_by_epochs_or_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [epoch for epoch in range(1, 8) if RunControls(every_epochs=3).is_due(epoch)] == [3, 6]
    assert not any(RunControls().is_due(epoch) for epoch in range(1, 8))
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    controls, due = RunControls(every_s=10, _saved=0.0), []
    for epoch in range(1, 8):
        now[0] = 4.0 * epoch
        if controls.is_due(epoch):
            due.append(epoch)
            controls.note_save()
    assert due == [3, 6]


# --- the files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, said: list[str]) -> CheckpointFiles:
    return CheckpointFiles(tmp_path, said.append)


CONTENT = b'{"format": 1, "run_key": "abc", "epoch": 3, "made_by": ["x", "2"]}\nstate of the run' + bytes(range(256))


def attempt(n_epochs: int, source: str = "x") -> Attempt:
    events: list[Event] = [Started({"source_sha256": source, "packages": {"torch": "2"}})]
    events += [EpochDone(epoch, epoch, 0.0, {}) for epoch in range(1, n_epochs + 1)]
    return Attempt([Record("abc", 1, event) for event in events])


def test_the_newest_checkpoint_is_kept_until_it_is_discarded(kept: CheckpointFiles, said: list[str]) -> None:
    assert kept.load("abc", attempt(9)) is None
    kept.save("abc", Checkpoint(2, CONTENT.replace(b"3", b"2")))
    kept.save("abc", Checkpoint(3, CONTENT))
    assert kept.load("abc", attempt(3)) == CONTENT
    kept.discard("abc")
    kept.discard("abc")
    assert kept.load("abc", attempt(3)) is None
    assert said == []


def test_a_checkpoint_ahead_of_the_journal_is_not_used(kept: CheckpointFiles) -> None:
    kept.save("abc", Checkpoint(3, CONTENT))
    assert kept.load("abc", attempt(2)) is None


def test_a_checkpoint_file_of_other_code_is_not_used(kept: CheckpointFiles) -> None:
    kept.save("abc", Checkpoint(3, CONTENT))
    assert kept.load("abc", attempt(9, source="y")) is None
    assert kept.load("abc", Attempt([Record("abc", 1, Interrupted("before it began"))])) is None


def test_an_unreadable_checkpoint_is_set_aside(
    kept: CheckpointFiles, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad_sector(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    kept.save("abc", Checkpoint(3, CONTENT))
    with monkeypatch.context() as patched:
        patched.setattr(checksummed_file, "read", bad_sector)
        assert kept.load("abc", attempt(3)) is None
    (line,) = said
    assert line.endswith(
        "the checkpoint cannot be read (Input/output error). It is kept as abc.ckpt.damaged-1; the run starts over."
    )
    assert kept.load("abc", attempt(3)) is None
    assert len(said) == 1


def test_unneeded_checkpoints_are_removed_and_damaged_ones_kept(kept: CheckpointFiles, tmp_path: Path) -> None:
    for key in ("abc", "done"):
        kept.save(key, Checkpoint(3, CONTENT))
    folder = tmp_path / "checkpoints"
    (folder / ".abc.ckpt.0123.partial").write_bytes(b"half")
    (folder / "done.ckpt.damaged-1").write_bytes(b"?")
    kept.keep_only({"abc"})
    assert sorted(path.name for path in folder.iterdir()) == ["abc.ckpt", "done.ckpt.damaged-1"]


@pytest.mark.parametrize("content", [b"", b"[]\n", b'{"epoch": 3}\n', b"no label"])
def test_a_file_without_the_label_of_a_checkpoint_is_kept_aside(
    content: bytes, kept: CheckpointFiles, said: list[str], tmp_path: Path
) -> None:
    kept.save("abc", Checkpoint(3, content))
    assert kept.load("abc", attempt(3)) is None
    assert "expected a checkpoint, got: " in said[0]
    assert (tmp_path / "checkpoints" / "abc.ckpt.damaged-1").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damage_at_any_place_is_noticed_and_set_aside(
    damage: str, kept: CheckpointFiles, said: list[str], tmp_path: Path
) -> None:
    kept.save("abc", Checkpoint(3, CONTENT))
    path = tmp_path / "checkpoints" / "abc.ckpt"
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(whole[:place] if damage == "cut" else broken)
        assert kept.load("abc", attempt(3)) is None
        assert not path.exists()
    assert len(said) == len(whole)
    assert all("expected" in line and "the run starts over" in line for line in said)
    assert len(list(path.parent.glob("abc.ckpt.damaged-*"))) == len(whole)


def test_a_disk_that_refuses_checkpoints_is_reported_once(
    kept: CheckpointFiles, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.storage.checksummed_file.write", full)
    kept.save("abc", Checkpoint(1, CONTENT))
    kept.save("abc", Checkpoint(2, CONTENT))
    assert len(said) == 1
    assert "No space left on device" in said[0]
