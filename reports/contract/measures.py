"""The declaration of what a task is judged by, as a run states it in the tag `harness.measures`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from reports.contract.stored_run import TEST_NEG_BOUND, TEST_NEG_ELBO, VAL_LOSS
from reports.contract.text import NAME_LENGTH, visible

Better = Literal["lower", "higher"]
LOWER: Better = "lower"
HIGHER: Better = "higher"
MOST = 50
"""How many measures of a task are read."""
_TITLE_LENGTH = 80
_HUGE = 1e100


@dataclass(frozen=True)
class DeclaredMeasure:
    """A measure of a task: its name and title, its unit, the direction that is better, and its stored metrics.

    `band` is the smallest difference that matters, in the unit; None if the task states none.
    """

    name: str
    title: str
    unit: str
    better: Better
    band: float | None
    metric: str
    validation: str


VAE_MEASURES = (
    DeclaredMeasure("neg_elbo", "−ELBO", "nats per image", LOWER, 0.5, TEST_NEG_ELBO, VAL_LOSS),
    DeclaredMeasure("neg_bound", "importance-weighted bound", "nats per image", LOWER, 0.5, TEST_NEG_BOUND, VAL_LOSS),
)
"""Those of the categorical VAE, and of every run that is older than the tag."""


def to_json(measures: tuple[DeclaredMeasure, ...]) -> str:
    """Return the declaration as text. The same measures give the same text."""
    return json.dumps([asdict(one) for one in measures], ensure_ascii=False, sort_keys=True)


@lru_cache(maxsize=1024)
def from_json(text: str) -> tuple[DeclaredMeasure, ...]:
    """Return the declared measures, every text made visible. Raises ValueError with a reason if they cannot be read.

    A declaration is read as a whole or not at all: without its first measure another one would rank the settings.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(value, list) or not 1 <= len(value) <= MOST:
        raise ValueError(f"it is no list of 1 to {MOST} measures")
    found = tuple(_measure(entry) for entry in value)
    if len({one.metric for one in found}) < len(found):
        raise ValueError("two measures have the same metric")
    return found


def _measure(entry: Any) -> DeclaredMeasure:
    if not isinstance(entry, Mapping):
        raise ValueError("a measure is no object")
    name = _text(entry, "name", NAME_LENGTH)
    if not name:
        raise ValueError("a measure has no name")
    better, band = entry.get("better"), entry.get("band")
    if better not in (LOWER, HIGHER):
        raise ValueError(f"'better' of {name} is neither 'lower' nor 'higher'")
    if band is not None and not (_is_number(band) and band > 0):
        raise ValueError(f"'band' of {name} is no number above 0")
    metric, validation = (_text(entry, key, NAME_LENGTH) for key in ("metric", "validation"))
    if "/" not in metric or "/" not in validation:
        raise ValueError(f"{name} does not name its metrics")
    title, unit = (_text(entry, key, _TITLE_LENGTH) for key in ("title", "unit"))
    return DeclaredMeasure(name, title or name, unit, better, None if band is None else float(band), metric, validation)


def _text(entry: Mapping[str, Any], key: str, limit: int) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"'{key}' of a measure is no text")
    return visible(value, limit)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE
