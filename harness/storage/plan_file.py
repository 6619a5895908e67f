"""The file frozen.json: the plan of a sweep as gzipped JSON, after a line with its checksum.

To read it: `tail -n +2 frozen.json | zcat`. Values that all settings share are stored once.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.bounded_names import run_name
from harness.measures import VAE_MEASURES, VAE_NAME, Measure
from harness.storage import checksummed_file
from harness.storage.checksummed_file import DamagedError

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.grid.load import Grid

FORMAT = 2
_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, zlib.error)
MAX_BYTES = 256_000_000
"""The largest plan that is read. One of 100,000 settings has about 40 MB."""
_GZIP = b"\x1f\x8b"  # how compressed content begins


class OtherFormatError(DamagedError):
    """A plan of another format, written by another version of the harness."""


@dataclass(frozen=True)
class Setting:
    """What the runs of one label share: everything but the seed. The keys of `values` are dotted names.

    `epoch_cost` is the forecast of an epoch's cost, if known. It only compares settings with each other.
    """

    label: str
    values: Mapping[str, Any]
    epoch_cost: float | None = None
    measures: tuple[Measure, ...] = VAE_MEASURES
    task_label: str = VAE_NAME


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan."""

    key: str
    setting: Setting
    seed: int

    @property
    def label(self) -> str:
        return self.setting.label

    @property
    def name(self) -> str:
        return run_name(self.label, self.seed)

    @property
    def trial(self) -> int | None:
        """The number of a trial of a tuning; None for every other run."""
        return self.setting.values.get("trial")

    @property
    def n_epochs(self) -> int:
        return int(self.setting.values["training.epochs"])

    @property
    def task_label(self) -> str:
        return self.setting.task_label

    @property
    def measures(self) -> tuple[Measure, ...]:
        return self.setting.measures

    @property
    def values(self) -> dict[str, Any]:
        """Every setting by its dotted name, without labels."""
        return {**self.setting.values, "seed": self.seed}


@dataclass(frozen=True)
class Plan:
    """A grid as it was when its sweep last started.

    `saved_at` is a local time. `fingerprint` is None if the runs are not known from the text alone. `plugins` are
    absolute paths.
    """

    name: str
    text: str = field(repr=False)
    saved_at: str
    fingerprint: str | None
    runs: tuple[PlannedRun, ...] = field(repr=False)
    plugins: tuple[str, ...] = ()


def read_plan(path: Path) -> Plan:
    """Read a plan. Raises DamagedError (OtherFormatError if another version wrote it) and OSError."""
    content = checksummed_file.read(path)
    try:
        data = json.loads(_decompressed(content) if content.startswith(_GZIP) else content)
        if data["format"] == FORMAT:
            return _from_data(data)
    except _MALFORMED as error:
        raise DamagedError(
            f"{path}: expected a plan of format {FORMAT}, got other content ({error!r:.200})."
        ) from error
    raise OtherFormatError(f"{path}: expected a plan of format {FORMAT}, got format {data['format']!r:.50}.")


def _decompressed(content: bytes) -> bytes:
    """Return what was compressed. Raises ValueError for more than MAX_BYTES: the folder may be a stranger's."""
    decompressor = zlib.decompressobj(wbits=31)  # 31: the format of gzip
    data = decompressor.decompress(content, MAX_BYTES)
    if not decompressor.eof:
        raise ValueError(f"expected at most {MAX_BYTES:,} bytes, complete")
    return data


def make_plan(
    grid: Grid,
    fingerprint: str | None,
    plugins: Sequence[Path] = (),
    epoch_costs: Mapping[str, float] = MappingProxyType({}),
) -> Plan:
    """Return the plan of a grid, saved now."""
    settings: dict[tuple[str, int | None], Setting] = {}
    runs = []
    for run in grid.runs:
        label = run.label  # unique within a grid for each seed, but for a trial and the final runs of its settings
        if (label, run.trial) not in settings:
            new = Setting(label, _values(run), epoch_costs.get(label), run.measures, run.task_label)
            settings[label, run.trial] = new
        runs.append(PlannedRun(run.key, settings[label, run.trial], run.seed))
    files = tuple(str(path.absolute()) for path in plugins)
    return Plan(grid.name, grid.text, time.strftime("%Y-%m-%d %H:%M:%S"), fingerprint, tuple(runs), files)


def _values(run: RunConfig) -> dict[str, Any]:
    """Return the settings without the seed. The basket includes what its labels do not show."""
    values: dict[str, Any] = {name: value for name, value in run.flat().items() if name != "seed"}
    if run.diagnostics:
        basket = run.diagnostics.basket
        hidden = [one.canonical if one.custom_label or one.source else "" for one in basket]
        texts = (f"{one.label} {rest}".strip() for one, rest in zip(basket, hidden, strict=True))
        values["diagnostics.basket"] = ", ".join(texts)
    return values


def to_bytes(plan: Plan) -> bytes:
    """Return the content of the plan's file."""
    settings = list({id(run.setting): run.setting for run in plan.runs}.values())
    index = {id(setting): number for number, setting in enumerate(settings)}
    shared = _shared_values(settings)
    data = {
        "format": FORMAT,
        "name": plan.name,
        "saved_at": plan.saved_at,
        "fingerprint": plan.fingerprint,
        "plugins": plan.plugins,
        "text": plan.text,
        "shared": shared,
        "settings": [
            {
                "label": setting.label,
                "epoch_cost": setting.epoch_cost,
                "values": {name: value for name, value in setting.values.items() if name not in shared},
                **_of_task(setting),
            }
            for setting in settings
        ],
        "runs": [[run.key, index[id(run.setting)], run.seed] for run in plan.runs],
    }
    return gzip.compress(json.dumps(data).encode(), compresslevel=6, mtime=0)


def _shared_values(settings: Sequence[Setting]) -> dict[str, Any]:
    """Return the values that all settings have in common. 1, 1.0 and True differ."""
    first, *others = settings
    return {
        name: value
        for name, value in first.values.items()
        if all(name in other.values and repr(other.values[name]) == repr(value) for other in others)
    }


def _from_data(data: Mapping[str, Any]) -> Plan:
    settings = [_setting(one, data["shared"]) for one in data["settings"]]
    runs = tuple(PlannedRun(key, settings[number], seed) for key, number, seed in data["runs"])
    plugins = tuple(map(str, data["plugins"]))
    return Plan(data["name"], data["text"], data["saved_at"], data["fingerprint"], runs, plugins)


def _of_task(setting: Setting) -> dict[str, Any]:
    """Return what is stored of a task; nothing of the VAE."""
    if setting.task_label == VAE_NAME:
        return {}
    return {"task": setting.task_label, "measures": [asdict(measure) for measure in setting.measures]}


def _setting(data: Mapping[str, Any], shared: Mapping[str, Any]) -> Setting:
    measures = tuple(Measure(**one) for one in data.get("measures", ())) or VAE_MEASURES
    values = {**shared, **data["values"]}
    return Setting(data["label"], values, data["epoch_cost"], measures, data.get("task", VAE_NAME))
