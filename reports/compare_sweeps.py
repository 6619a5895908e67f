"""A comparison of two sweeps: what changed from the first to the second, setting by setting and seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reports import comparison
from reports.comparison import Metric
from reports.comparison.changes import change_points, changes, shared_runs
from reports.contract.atomic_files import Folder, write_atomically
from reports.contract.errors import ReportError
from reports.contract.settings import SEPARATOR
from reports.contract.stored_run import VAL_LOSS
from reports.page import interval_plots, numbers, stored_provenance
from reports.page.blocks import Block, Counts, Definitions, Facts, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context, Options
from reports.page.definitions import terms
from reports.page.quality_tables import band_title
from reports.page.table import Cell, Column, Table
from reports.process_settings import default_settings
from reports.report import figure_files, page_of, table_files
from reports.sections import findings
from reports.store.frame import ABSENT, WORST, Runs
from reports.store.shared_setting_names import named_together

USED = ("setting", "pair", "interval", "p-better", "equivalence", "failures", "step-time")
HOW = (
    "Second minus first at the same seed: an interval {below} zero is an improvement, one {above} it a regression. "
    "Where all differences are exactly zero, the second sweep gave the first one's numbers again, to the last bit."
)


class Sides(NamedTuple):
    """One task of the two sweeps, with the names that the user gave them, and the report's context of each."""

    names: tuple[str, str]
    contexts: tuple[Context, Context]


@default_settings()
def build_comparison(first: tuple[str, Runs], second: tuple[str, Runs], out_dir: Path, options: Options) -> Path:
    """Write ``compare.html``, ``tables/`` and ``figures/`` under ``out_dir``; return the page.

    Raises ReportError for a metric that no run has and for sweeps without a common task, OSError where it cannot write.
    """
    plain = Options(metric=options.metric, title=options.title, band=options.band, ui=options.ui)
    names, both = (first[0], second[0]), named_together(first[1], second[1])
    tasks = {label: Compared(sides := _sides(names, both, label, plain), _changes(sides)) for label in _shared(*both)}
    sections = [
        _changed(names, both, tasks),
        _settings(tasks),
        _apart(names, both, tasks),
        _methods(names, both, tasks),
    ]
    title, question = options.title or f"{names[0]} → {names[1]}", "What changed from one sweep to the other?"
    styles = {label: style for each in tasks.values() for label, style in each.sides.contexts[1].styles.items()}
    colour = {name: number for each in tasks.values() for name, number in each.sides.contexts[1].colour.items()}
    page = page_of(sections, title, question, styles, colour)
    with Folder(out_dir / "tables") as tables_folder, Folder(out_dir / "figures") as figures_folder:
        for name, content in table_files(sections).items():
            tables_folder.write(name, content)
        for name, content in figure_files(sections, pdf=False):
            figures_folder.write(name, content)
    write_atomically(out_dir / "compare.html", page)
    return out_dir / "compare.html"


def shared_metric(sides: Sides) -> Metric | None:
    """Return the metric that both are compared by: the first of the second sweep that the first has too."""
    return next((metric for metric in sides.contexts[1].metrics if metric.name in sides.contexts[0].frame), None)


class Compared(NamedTuple):
    """One task of the two sweeps, and the change of each setting that both have."""

    sides: Sides
    rows: pd.DataFrame


Tasks = Mapping[str, Compared]
"""By the labels of the tasks that both sweeps have."""
Names = tuple[str, str]


def _shared(one: Runs, other: Runs) -> list[str]:
    """Return the labels of the tasks that both have. Raises ReportError if there is none."""
    shared = [label for label in other.tasks if label in one.tasks]
    if not shared:
        there = " and ".join(", ".join(runs.tasks) for runs in (one, other))
        raise ReportError(f"--compare: expected sweeps with a task in common, got {there}.")
    return shared


def _sides(names: Names, both: Sequence[Runs], label: str, options: Options) -> Sides:
    """Return one task of both sweeps. All tasks share the colours of the second sweep."""
    one, other = (runs if runs.tasks == [label] else runs.of_task(label) for runs in both)
    coloured = None if len(both[1].tasks) == 1 else both[1].runs
    return Sides(names, (Context(one, options), Context(other, options, coloured)))


def _changes(sides: Sides) -> pd.DataFrame:
    metric = shared_metric(sides)
    return pd.DataFrame() if metric is None else changes([each.frame for each in sides.contexts], metric)


def _changed(names: Names, both: Sequence[Runs], tasks: Tasks) -> Section:
    """Say what got better, worse or stayed the same, and what ended differently."""
    blocks: list[Block] = []
    for label, (sides, rows) in tasks.items():
        blocks += [Heading(label)] if len(tasks) > 1 else []
        blocks.append(_outcome(sides, rows))
    for name, runs in zip(names, both, strict=True):
        blocks += [Heading(name), Counts(findings.counts(runs.runs))]
        blocks += [Words(note, "warn") for note in runs.notes]
    if any(context.is_shared for each in tasks.values() for context in each.sides.contexts):
        blocks.append(Words("Times were taken while other runs shared the machine: step times do not compare.", "warn"))
    blocks.append(Heading("What is not the same"))
    differing = list(dict.fromkeys(pair for each in tasks.values() for pair in _differing(each.sides)))
    text = "Code, packages and machine are the same, and the configurations of the runs that both have."
    blocks.append(Facts(differing) if differing else Words(text))
    return Section("changed", "What changed", blocks)


def _outcome(sides: Sides, rows: pd.DataFrame) -> Words:
    """Return how many settings got better, worse or stayed the same."""
    if shared_metric(sides) is None:
        return Words("The two sweeps have no final metric in common.", "warn")
    if rows.empty:
        return Words("The two sweeps have no setting in common that both have tried to the end.", "warn")
    words = rows["equivalence"].where(~rows["same"], "equal")
    order = ("worse", "better", "equivalent", "undecided", "equal", "")
    said = {"equal": "equal to the last bit", "": "changed; no band is declared that would tell a change that matters"}
    found = [f"{int((words == word).sum())} {said.get(word, word)}" for word in order if (words == word).any()]
    return Words(f"Of {len(rows)} settings that both have: {', '.join(found)}.", "lead")


def _differing(sides: Sides) -> list[tuple[str, str]]:
    """Return what differs, first → second: of provenance, and of the configurations of the shared runs."""
    one, other = (
        dict(stored_provenance.facts(c.runs.sweeps[-1].provenance)) if c.runs.sweeps else {} for c in sides.contexts
    )
    names = [*one, *(name for name in other if name not in one)]
    found = [(name, f"{one.get(name, 'not stored')} → {other.get(name, 'not stored')}")
             for name in names if one.get(name) != other.get(name)]  # fmt: skip
    both = shared_runs([context.frame[~context.frame["status"].isin(ABSENT)] for context in sides.contexts])
    for column in sorted(str(name).removesuffix("_1") for name in both if str(name).endswith("_1")):
        if "." in column and "/" not in column and f"{column}_2" in both:
            texts = [both[f"{column}_{i}"].map(_said) for i in (1, 2)]
            pairs = [f"{a} → {b}" for a, b in zip(*texts, strict=True) if a != b]
            kinds = list(dict.fromkeys(pairs))
            more = f", and {len(kinds) - 3} more" if len(kinds) > 3 else ""
            found += [(column, f"{', '.join(kinds[:3])}{more} (in {len(pairs)} of {len(both)} runs)")] if pairs else []
    return found


def _said(value: object) -> str:
    return "not set" if value is None or value is pd.NA or value != value else str(value)


def _settings(tasks: Tasks) -> Section:
    """Show a table and a figure of the settings that both have, for each task."""
    blocks: list[Block] = []
    for number, (label, each) in enumerate(tasks.items(), 1):
        several = len(tasks) > 1
        blocks += [Heading(label)] if several else []
        blocks += _settings_of(each, f"changes-{number}" if several else "changes", label if several else "")
    return Section("settings", "Setting by setting", blocks)


def _settings_of(compared: Compared, figure: str, label: str) -> list[Block]:
    """Return the figure, the table and how to read them, of one task; the table names it if ``label`` is not empty."""
    sides, rows = compared
    metric = shared_metric(sides)
    if rows.empty or metric is None:
        return [Words("There is nothing to compare.", "empty")]
    points = change_points([each.frame for each in sides.contexts], metric, rows)
    styles = sides.contexts[1].styles
    panel = interval_plots.difference_plot(rows.assign(versus=""), points, metric, sides.names[0], styles)
    frame = rows.assign(task=label, metric=metric.name) if label else rows
    sides_of_zero = ("below", "above") if metric.sign > 0 else ("above", "below")
    how = How(HOW.format(below=sides_of_zero[0], above=sides_of_zero[1]))
    shown = [Pictures(figure, [panel])] if panel else []
    return [*shown, Tabular(_table(sides, rows, metric), "changes", frame), how]


