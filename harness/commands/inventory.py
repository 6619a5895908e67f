"""What there is: estimators, schedules, data sets, grids, and this machine.

Behind `harness list` and `harness doctor`.
"""

import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from harness.errors import did_you_mean
from harness.plugins import estimator_facts
from harness.provenance import PACKAGE, provenance

Row = dict[str, Any]
WIDE = 140
"""Columns of a terminal from which on a table has room for references."""
LABEL = re.compile(r"([A-Z][a-z]+ {2,}|[a-z][a-z -]* {2,})(?=\S)")


def rows(what: str, plugins: Sequence[Path] = ()) -> list[Row]:
    """Return one row per estimator, schedule, data set or grid."""
    return {
        "estimators": lambda: _estimators(plugins),
        "schedules": _schedules,
        "datasets": _datasets,
        "grids": _grids,
    }[what]()


def table(listed: Sequence[Row], width: int) -> Table:
    """Return the rows as a table for a terminal of that many columns; the reference needs a wide one."""
    hidden = {"reference"} if width < WIDE else set()
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
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={default}" for name, default in value.items()) or "–"
    return str(value)


def explain(name: str, plugins: Sequence[Path] = (), width: int = 120) -> str:
    """Return everything that an estimator says about itself, in `width` columns: its docstring, facts and parameters.

    ValueError, in one line, for an unknown name.
    """
    known = estimator_facts.known(plugins)
    if name not in known:
        hint = did_you_mean(name, known) or f"Known: {', '.join(known)}."
        raise ValueError(f"list: expected one of {len(known)} names, got {name!r}. {hint}")
    it = known[name]
    shown = {
        "unbiased": _text(it.unbiased),
        "one-hot codes": _text(not it.relaxes) + (", and soft ones for its control variate" * it.evaluates_soft),
        "cost": "a black box will do" if it.black_box else "must be differentiable in the code",
        "evaluations": f"{it.evaluations} per example and step",
        "parameters": _text(it.parameters),
        "in a grid": _grid_entry(it),
        "temperature": f"{', '.join(it.temperatures)}, set by the schedule" if it.temperatures else "none",
        "use it": it.use_when,
    }
    indent = max(map(len, shown)) + 2
    lines = "\n".join(f"{key:<{indent}}{value}" for key, value in shown.items())
    return reflow(f"{name}\n\n{it.doc}\n\n{lines}", width)


def reflow(text: str, width: int) -> str:
    """Fit paragraphs, and entries of the form "Label     text" with their continuation lines, into `width` columns."""
    wrapped: list[str] = []
    for paragraph in text.split("\n\n"):
        entries: list[str] = []
        for line in paragraph.splitlines():
            if not entries or LABEL.match(line):
                entries.append(line)
            else:
                entries[-1] += f" {line.strip()}"
        for entry in entries:
            label = LABEL.match(entry)
            hang = " " * len(label[0]) if label else ""
            wrapped += textwrap.wrap(entry, width, subsequent_indent=hang, break_long_words=False) or [""]
        wrapped.append("")
    return "\n".join(wrapped[:-1])


def _grid_entry(it: estimator_facts.Facts) -> str:
    keys = [key for key in it.parameters if key not in it.temperatures]
    if not keys or not it.built_in:
        return it.name
    return f"{{name: {it.name}, {keys[0]}: {it.parameters[keys[0]]}}}"


def _estimators(plugins: Sequence[Path]) -> list[Row]:
    shown = ("name", "unbiased", "evaluations", "relaxes", "parameters", "reference")
    title = {"evaluations": "evals"}
    return [{title.get(key, key): getattr(it, key) for key in shown} for it in estimator_facts.known(plugins).values()]


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


def _datasets() -> list[Row]:
    from harness.datasets.descriptions import DATASETS

    return [
        {"name": name, "train": info.n_train, "test": info.n_test, "what": info.description, "how": info.how}
        for name, info in DATASETS.items()
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
        yield f"data set {name}: {found or f'missing (harness data fetch {name})'}"
