"""Names of settings in a report of several sweeps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from reports.contract.settings import distinct, in_quotes, joined
from reports.store.frame import Runs


def named_together(*every: Runs) -> list[Runs]:
    """Return the runs of several sweeps with one text for each setting, shared where the setting is shared."""
    columns = ["setting", "estimator_label", "schedule_label", "axes"]
    parts = [dict(_setting_of(row) for row in runs.runs[columns].itertuples(index=False, name=None)) for runs in every]
    keys = [key for found in parts for key in found.values()]
    texts = distinct(keys, lambda key: joined(*key), lambda key: in_quotes(*key))
    return [_renamed(runs, {old: texts[key] for old, key in found.items()})
            for runs, found in zip(every, parts, strict=True)]  # fmt: skip


def _setting_of(row: tuple[Any, ...]) -> tuple[str, tuple[str, str | None, str]]:
    setting, estimator, schedule, axes = row
    return setting, (estimator, None if pd.isna(schedule) else schedule, axes)


def _renamed(runs: Runs, texts: Mapping[str, str]) -> Runs:
    frames = [frame.assign(setting=frame["setting"].map(texts)) for frame in (runs.runs, runs.history)]
    return replace(runs, runs=frames[0], history=frames[1])