def _table(sides: Sides, rows: pd.DataFrame, metric: Metric) -> Table:
    columns = [
        Column("Setting", numeric=False, term="setting"),
        Column("Device", numeric=False),
        *(Column(name, meaning="mean of the finished runs; in brackets failed ones") for name in sides.names),
        Column("Pairs", term="pair"),
        Column("Change", meaning="second − first at the same seed", term="pair"),
        Column("95 % interval", term="interval"),
        Column("Same" if metric.band is None else band_title(metric), numeric=False, term="equivalence"),
        Column("Step time", meaning="second ÷ first, medians", term="step-time"),
    ]
    shown = []
    for row in rows.to_dict("records"):
        word = "equal" if row["same"] else str(row["equivalence"])
        tone = {"better": "good", "worse": "bad"}.get(word, "")
        ratio, width = row["step_ratio"], row["high"] - row["low"]
        span = numbers.interval(row["low"], row["high"], metric.digits, signed=True)
        levels = [_level(row[f"mean_{i}"], row[f"failed_{i}"], metric) for i in (1, 2)]
        change = numbers.fixed(row["mean"], metric.digits, signed=True)
        shown.append([
            Cell(str(row["setting"]), str(row["setting"]), estimator=str(row["estimator"])),
            Cell(str(row["device"]), str(row["device"])), *levels, Cell(str(row["n_pairs"]), row["n_pairs"]),
            Cell(change, None if math.isnan(row["mean"]) else row["mean"], tone=tone),
            Cell(span, None if math.isnan(width) else width, tone=tone),
            Cell(word, word, tone=tone or "quiet"),
            Cell("–" if math.isnan(ratio) else f"× {ratio:.2f}", None if math.isnan(ratio) else ratio),
        ])  # fmt: skip
    caption = f"{metric.title}: {sides.names[1]} against {sides.names[0]}"
    return Table(", ".join(filter(None, [caption, metric.per])), columns, shown)


def _level(mean: float, failed: int, metric: Metric) -> Cell:
    text = numbers.fixed(mean, metric.digits) + (f" ({failed})" if failed else "")
    return Cell(text, None if math.isnan(mean) else mean, tone="warn" if failed else "")


def _apart(names: Names, both: Sequence[Runs], tasks: Tasks) -> Section:
    """Show runs that ended differently, and tasks and settings that only one sweep has."""
    parts = [shared_runs([context.frame for context in each.sides.contexts]) for each in tasks.values()]
    ended = pd.concat([part[part["status_1"] != part["status_2"]] for part in parts], ignore_index=True)
    blocks: list[Block] = []
    if len(ended):
        columns = [Column(title, numeric=False) for title in ("Setting", "Device", "Seed", *names, "Error")]
        rows = [
            [Cell(str(row["setting"])), Cell(str(row["device"])), Cell(str(row["seed"])),
             *(Cell(str(row[f"status_{i}"]), tone="bad" if row[f"status_{i}"] in WORST else "") for i in (1, 2)),
             Cell(str(row["error_2"] or row["error_1"])[:300])]
            for row in ended.to_dict("records")
        ]  # fmt: skip
        blocks.append(Tabular(Table("Runs that ended otherwise", columns, rows), "statuses"))
    for name, mine, theirs in ((names[0], both[0], both[1]), (names[1], both[1], both[0])):
        only = sorted(_named_settings(mine) - _named_settings(theirs))
        if only:
            listed = "; ".join(SEPARATOR.join(each) for each in only[:20]) + (
                f"; and {len(only) - 20} more" if len(only) > 20 else ""
            )
            blocks.append(Words(f"Only in {name}: {listed}.", "remark"))
    text = "Every run that both have ended alike, and both have the same settings."
    return Section("apart", "What one of them has alone", blocks or [Words(text, "empty")])


def _named_settings(runs: Runs) -> set[tuple[str, ...]]:
    """Return the settings with their devices, and with their tasks if there are several."""
    frame = runs.runs
    tasks = frame["task_label"] if len(runs.tasks) > 1 else [""] * len(frame)
    return {tuple(filter(None, key)) for key in zip(tasks, frame["setting"], frame["device"], strict=True)}


def _methods(names: Names, both: Sequence[Runs], tasks: Tasks) -> Section:
    """Show the terms of the first task, and the commands."""
    context = next(iter(tasks.values())).sides.contexts[1]
    found = terms(context, comparison.bound_samples(context.frame), VAL_LOSS)
    shown = [term for term in found if term[0] in USED]
    commands = [(name, stored_provenance.command(runs)) for name, runs in zip(names, both, strict=True)]
    return Section("methods", "Methods", [Definitions(shown), Heading("Commands"), Facts(commands)])
