"""The differences between two plans: run by run, and in a few lines for the terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.storage.plan_file import Plan, PlannedRun

WIDTH = 80
MAX_LINES = 6
ABSENT = "–"
"""Stands for a setting that a run does not have."""


@dataclass(frozen=True)
class Changes:
    """The runs of two plans, compared. A changed run kept its name but has another key, so it is a new run."""

    since: str
    text_differs: bool
    added: tuple[PlannedRun, ...]
    removed: tuple[PlannedRun, ...]
    changed: tuple[tuple[PlannedRun, PlannedRun], ...]
    unchanged: tuple[tuple[PlannedRun, PlannedRun], ...]  # same key; the label may differ

    @property
    def any(self) -> bool:
        """Whether the older plan is worth keeping."""
        return self.text_differs or bool(self.added or self.removed or self.changed or self.relabelled)

    @property
    def relabelled(self) -> int:
        return sum(before.name != after.name for before, after in self.unchanged)


def compare_plans(old: Plan, new: Plan) -> Changes:
    """Compare two plans run by run. A removed and an added run of the same name count as one changed run."""
    before, after = ({run.key: run for run in plan.runs} for plan in (old, new))
    removed = {run.name: run for run in old.runs if run.key not in after}
    added = {run.name: run for run in new.runs if run.key not in before}
    return Changes(
        since=old.saved_at,
        text_differs=old.text != new.text,
        added=tuple(run for name, run in added.items() if name not in removed),
        removed=tuple(run for name, run in removed.items() if name not in added),
        changed=tuple((removed[name], run) for name, run in added.items() if name in removed),
        unchanged=tuple((before[run.key], run) for run in new.runs if run.key in before),
    )


def describe(found: Changes) -> list[str]:
    """Return a few lines of at most WIDTH characters, or none if nothing changed."""
    if counts := _counts(found):
        head = f"grid changed since {found.since[:16]}: {', '.join(counts)}"
        return [*textwrap.wrap(head, WIDTH, subsequent_indent="  "), *_differences(found)]
    if found.relabelled:
        return [f"the grid has the same runs, {found.relabelled} of them under another label"]
    return ["the grid is the same except for its text"] if found.text_differs else []


def _counts(found: Changes) -> list[str]:
    added, removed, changed = map(len, (found.added, found.removed, found.changed))
    parts = [f"{added} added"] if added else []
    if removed:
        parts.append(f"{removed} removed ({'its' if removed == 1 else 'their'} results stay)")
    if changed:
        parts.append(f"{changed} changed ({'it is a new run' if changed == 1 else 'they are new runs'})")
    if parts:
        number, _, rest = parts[0].partition(" ")
        parts[0] = f"{number} run{'s' * (number != '1')} {rest}"
    return parts


def _differences(found: Changes) -> list[str]:
    """Return a line for each change of a setting: frequent ones first, then those of settings that both runs have."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for old, new in found.changed:
        before, after = old.values, new.values
        differing = [name for name in {**before, **after} if _typed(before, name) != _typed(after, name)]
        counts.update((name, _shown(before, name), _shown(after, name)) for name in differing or [""])
    rows = sorted(counts.items(), key=lambda item: (-item[1], ABSENT in item[0], item[0]))
    lines = [_row(*change, count) for change, count in rows[:MAX_LINES]]
    if len(rows) > MAX_LINES:
        lines[-1] = f"  and {len(rows) - MAX_LINES + 1} other changes of settings"
    return lines


def _row(name: str, before: str, after: str, count: int) -> str:
    runs = f" ({count} run{'s' * (count != 1)})"
    if not name:
        return f"  no setting, but this version of the harness identifies runs in another way{runs}"
    room = max((WIDTH - len(f"  {name}:  → {runs}")) // 2, 4)
    before, after = (value if len(value) <= room else value[: room - 1] + "…" for value in (before, after))
    return f"  {name}: {before} → {after}"[: WIDTH - len(runs)] + runs


def _typed(values: Mapping[str, Any], name: str) -> tuple[type | None, Any]:
    """Return the type and value of a setting, so that 1, 1.0 and True differ, and an absent setting from None."""
    return (type(values[name]), values[name]) if name in values else (None, None)


def _shown(values: Mapping[str, Any], name: str) -> str:
    from harness.schedules import short

    if name.endswith(".source") and values.get(name):
        return str(values[name])[:8]
    value = values.get(name, ABSENT)
    return "none" if value is None else short(value)
