"""What `harness list` and `harness doctor` print: estimators, schedules, data sets, grids and this machine."""

import inspect
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from harness.plugins import estimator_facts, task_facts
from harness.plugins.loading import DATASETS
from harness.plugins.registry import datasets_of, load_registry
from harness.provenance import PACKAGE, provenance

Row = dict[str, Any]
WIDE = 140
"""The number of terminal columns from which on a table has room for references."""
_LABEL = re.compile(r"([A-Z][a-z]+ {2,}|[a-z][a-z -]* {2,})(?=\S)")


def rows(what: str, plugins: Sequence[Path] = ()) -> list[Row]:
    """Return one row per estimator, task, schedule, data set or grid."""
    return {
        "estimators": lambda: _estimators(plugins),
        "tasks": lambda: task_facts.rows(plugins),
        "schedules": _schedules,
        "datasets": lambda: _datasets(plugins),
        "grids": _grids,
    }[what]()


def table(listed: Sequence[Row], width: int) -> Table:
    """Return the rows as a table for a terminal of that many columns. References are shown in wide terminals only.

    The other names of estimators are not shown: `list estimators NAME` takes any of them.
    """
    hidden = {"aliases"} | ({"reference"} if width < WIDE else set())
    result = Table(box=None, pad_edge=False)
    for i, title in enumerate(listed[0] if listed else ("nothing found",)):
        if title not in hidden:
            result.add_column(title, overflow="fold", no_wrap=i == 0)
    for row in listed:
        result.add_row(*(escape(_text(value)) for title, value in row.items() if title not in hidden))
    return result


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={default}" for name, default in value.items()) or "–"
    return str(value)


def facts_of(name: str, plugins: Sequence[Path] = ()) -> Row:
    """Return the facts of an estimator as `list estimators NAME --json` prints them; `asked` is the name as given.

    Raises ValueError with a one-line message for an unknown name.
    """
    facts, meaning = estimator_facts.find(name, plugins)
    return {"asked": name, "meaning": meaning or None, **asdict(facts)}


def explain(name: str, plugins: Sequence[Path] = (), width: int = 120) -> str:
    """Return the docstring, facts and parameters of an estimator, folded to `width` columns.

    With another name of it, a line about that name comes first. Raises ValueError with a one-line message for an
    unknown name.
    """
    facts, meaning = estimator_facts.find(name, plugins)
    shown = {
        "unbiased": _text(facts.unbiased),
        "one-hot codes": _text(not facts.relaxes) + (", and soft ones for its control variate" * facts.evaluates_soft),
        "cost": "can be a black box" if facts.black_box else "must be differentiable in the code",
        "evaluations": f"{facts.evaluations} per example and step",
        "parameters": _text(_with_required(facts)),
        "in a grid": _grid_entry(facts),
        "temperature": f"{', '.join(facts.temperatures)}, set by the schedule" if facts.temperatures else "none",
        "use it": facts.use_when,
        "other names": ", ".join(facts.aliases) or "–",
    }
    indent = max(map(len, shown)) + 2
    lines = "\n".join(f"{key:<{indent}}{value}" for key, value in shown.items())
    first = f"{meaning}\n\n" if meaning else ""
    return reflow(f"{first}{facts.name}\n\n{facts.doc}\n\n{lines}", width)


def explain_task(name: str, plugins: Sequence[Path] = (), width: int = 120) -> str:
    """Return the docstring, measures and parameters of a task, folded to `width` columns.

    Raises ValueError with a one-line message for an unknown name.
    """
    return reflow(task_facts.explain(name, plugins), width)


def reflow(text: str, width: int) -> str:
    """Fold text to `width` columns: paragraphs, and entries "Label     text" with their continuation lines."""
    wrapped: list[str] = []
    for paragraph in text.split("\n\n"):
        entries: list[str] = []
        for line in paragraph.splitlines():
            if not entries or _LABEL.match(line):
                entries.append(line)
            else:
                entries[-1] += f" {line.strip()}"
        for entry in entries:
            label = _LABEL.match(entry)
            hang = " " * len(label[0]) if label else ""
            wrapped += textwrap.wrap(entry, width, subsequent_indent=hang, break_long_words=False) or [""]
        wrapped.append("")
    return "\n".join(wrapped[:-1])


