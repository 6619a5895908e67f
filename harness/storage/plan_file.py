"""What frozen.json holds of a grid, and its form: JSON in a sealed file.

What all runs share is stored once, and of what differs each value once: 10,000 runs take less than 2 MB.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.names import run_name
from harness.storage import checksummed_file
from harness.storage.checksummed_file import Damaged

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.grid.load import Grid

FORMAT = 1
_ABSENT = -1


@dataclass(frozen=True)
class Setting:
    """What runs that differ in their seed alone have in common; the values go by dotted names.

    `cost` is the forecast of an epoch, where it is known: it tells how long runs take beside those of other settings.
    """

    label: str
    values: Mapping[str, Any]
    cost: float | None = None


@dataclass(frozen=True)
class Planned:
    """One run of a frozen grid."""

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
    def n_epochs(self) -> int:
        return int(self.setting.values["training.epochs"])

    @property
    def values(self) -> dict[str, Any]:
        """Every setting by its dotted name; labels are left out."""
        return {**self.setting.values, "seed": self.seed}


@dataclass(frozen=True)
class Frozen:
    """A grid as it is stored. `since` is a local time; `made_by` is None where the text alone does not decide.

    `plugins` are the files that the command named, as absolute paths.
    """

    name: str
    text: str = field(repr=False)
    since: str
    made_by: str | None
    runs: tuple[Planned, ...] = field(repr=False)
    plugins: tuple[str, ...] = ()


def load(path: Path) -> Frozen:
    """Read a frozen grid. Raises Damaged, also for one of another format, and OSError."""
    content = checksummed_file.read(path)
    try:
        return _decode(json.loads(content))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Damaged(
            f"{path}: expected a frozen grid of format {FORMAT}, got another ({type(error).__name__})."
        ) from error


def snapshot(
    grid: Grid,
    made_by: str | None,
    plugins: Sequence[Path] = (),
    costs: Mapping[str, float] = MappingProxyType({}),
) -> Frozen:
    """Return a grid as it is now, with the forecast of an epoch of each setting."""
    settings: dict[str, Setting] = {}
    runs = []
    for run in grid.runs:
        label = run.label  # with the seed it is unique within a grid
        if label not in settings:
            settings[label] = Setting(label, _values(run), costs.get(label))
        runs.append(Planned(run.key, settings[label], run.seed))
    files = tuple(str(path.absolute()) for path in plugins)
    return Frozen(grid.name, grid.text, time.strftime("%Y-%m-%d %H:%M:%S"), made_by, tuple(runs), files)


def _values(run: RunConfig) -> dict[str, Any]:
    """Return the settings without the seed; of the basket also what its labels do not tell."""
    values: dict[str, Any] = {name: value for name, value in run.flat().items() if name != "seed"}
    if run.diagnostics:
        basket = run.diagnostics.basket
        hidden = [one.canonical if one.custom_label or one.source else "" for one in basket]
        texts = (f"{one.label} {rest}".strip() for one, rest in zip(basket, hidden, strict=True))
        values["diagnostics.basket"] = ", ".join(texts)
    return values


def encode(one: Frozen) -> bytes:
    """Return the grid as JSON. A setting is a row of numbers: which of its values each column has there."""
    settings = list({run.label: run.setting for run in one.runs}.values())
    number = {setting.label: index for index, setting in enumerate(settings)}
    columns, rows = _table(settings)
    differs = [any(row[index] != 0 for row in rows) for index in range(len(columns))]
    data = {
        "format": FORMAT,
        "name": one.name,
        "since": one.since,
        "made_by": one.made_by,
        "plugins": list(one.plugins),
        "text": one.text,
        "shared": {name: values[0] for (name, values), own in zip(columns.items(), differs, strict=True) if not own},
        "columns": {name: values for (name, values), own in zip(columns.items(), differs, strict=True) if own},
        "settings": [[setting.label, *compress(row, differs)] for setting, row in zip(settings, rows, strict=True)],
        "costs": [setting.cost for setting in settings],
        "runs": [[run.key, number[run.label], run.seed] for run in one.runs],
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _table(settings: Sequence[Setting]) -> tuple[dict[str, list[Any]], list[list[int]]]:
    """Return the different values of each name, and for each setting which of them it has. 1, 1.0 and true differ."""
    seen: dict[str, dict[str, int]] = {name: {} for setting in settings for name in setting.values}
    rows = []
    for setting in settings:
        texts = {name: json.dumps(value) for name, value in setting.values.items()}
        rows.append(
            [found.setdefault(texts[name], len(found)) if name in texts else _ABSENT for name, found in seen.items()]
        )
    return {name: [json.loads(text) for text in found] for name, found in seen.items()}, rows


def _decode(data: Mapping[str, Any]) -> Frozen:
    """Return the grid that `encode` made this of."""
    if data["format"] != FORMAT:
        raise ValueError(data["format"])
    columns = data["columns"]
    settings = []
    costs = data.get("costs") or [None] * len(data["settings"])
    for (label, *row), cost in zip(data["settings"], costs, strict=True):
        own = {name: column[cell] for (name, column), cell in zip(columns.items(), row, strict=True) if cell != _ABSENT}
        settings.append(Setting(label, data["shared"] | own, cost))
    runs = tuple(Planned(key, settings[number], seed) for key, number, seed in data["runs"])
    plugins = tuple(map(str, data.get("plugins", ())))
    return Frozen(data["name"], data["text"], data["since"], data["made_by"], runs, plugins)
