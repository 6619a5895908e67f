"""The plain events that training yields, and their JSON form.

A `Record` is an event with the run it belongs to and the time at which it happened. Executors carry records, the
journal stores them, the tracker forwards them: all three see the same thing, so a sweep can be replayed from its
journal.
"""

import base64
import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar


@dataclass(frozen=True)
class Started:
    """A run begins; `provenance` says where and with what."""

    kind: ClassVar[str] = "started"
    provenance: dict[str, Any]


@dataclass(frozen=True)
class EpochDone:
    """One epoch is done: `step` updates so far, `elapsed_s` seconds of training so far (evaluation excluded)."""

    kind: ClassVar[str] = "epoch"
    epoch: int
    step: int
    elapsed_s: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Image:
    """A picture after `step` updates, as PNG bytes (`harness.training.pictures`), which may be left on the disk.

    One name may come at several steps, once at each; `final` is the one at the end, which becomes the run's artifact.
    """

    kind: ClassVar[str] = "image"
    name: str
    step: int
    png: bytes = field(repr=False)
    sha256: str = ""
    final: bool = True

    def __post_init__(self) -> None:
        if not self.sha256:
            object.__setattr__(self, "sha256", hashlib.sha256(self.png).hexdigest())


@dataclass(frozen=True)
class Latents:
    """How each of the L latents is used on the test images (`harness.training.latents`); `usage` is L × K."""

    kind: ClassVar[str] = "latents"
    kl: list[float]
    perplexity: list[float]
    entropy: list[float]
    dead_classes: list[int]
    usage: list[list[float]]


@dataclass(frozen=True)
class Checkpoint:
    """All that the run needs to go on after that epoch (`harness.training.checkpoint`). Kept, not journaled."""

    kind: ClassVar[str] = "checkpoint"
    epoch: int
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Weights:
    """The trained weights (`harness.models`), where they are asked for. They lie beside the journal."""

    kind: ClassVar[str] = "weights"
    step: int
    content: bytes = field(default=b"", repr=False)
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.sha256:
            object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())


@dataclass(frozen=True)
class Finished:
    """The run is complete, with its final metrics."""

    kind: ClassVar[str] = "finished"
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Diverged:
    """A loss, a gradient or a final metric was not finite; `step` is the first such update."""

    kind: ClassVar[str] = "diverged"
    step: int
    error: str


@dataclass(frozen=True)
class Failed:
    """An exception; or, `crashed`, a process that died or ran out of memory or time, which may go on another time."""

    kind: ClassVar[str] = "failed"
    error: str
    traceback: str = ""
    crashed: bool = False


@dataclass(frozen=True)
class Skipped:
    """The run cannot work on this machine, and why."""

    kind: ClassVar[str] = "skipped"
    error: str


@dataclass(frozen=True)
class Interrupted:
    """The run was cut short and may go on: the sweep was stopped, or (`retrying`) it crashed and is tried again."""

    kind: ClassVar[str] = "interrupted"
    error: str
    retrying: bool = False


@dataclass(frozen=True)
class Note:
    """Something that the user should know once, whichever runs say it. Shown, not journaled."""

    kind: ClassVar[str] = "note"
    text: str


Event = (
    Started
    | EpochDone
    | Image
    | Latents
    | Checkpoint
    | Weights
    | Note
    | Finished
    | Diverged
    | Failed
    | Skipped
    | Interrupted
)
TERMINAL = (Finished, Diverged, Failed, Skipped, Interrupted)
_KINDS: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Started, EpochDone, Image, Latents, Checkpoint, Weights, Note, *TERMINAL)
}


def is_cut_short(end: Event | None) -> bool:
    """Return whether an attempt that ended so may go on where it was."""
    return isinstance(end, Interrupted | Skipped) or (isinstance(end, Failed) and end.crashed)


@dataclass(frozen=True)
class Record:
    """One event of one run, with its time in milliseconds since 1970."""

    run_key: str
    time_ms: int
    event: Event

    @classmethod
    def now(cls, run_key: str, event: Event) -> "Record":
        return cls(run_key, time.time_ns() // 1_000_000, event)

    def to_json(self) -> str:
        """Return the record as one line of text, pictures in it, but not what a checkpoint or weights hold."""
        body = asdict(self.event)
        if isinstance(self.event, Image):
            body["png"] = base64.b64encode(self.event.png).decode()
        elif isinstance(self.event, Checkpoint | Weights):
            del body["content"]
        return json.dumps(
            {"run_key": self.run_key, "time_ms": self.time_ms, "kind": self.event.kind, **body}, allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Parse what `to_json` wrote. Raises ValueError (KeyError, TypeError) for anything else."""
        return cls.from_data(json.loads(text))

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Record":
        """Make a record of its JSON."""
        kind = _KINDS[data["kind"]]
        body = {f.name: data[f.name] for f in fields(kind) if f.name in data}
        if kind is Image:
            body["png"] = base64.b64decode(body["png"], validate=True)
        return cls(data["run_key"], data["time_ms"], kind(**body))

    def to_bytes(self) -> bytes:
        """Return the record as a message: its JSON, and after a newline what a checkpoint or weights hold."""
        if isinstance(self.event, Checkpoint | Weights):
            return self.to_json().encode() + b"\n" + self.event.content
        return self.to_json().encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> "Record":
        """Parse what `to_bytes` wrote."""
        text, _, content = message.partition(b"\n")
        record = cls.from_json(text.decode())
        if isinstance(record.event, Checkpoint | Weights):
            return replace(record, event=replace(record.event, content=content))
        return record