def _with_required(facts: estimator_facts.Facts) -> Row:
    """Return the parameters with their defaults, "required" for those that must be given."""
    return {**facts.parameters, **dict.fromkeys(facts.examples, "required")}


def _grid_entry(facts: estimator_facts.Facts) -> str:
    keys = [key for key in facts.parameters if key not in facts.temperatures]
    if not keys or not facts.built_in:
        return facts.name
    values = {**facts.parameters, **facts.examples}
    return f"{{name: {facts.name}, {keys[0]}: {values[keys[0]]}}}"


def _estimators(plugins: Sequence[Path]) -> list[Row]:
    shown = ("name", "unbiased", "evaluations", "relaxes", "parameters", "reference", "aliases")
    title = {"evaluations": "evals"}
    known = estimator_facts.known(plugins)
    rows = [{title.get(key, key): getattr(facts, key) for key in shown} for facts in known.values()]
    return [{**row, "parameters": _with_required(facts)} for row, facts in zip(rows, known.values(), strict=True)]


def _schedules() -> list[Row]:
    from harness.schedules import KINDS

    return [
        {
            "kind": kind,
            "parameters": {
                field.alias or name: "required" if field.is_required() else field.default
                for name, field in cls.model_fields.items()
                if name not in ("kind", "custom_label")
            },
            "what": (cls.__doc__ or "").strip().splitlines()[0],
        }
        for kind, cls in KINDS.items()
    ]


def _datasets(plugins: Sequence[Path]) -> list[Row]:
    from harness.datasets.descriptions import DATASETS
    from harness.datasets.image_source import OWN

    built_in = [(name, info.n_train, info.n_test, info.description, info.how) for name, info in DATASETS.items()]
    own = [(name, None, None, what, f"data: {{name: {name}, path: …}}") for name, what in OWN.items()]
    own += [(name, None, None, what, f"data: {{name: {name}}}") for name, what in _plugged_datasets(plugins)]
    return [dict(zip(("name", "train", "test", "what", "how"), row, strict=True)) for row in built_in + own]


def _plugged_datasets(plugins: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the data sets of plug-ins and what they are, by the first lines of their docstrings."""
    if not plugins and not entry_points(group=DATASETS):
        return []  # the registry would load torch
    found = datasets_of(load_registry(plugins))
    return [
        (name, inspect.cleandoc(cls.__doc__ or "Images of a plug-in").partition("\n")[0]) for name, cls in found.items()
    ]


def _grids() -> list[Row]:
    folder = PACKAGE.parent / "experiments"
    return [{"file": os.path.relpath(path), "what": _first_comment(path)} for path in sorted(folder.glob("*.yaml"))]


def _first_comment(path: Path) -> str:
    line = path.read_text(encoding="utf-8").splitlines()[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def doctor() -> Iterator[str]:
    """Yield lines about this machine: versions, devices, data sets."""
    import torch

    from harness.datasets.descriptions import DATASETS
    from harness.datasets.files import default_data_dir, is_complete
    from harness.devices import missing_reason

    facts = provenance()
    yield f"python {facts['python']} on {facts['platform']}"
    yield f"cpu: {facts['cpu']}, {facts['cpu_count']} cores, {facts['cpu_capability']}"
    yield f"torch threads: {torch.get_num_threads()}"
    for device in ("cpu", "cuda", "mps"):
        yield f"device {missing_reason(device) or f'{device}: available'}"
    for name, package in facts["packages"].items():
        yield f"{name}: {package or 'not installed'}"
    for name, info in DATASETS.items():
        found = "embedded" if info.embedded else "present" if is_complete(info, default_data_dir()) else ""
        yield f"data set {name}: {found or f'missing ({info.how})'}"
