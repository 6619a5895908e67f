"""The plain events that training yields, and their JSON form.

A `Record` is an event with its run and its time. Executors carry records, the journal stores them and the tracker
forwards them. All three see the same records, so a sweep can be replayed from its journal.
"""

import base64
import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, get_args


@dataclass(frozen=True)
class Started:
    """A run begins. `provenance` says where and with what code."""

    kind: ClassVar[str] = "started"
    provenance: dict[str, Any]


@dataclass(frozen=True)
class EpochDone:
    """An epoch is done. `step` counts updates and `elapsed_s` seconds of training so far, without evaluation."""

    kind: ClassVar[str] = "epoch"
    epoch: int
    step: int
    elapsed_s: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Picture:
    """A picture after `step` updates, as PNG bytes (`harness.training.pictures`). `png` may be left on the disk.

    A name may occur once at each of several steps. The `final` one, at the end, becomes the run's artifact.
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
    """How each of the L latents is used on the test images (`harness.training.latents`). `usage` is L × K."""

    kind: ClassVar[str] = "latents"
    kl: list[float]
    perplexity: list[float]
    entropy: list[float]
    dead_classes: list[int]
    usage: list[list[float]]


@dataclass(frozen=True)
class Checkpoint:
    """What the run needs to continue after that epoch (`harness.training.checkpoint`). It is not journaled."""

    kind: ClassVar[str] = "checkpoint"
    epoch: int
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Weights:
    """The trained weights (`harness.models`), if requested. They are stored beside the journal."""

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
    """A loss, a gradient or a final metric was not finite. `step` is the first such update."""

    kind: ClassVar[str] = "diverged"
    step: int
    error: str


@dataclass(frozen=True)
class Failed:
    """The run raised an exception.

    If `crashed`, it lost its process instead, or ran out of memory or time. It can then be resumed.
    """

    kind: ClassVar[str] = "failed"
    error: str
    traceback: str = ""
    crashed: bool = False


@dataclass(frozen=True)
class Skipped:
    """The run cannot work on this machine. `error` says why."""

    kind: ClassVar[str] = "skipped"
    error: str


@dataclass(frozen=True)
class Interrupted:
    """The run was cut short and can be resumed: the sweep was stopped, or it crashed and is `retrying`."""

    kind: ClassVar[str] = "interrupted"
    error: str
    retrying: bool = False


@dataclass(frozen=True)
class Note:
    """A message that is shown to the user once, even if many runs send it. It is not journaled."""

    kind: ClassVar[str] = "note"
    text: str


Event = (
    Started
    | EpochDone
    | Picture
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
_KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in get_args(Event)}


def is_cut_short(end: Event | None) -> bool:
    """Return whether an attempt with this end can be resumed."""
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
        """Return the record as one line of text, with pictures but without the content of checkpoints and weights."""
        body = asdict(self.event)
        if isinstance(self.event, Picture):
            body["png"] = base64.b64encode(self.event.png).decode()
        elif isinstance(self.event, Checkpoint | Weights):
            del body["content"]
        return json.dumps(
            {"run_key": self.run_key, "time_ms": self.time_ms, "kind": self.event.kind, **body}, allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Parse the result of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
        return cls.from_data(json.loads(text))

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Record":
        """Return the record of parsed JSON."""
        kind = _KINDS[data["kind"]]
        body = {f.name: data[f.name] for f in fields(kind) if f.name in data}
        if kind is Picture:
            body["png"] = base64.b64decode(body["png"], validate=True)
        return cls(data["run_key"], data["time_ms"], kind(**body))

    def to_bytes(self) -> bytes:
        """Return the record as a message: its JSON, a newline, and the content of a checkpoint or weights."""
        if isinstance(self.event, Checkpoint | Weights):
            return self.to_json().encode() + b"\n" + self.event.content
        return self.to_json().encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> "Record":
        """Parse the result of `to_bytes`."""
        text, _, content = message.partition(b"\n")
        record = cls.from_json(text.decode())
        if isinstance(record.event, Checkpoint | Weights):
            return replace(record, event=replace(record.event, content=content))
        return record
