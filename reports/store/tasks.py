"""The task of each run, and what the runs of a task are compared by.

Runs of an experiment may have several tasks, or one task with several parameters. The axes of the setting of such a run
begin with `task` and the parameters that differ, such as `p`. They make the label of the task here, `polynomial(p=2)`,
and are no part of the name of a setting, so that a setting has one name on all tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports.contract.errors import ReportError
from reports.contract.measures import VAE_MEASURES, DeclaredMeasure, from_json, to_json
from reports.contract.settings import Setting, distinct
from reports.contract.stored_run import (
    CATEGORICAL_VAE,
    PARAM_TASK,
    PARAM_TASK_PREFIX,
    PARAM_TASK_SOURCE,
    TAG_MEASURES,
    TAG_TASK,
)
from reports.contract.text import NAME_LENGTH, visible

AXIS = TAG_TASK
"""The name of the axis of a setting that tells tasks apart."""
_WHOLE = 1e6
"""Whole numbers below this are shown without a point."""


def stated_task(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the task of a run, its measures as text, and why they cannot be read, from its tags as they are stored.

    The measures are an empty text if they cannot be read. A run without either tag is one of the VAE.
    """
    task = visible(tags.get(TAG_TASK, CATEGORICAL_VAE), NAME_LENGTH) or "unknown"
    if TAG_MEASURES not in tags and task == CATEGORICAL_VAE:
        return {"task": task, "measures": to_json(VAE_MEASURES)}
    if TAG_MEASURES not in tags:
        return {"task": task, "measures": "", "unreadable": "there is none"}
    try:
        return {"task": task, "measures": to_json(from_json(tags[TAG_MEASURES]))}
    except ValueError as reason:
        return {"task": task, "measures": "", "unreadable": str(reason)}


