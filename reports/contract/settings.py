"""Settings as tuples: what runs that differ in device and seed alone have in common.

Labels are the user's, so they may hold any separator and any word of ours. A setting is stored as JSON, in the tag
``harness.setting`` of a run and in ``plan.json``, and its text is made for readers only: nothing splits it.
Stores that are older than the tag have the text alone; ``setting_from_label`` reads it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from reports.contract.text import visible

SEPARATOR = " · "
_LONGEST = 250
"""Characters of a part that are stored: MLflow silently cuts a tag at 8,000."""
_NO_TEMPERATURE = ("", "none")
_DEVICE = "device="
SAME_FOR_ALL = frozenset(
    {
        *("task", "device", "data", "dataset", "binarization", "validation_fraction", "split_seed", "train_size"),
        *("path", "size", "validation_split", "validation_codes", "validation_every", "test_samples", "bound_samples"),
        *("evaluation_batch_size", "n_images", "checkpoint"),
    }
)
"""The fields that no estimator has for itself: those of the data and of the evaluation."""
T = TypeVar("T")


class Setting(NamedTuple):
    """The label of the estimator, that of the schedule (None: no temperature), and the other swept fields, in order.

    The value of a field is None if it comes from an older store and its text has no value.
    """

    estimator: str
    schedule: str | None = None
    axes: tuple[tuple[str, str | None], ...] = ()

    @property
    def text(self) -> str:
        """Return a text for readers, ``rloo(n_samples=4) · constant(1) · lr=0.001``. Two settings may share it."""
        return joined(self.estimator, self.schedule, axes_text(self.axes))

    @property
    def quoted(self) -> str:
        """Return the text with its labels in quotes. No two settings share it."""
        return in_quotes(self.estimator, self.schedule, axes_text(self.axes))

    def stored(self) -> dict[str, Any]:
        """Return the setting as a JSON object."""
        axes = [[name, None if value is None else _cut(value)] for name, value in self.axes]
        return {
            "estimator": _cut(self.estimator),
            "schedule": None if self.schedule is None else _cut(self.schedule),
            "axes": axes,
        }

    def to_json(self) -> str:
        """Return the value of the tag."""
        return json.dumps(self.stored(), ensure_ascii=False)


def from_json(text: str) -> Setting | None:
    """Return the setting that a tag states, or None if there is none or it cannot be read."""
    try:
        return from_stored(json.loads(text)) if text else None
    except (ValueError, RecursionError):
        return None


def from_stored(value: Any) -> Setting | None:
    """Return the setting of a parsed JSON object, or None if it is none."""
    if not isinstance(value, Mapping):
        return None
    estimator, schedule, axes = value.get("estimator"), value.get("schedule"), value.get("axes")
    if not isinstance(estimator, str) or not isinstance(schedule, str | None) or not isinstance(axes, list):
        return None
    pairs = [tuple(pair) for pair in axes if isinstance(pair, list) and len(pair) == 2]
    fine = len(pairs) == len(axes) and all(isinstance(n, str) and isinstance(v, str | None) for n, v in pairs)
    return Setting(estimator, schedule, tuple(pairs)) if fine else None


def setting_from_label(label: str, estimator: str, schedule: str, estimator_label: str) -> Setting:
    """Return the setting that the label of an older store means, split at its separators.

    The schedule is one of its parts unless the run has none.
    """
    rest = label
    if estimator_label and (label == estimator_label or label.startswith(estimator_label + SEPARATOR)):
        rest = label.removeprefix(estimator_label)
    elif label:
        estimator_label, _, rest = label.partition(SEPARATOR)
    parts = [part for part in rest.split(SEPARATOR) if part]
    named = None if schedule in _NO_TEMPERATURE else schedule
    if named is not None and parts:
        named = parts.pop(0)
    elif parts[:1] == ["none"]:
        parts.pop(0)
    pairs = [part.partition("=") for part in parts if not part.startswith(_DEVICE)]
    axes = tuple((name, value if equals else None) for name, equals, value in pairs)
    return Setting(estimator_label or estimator, named, axes)


def axes_text(axes: Iterable[tuple[str, str | None]]) -> str:
    """Return ``lr=0.001 · hidden=[16]``, or an empty text if nothing else is swept."""
    return SEPARATOR.join(name if value is None else f"{name}={value}" for name, value in axes)


def joined(*parts: str | None) -> str:
    """Return the parts that are not empty as a text for readers."""
    return SEPARATOR.join(part for part in parts if part)


def in_quotes(estimator: str | None, schedule: str | None, axes: str) -> str:
    """Return the parts of a setting as a text that says which is which."""
    return joined(None if estimator is None else quote(estimator), None if schedule is None else quote(schedule), axes)


def quote(text: str) -> str:
    """Return the text as JSON: different texts stay different, and every character is visible."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def distinct(keys: Iterable[T], *forms: Callable[[T], str]) -> dict[T, str]:
    """Return a text for each key, of the first form. Keys that would share a text get the next form.

    The last form must give different keys different texts.
    """
    found = {key: forms[0](key) for key in keys}
    form = dict.fromkeys(found, 0)
    while True:
        counts = Counter(found.values())
        shared = [key for key, text in found.items() if counts[text] > 1 and form[key] + 1 < len(forms)]
        if not shared:
            return found
        for key in shared:
            form[key] += 1
            found[key] = forms[form[key]](key)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else visible(text, _LONGEST)
