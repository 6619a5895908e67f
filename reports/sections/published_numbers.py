"""The published numbers with their protocols, from published.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """A published number: the mean of a metric, at an epoch or (None) at the end of training.

    ``sd`` and ``n``, over seeds, are None where the source gives none. ``protocol`` has the stated fields of the
    configuration by their names.
    """

    source: str
    reference: str
    what: str
    estimator: str
    metric: str
    epoch: int | None
    mean: float
    sd: float | None
    n: int | None
    protocol: Mapping[str, Any]


@lru_cache(maxsize=1)
def numbers() -> tuple[Published, ...]:
    """Return the published numbers, in the order of the file."""
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(number for entry in entries for row in entry["numbers"] for number in _of_row(entry, row))


def _of_row(entry: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Published]:
    protocol = entry["protocol"] | row.get("settings", {})
    for metric in row:
        if metric in ("estimator", "settings"):
            continue
        by_epoch = row[metric] if isinstance(row[metric], Mapping) else {None: row[metric]}
        for epoch, value in by_epoch.items():
            mean, sd = value if isinstance(value, list) else (value, None)
            yield Published(
                entry["source"], entry["reference"], entry["what"], row["estimator"], metric, epoch, float(mean),
                None if sd is None else float(sd), entry.get("seeds"), protocol,
            )  # fmt: skip
