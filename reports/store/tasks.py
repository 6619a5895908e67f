"""The task of each run, and what the runs of a task are compared by.

Runs of an experiment may have several tasks, or one task with several parameters. The setting of such a run has the
axis `task`, whose value is the label of the task. The label tells tasks apart here, and the axis is no part of the
name of a setting, so that a setting has one name on all tasks.
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


def without_task(settings: Sequence[Setting]) -> tuple[list[Setting], list[str | None]]:
    """Return the settings without the axis of the task, and the label of the task of each; None without the axis."""
    axes = [dict(setting.axes).get(AXIS) for setting in settings]
    rest = [setting._replace(axes=tuple(pair for pair in setting.axes if pair[0] != AXIS)) for setting in settings]
    return rest, axes


def label_tasks(frame: pd.DataFrame, stated: Sequence[str | None], is_known: pd.Series) -> pd.DataFrame:
    """Fill in task, task_label and measures. ``stated`` is the label of each run that its setting has, or None.

    A run of which only the plan is known has the task of the others.
    """
    known = is_known.tolist()
    labels = [None if text is None else visible(text, NAME_LENGTH) for text in stated]
    tasks = [str(task) if isinstance(task, str) and task else None for task in frame["task"]]
    of_label = {label: task for label, task, one in zip(labels, tasks, known, strict=True) if one and task}
    names = {task for task, one in zip(tasks, known, strict=True) if one and task}
    only = names.pop() if len(names) == 1 else CATEGORICAL_VAE
    guessed = [only if label is None else of_label.get(label) or label.partition("(")[0] for label in labels]
    frame["task"] = [task or guess for task, guess in zip(tasks, guessed, strict=True)]
    own = _labels_by_parameters(frame, is_known)
    keys = [(task, label or mine) for task, label, mine in zip(frame["task"], labels, own, strict=True)]
    texts = distinct(keys, lambda key: key[1], lambda key: f"{key[1]} [{key[0]}]")
    frame["task_label"] = [texts[key] for key in keys]
    stored = set(frame.loc[is_known, "task_label"])
    is_source = is_known | ~frame["task_label"].isin(stored)  # a plan declares nothing where a run does
    declared = frame["measures"].where(is_source, "")
    frame["measures"] = declared.fillna(frame["task"].eq(CATEGORICAL_VAE).map({True: to_json(VAE_MEASURES), False: ""}))
    return frame


def _labels_by_parameters(frame: pd.DataFrame, is_known: pd.Series) -> list[str]:
    """Return a label of the task of each run: its name, and the parameters in which runs of that name differ."""
    names = [str(name) for name in frame if str(name).startswith(PARAM_TASK_PREFIX)]
    names = [name for name in names if name not in (PARAM_TASK, PARAM_TASK_SOURCE)]
    texts = frame[names].astype(object).map(_as_text)
    labels = dict(zip(frame.index, frame["task"], strict=True))
    for task, part in texts[is_known].groupby(frame.loc[is_known, "task"]):
        varying = [name for name in names if part[name].nunique() > 1]
        for index, row in part[varying].iterrows():
            shown = ", ".join(f"{name.removeprefix(PARAM_TASK_PREFIX)}={row[name]}" for name in varying if row[name])
            labels[index] = f"{task}({shown})" if shown else str(task)
    return [str(label) for label in labels.values()]


def _as_text(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)  # 2 beside 1.5, not 2.0


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
