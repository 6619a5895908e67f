"""The trials of a tuned sweep and the runs of its defaults, apart from the runs that a report compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reports.contract import stored_run as names

Records = list[dict[str, Any]]


@dataclass(frozen=True, repr=False)
class Tuning:
    """The search space by dotted names, as tuning.json has it, and tidy frames of the trials and of the defaults.

    Both have the column ``competitor``: what was tuned. ``trials`` has ``trial``, its number; its metrics are those of
    the validation data.
    """

    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    defaults: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __repr__(self) -> str:
        return f"Tuning({len(self.trials)} trials over {', '.join(self.space)[:64]}, {len(self.defaults)} default runs)"

    def of_task(self, label: str) -> Tuning:
        """Return the runs of one task."""
        trials, defaults = (_of_task(frame, label) for frame in (self.trials, self.defaults))
        return Tuning(self.space, trials, defaults)


def by_role(records: Sequence[dict[str, Any]]) -> tuple[Records, Records, Records]:
    """Return the records that a report compares, those of trials, and those of defaults."""
    found: dict[str, Records] = {names.ROLE_TRIAL: [], names.ROLE_DEFAULT: []}
    compared: Records = []
    for record in records:
        found.get(str(record.get("role", "")), compared).append(record)
    return compared, found[names.ROLE_TRIAL], found[names.ROLE_DEFAULT]


def read_space(stated: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the search space of the last sweep that states one, by what each states in growth.json."""
    for one in reversed(stated):
        tune = one.get("tune")
        space = tune.get("space") if isinstance(tune, Mapping) else None
        if isinstance(space, Mapping):
            return {str(path): values for path, values in space.items() if isinstance(values, Mapping)}
    return {}


def _of_task(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    return frame[frame["task_label"] == label].reset_index(drop=True) if len(frame) else frame
