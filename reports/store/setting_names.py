"""Names of settings in a report: texts for readers, made so that different settings have different ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from reports.contract.settings import (
    SAME_FOR_ALL,
    Setting,
    axes_text,
    distinct,
    in_quotes,
    joined,
    quote,
    setting_from_label,
)
from reports.contract.stored_run import PARAM_SOURCE
from reports.contract.text import NAME_LENGTH, visible
from reports.store.tasks import split_tasks

SHOWN = 24
"""Characters of a parameter that are shown if the label does not name it."""
Axes = tuple[tuple[str, str | None], ...]


class _Estimator(NamedTuple):
    """What a colour and a row of a table stand for. Two estimators of two grids may have the same label."""

    name: str
    label: str
    version: str | None  # of a plugin that was edited since; empty if unknown


class _Fields(NamedTuple):
    """The other swept fields: those that the label names, and those that it does not."""

    named: Axes
    unnamed: tuple[tuple[str, str], ...]


def name_settings(
    frame: pd.DataFrame,
    parts: Sequence[Setting | None],
    versions: Sequence[str | None],
    parameters: pd.DataFrame,
    is_known: pd.Series,
) -> pd.DataFrame:
    """Add the names of the setting and the task. Where ``parts`` has none, the stored label is read.

    ``parameters`` are the runs' own; ``is_known`` is False for a run of which only the plan is known.
    """
    stored = frame[["label", "estimator", "schedule", "estimator_label"]].itertuples(index=False, name=None)
    known = [part or setting_from_label(*texts) for part, texts in zip(parts, stored, strict=True)]
    known = split_tasks(frame, known, is_known)
    names = zip(frame["estimator"], known, versions, strict=True)
    estimators = [_Estimator(str(name), part.estimator, version) for name, part, version in names]
    groups = list(zip(estimators, known, frame["device"], frame["task_label"], strict=True))
    unnamed = _unnamed(parameters.drop(columns=PARAM_SOURCE, errors="ignore"), is_known, groups)
    fields = [_Fields(part.axes, pairs) for part, pairs in zip(known, unnamed, strict=True)]
    estimator = distinct(estimators, _plain, _with_name, _in_quotes)
    schedule = distinct((part.schedule for part in known if part.schedule is not None), _visible, quote)
    axes = distinct(fields, _short, _full, repr)
    rows = [
        (estimator[one], None if part.schedule is None else schedule[part.schedule], axes[other])
        for one, part, other in zip(estimators, known, fields, strict=True)
    ]
    setting = distinct(rows, lambda row: joined(*row), lambda row: in_quotes(*row))
    without = [row[1] is None for row in rows]
    frame["schedule"] = frame["schedule"].mask(pd.Series(without, index=frame.index, dtype=bool))
    frame["estimator_label"] = [row[0] for row in rows]
    frame["schedule_label"] = pd.Series([row[1] for row in rows], index=frame.index, dtype=frame["label"].dtype)
    frame["axes"] = [row[2] for row in rows]
    shared, own = _split(fields, estimators, list(frame["task_label"]), list(frame["former"]))
    texts = distinct(shared, _short, _full, repr)
    frame["shared_axes"] = [texts[one] for one in shared]
    frame["own_axes"] = pd.Series(own, index=frame.index, dtype=object)
    frame["setting"] = [setting[row] for row in rows]
    return frame


def _split(
    fields: Sequence[_Fields], estimators: Sequence[_Estimator], tasks: Sequence[str], former: Sequence[bool]
) -> tuple[list[_Fields], list[Axes]]:
    """Return the fields of each run that the estimators of its task share, and those that are its estimator's own.

    A field is swept by the grid if every estimator has the same values of it. Runs of former grids do not count.
    """
    values: dict[str, dict[_Estimator, dict[str, set[str | None]]]] = {}
    for run, estimator, task, is_former in zip(fields, estimators, tasks, former, strict=True):
        if not is_former:
            of_estimator = values.setdefault(task, {}).setdefault(estimator, {})
            for name, value in run.named:
                of_estimator.setdefault(name, set()).add(value)
    own = {task: _differing(list(found.values())) for task, found in values.items()}
    mine = [own.get(task, ()) for task in tasks]
    shared = [
        run._replace(named=tuple(pair for pair in run.named if pair[0] not in names))
        for run, names in zip(fields, mine, strict=True)
    ]
    return shared, [
        tuple(pair for pair in run.named if pair[0] in names) for run, names in zip(fields, mine, strict=True)
    ]


def _differing(values: Sequence[Mapping[str, set[str | None]]]) -> Collection[str]:
    """Return the fields that do not have the same values for all estimators."""
    names = {name for of_estimator in values for name in of_estimator} - SAME_FOR_ALL
    return {name for name in names if any(each.get(name) != values[0].get(name) for each in values)}


def is_absent(value: Any) -> bool:
    """Return whether a value of a frame is missing."""
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _unnamed(parameters: pd.DataFrame, known: pd.Series, groups: Sequence[Any]) -> list[tuple[tuple[str, str], ...]]:
    """Return the parameters of each run that differ within its setting and device and that its label does not name."""
    text = parameters.astype(object).map(lambda value: None if is_absent(value) else str(value))
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    of_run = pd.Series([number[group] for group in groups], index=parameters.index)
    differs = text[known].groupby(of_run[known]).nunique().max()
    varying = sorted(str(name) for name in differs.index[differs > 1])
    return [_present(row) for row in text[varying].to_dict("records")]


def _present(row: Mapping[Any, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), value) for name, value in row.items() if isinstance(value, str))


def _plain(one: _Estimator) -> str:
    return f"{_visible(one.label)}{_version(one)}"


def _with_name(one: _Estimator) -> str:
    return f"{_visible(one.label)} ({one.name}){_version(one)}"


def _in_quotes(one: _Estimator) -> str:
    version = "" if one.version is None else f" [version {quote(one.version)}]"
    return f"{quote(one.label)} ({quote(one.name)}){version}"


def _version(one: _Estimator) -> str:
    return "" if one.version is None else f" [version {one.version or 'unknown'}]"


def _short(fields: _Fields) -> str:
    return joined(_shown(fields.named), axes_text((name, value[:SHOWN]) for name, value in fields.unnamed))


def _full(fields: _Fields) -> str:
    return joined(_shown(fields.named), _shown(fields.unnamed))


def _shown(axes: Iterable[tuple[str, str | None]]) -> str:
    return axes_text((_visible(name), None if value is None else _visible(value)) for name, value in axes)


def _visible(text: str) -> str:
    return visible(text, NAME_LENGTH)