def unreadable_notes(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return a line for each task with runs whose measures cannot be read."""
    reasons: dict[str, list[str]] = {}
    for record in records:
        if record.get("unreadable"):
            reasons.setdefault(str(record["task"]), []).append(str(record["unreadable"]))
    return tuple(
        f"The measures that {len(found)} {'run states' if len(found) == 1 else 'runs state'} cannot be read "
        f"(task {task}, tag {TAG_MEASURES}: {found[0]}). Those of other runs of the task are used, or else its loss."
        for task, found in sorted(reasons.items())
    )


def split_tasks(frame: pd.DataFrame, settings: Sequence[Setting], is_known: pd.Series) -> list[Setting]:
    """Fill in task, task_label and measures of the frame, and return the settings without the axes of the task.

    The label of a task is its name, and its parameters where they differ between runs of that name. A run of which only
    the plan is known has the task of the others.
    """
    params = _parameters(frame)
    own = [_own_axes(setting, params, index) for index, setting in zip(frame.index, settings, strict=True)]
    _fill_in_names(frame, [_text(dict(pairs).get(AXIS)) for pairs in own], is_known)
    labels = [_label(_text(dict(pairs).get(AXIS)) or task, [pair for pair in pairs if pair[0] != AXIS])
              for task, pairs in zip(frame["task"], own, strict=True)]  # fmt: skip
    labels = _tell_apart(labels, params, is_known)
    keys = list(zip(frame["task"], labels, strict=True))
    texts = distinct(keys, lambda key: key[1], lambda key: f"{key[1]} [{key[0]}]")
    frame["task_label"] = [texts[key] for key in keys]
    _fill_in_measures(frame, is_known)
    return [setting._replace(axes=setting.axes[len(pairs) :]) for setting, pairs in zip(settings, own, strict=True)]


def _parameters(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the parameters of the tasks as texts that differ between runs of one task; an empty text for none."""
    names = [str(name) for name in frame if str(name).startswith(PARAM_TASK_PREFIX)]
    names = [name for name in names if name not in (PARAM_TASK, PARAM_TASK_SOURCE)]
    texts = frame[names].astype(object).map(_as_text)
    counts = texts.mask(texts == "").groupby(frame["task"]).nunique()
    found = texts[[name for name in names if (counts[name] > 1).any()]]
    return found.rename(columns=lambda name: name.removeprefix(PARAM_TASK_PREFIX))


def _own_axes(setting: Setting, params: pd.DataFrame, index: Any) -> tuple[tuple[str, str | None], ...]:
    """Return the axes that belong to the task. They come first: its name, then its parameters."""
    found: list[tuple[str, str | None]] = []
    for pair in setting.axes:
        name, value = pair
        is_other = name in params and params.at[index, name] not in ("", value)  # another field of that name
        if name in dict(found) or not (name == AXIS or (name in params and not is_other)):
            break
        found.append(pair)
    return tuple(found)


def _fill_in_names(frame: pd.DataFrame, stated: Sequence[str], is_known: pd.Series) -> None:
    """Give a run without a stored task the one of its axis, or else the only one that there is."""
    tasks = [task if isinstance(task, str) else "" for task in frame["task"]]
    names = {task for task, known in zip(tasks, is_known, strict=True) if known and task}
    only = names.pop() if len(names) == 1 else CATEGORICAL_VAE
    guessed = [text.partition("(")[0] if text else only for text in stated]
    frame["task"] = [task or guess for task, guess in zip(tasks, guessed, strict=True)]


def _tell_apart(labels: Sequence[str], params: pd.DataFrame, is_known: pd.Series) -> list[str]:
    """Return labels with the parameters in which runs of one label still differ, as those of several grids may."""
    found = dict(zip(params.index, labels, strict=True))
    for label, part in params[is_known].groupby(pd.Series(found)[is_known]):
        varying = [str(name) for name in part if part[name].nunique() > 1]
        for index, row in part[varying].iterrows() if varying else ():
            found[index] = _label(str(label), [(name, row[name]) for name in varying if row[name]])
    return list(found.values())


def _fill_in_measures(frame: pd.DataFrame, is_known: pd.Series) -> None:
    """Give runs of the VAE its measures where nothing is stated; a plan states nothing where a run of the task does."""
    stored = set(frame.loc[is_known, "task_label"])
    declared = frame["measures"].where(is_known | ~frame["task_label"].isin(stored), "")
    usual = frame["task"].eq(CATEGORICAL_VAE).map({True: to_json(VAE_MEASURES), False: ""})
    frame["measures"] = declared.fillna(usual)


def _label(name: str, pairs: Sequence[tuple[str, str | None]]) -> str:
    """Return ``polynomial(p=2)``."""
    shown = ", ".join(f"{key}={_text(value)}" for key, value in pairs)
    return visible(f"{name}({shown})" if shown else name, NAME_LENGTH)


def _text(value: str | None) -> str:
    return "" if value is None else visible(value, NAME_LENGTH)


def _as_text(value: Any) -> str:
    """Return a parameter as an axis has it: 2.0 as 2, True as true; an empty text for none."""
    if isinstance(value, list):
        return f"[{', '.join(map(_as_text, value))}]"
    if value is None or value is pd.NA or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE
    return str(int(value)) if is_whole else str(value)


def task_labels(runs: pd.DataFrame) -> list[str]:
    """Return the labels of the tasks that runs have, in the order of their texts."""
    return sorted(set(runs["task_label"])) if "task_label" in runs else [CATEGORICAL_VAE]


def is_vae(runs: pd.DataFrame) -> bool:
    """Return whether the runs are of the categorical VAE, as all are that do not say so."""
    return "task" not in runs or bool((runs["task"] == CATEGORICAL_VAE).all())


def measures_of(runs: pd.DataFrame) -> tuple[DeclaredMeasure, ...]:
    """Return what the runs of one task are compared by: what the run that started last declares.

    Nothing if no run has a declaration that can be read. Raises ReportError for runs of several tasks.
    """
    if len(several := task_labels(runs)) > 1:
        listed = ", ".join(several)
        raise ReportError(f"task: expected runs of one task, got {listed}. Take those of one: runs.of_task(NAME).")
    if "measures" not in runs:
        return VAE_MEASURES
    stated = runs[runs["measures"].notna() & runs["measures"].ne("")]
    if stated.empty:
        return ()
    return from_json(str(stated.sort_values("start", kind="stable", na_position="first")["measures"].iloc[-1]))


def changed_measures(runs: pd.DataFrame) -> tuple[str, ...]:
    """Return a line for each task whose runs declare different measures."""
    kinds = runs[runs["measures"].ne("")].groupby("task_label", sort=True)["measures"].nunique()
    return tuple(
        f"Runs of the task {label} declare different measures, because it was edited since: those of the run that "
        "started last are used for all."
        for label in kinds.index[kinds > 1]
    )
