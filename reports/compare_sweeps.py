"""A comparison of two sweeps: what changed from the first to the second, setting by setting and seed by seed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reports import comparison
from reports.comparison import Metric
from reports.comparison.changes import change_points, changes, shared_runs
from reports.contract.atomic_files import Folder, write_atomically
from reports.contract.settings import SEPARATOR
from reports.contract.stored_run import VAL_LOSS
from reports.page import interval_plots, numbers, stored_provenance
from reports.page.blocks import Block, Counts, Definitions, Facts, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context, Options
from reports.page.definitions import TERMS
from reports.page.table import Cell, Column, Table
from reports.process_settings import default_settings
from reports.report import figure_files, render, table_files
from reports.sections import findings
from reports.store.frame import ABSENT, WORST, Runs
from reports.store.shared_setting_names import named_together

USED = ("setting", "pair", "interval", "p-better", "equivalence", "failures", "step-time")
HOW = (
    "Second minus first at the same seed: an interval below zero is an improvement, one above it a regression. Where "
    "all differences are exactly zero, the second sweep gave the first one's numbers again, to the last bit."
)


class Sides(NamedTuple):
    """The two sweeps with the names that the user gave them, and the report's context of each."""

    names: tuple[str, str]
    contexts: tuple[Context, Context]


@default_settings()
def build_comparison(first: tuple[str, Runs], second: tuple[str, Runs], out_dir: Path, options: Options) -> Path:
    """Write ``compare.html``, ``tables/`` and ``figures/`` under ``out_dir``; return the page.

    Raises ReportError for a metric that no run has, OSError where it cannot write.
    """
    plain = Options(metric=options.metric, title=options.title, band=options.band, ui=options.ui)
    one, other = (Context(runs, plain) for runs in named_together(first[1], second[1]))
    sides = Sides((first[0], second[0]), (one, other))
    metric = shared_metric(sides)
    rows = pd.DataFrame() if metric is None else changes([one.frame, other.frame], metric, options.band)
    sections = [_changed(sides, rows), _settings(sides, rows), _apart(sides), _methods(sides)]
    title = options.title or f"{sides.names[0]} → {sides.names[1]}"
    page = render(sides.contexts[1], sections, title=title, question="What changed from one sweep to the other?")
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


def _changed(sides: Sides, rows: pd.DataFrame) -> Section:
    """Say what got better, worse or stayed the same, and what ended differently."""
    blocks: list[Block] = []
    if shared_metric(sides) is None:
        blocks.append(Words("The two sweeps have no final metric in common.", "warn"))
    elif rows.empty:
        blocks.append(Words("The two sweeps have no setting in common that both have tried to the end.", "warn"))
    else:
        words = rows["equivalence"].where(~rows["same"], "equal")
        order = ("worse", "better", "equivalent", "undecided", "equal")
        said = {"equal": "equal to the last bit"}
        found = [f"{int((words == word).sum())} {said.get(word, word)}" for word in order if (words == word).any()]
        blocks.append(Words(f"Of {len(rows)} settings that both have: {', '.join(found)}.", "lead"))
    for name, context in zip(sides.names, sides.contexts, strict=True):
        blocks += [Heading(name), Counts(findings.counts(context.frame))]
        blocks += [Words(note, "warn") for note in context.runs.notes]
    if any(context.is_shared for context in sides.contexts):
        blocks.append(Words("Times were taken while other runs shared the machine: step times do not compare.", "warn"))
    blocks.append(Heading("What is not the same"))
    differing = list(_differing(sides))
    text = "Code, packages and machine are the same, and the configurations of the runs that both have."
    blocks.append(Facts(differing) if differing else Words(text))
    return Section("changed", "What changed", blocks)


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


def _settings(sides: Sides, rows: pd.DataFrame) -> Section:
    """Show a table and a figure of the settings that both have."""
    if rows.empty:
        return Section("settings", "Setting by setting", [Words("There is nothing to compare.", "empty")])
    context = sides.contexts[1]
    metric = shared_metric(sides)
    blocks: list[Block] = []
    if metric is not None:
        points = change_points([each.frame for each in sides.contexts], metric.name, rows)
        panel = interval_plots.difference_plot(rows.assign(versus=""), points, metric, sides.names[0], context.styles)
        blocks += [Pictures("changes", [panel])] if panel else []
        blocks.append(Tabular(_table(sides, rows, metric, context.options.band), "changes", rows))
    return Section("settings", "Setting by setting", [*blocks, How(HOW)])


def _table(sides: Sides, rows: pd.DataFrame, metric: Metric, band: float) -> Table:
    columns = [
        Column("Setting", numeric=False, term="setting"),
        Column("Device", numeric=False),
        *(Column(name, meaning="mean of the finished runs; in brackets failed ones") for name in sides.names),
        Column("Pairs", term="pair"),
        Column("Change", meaning="second − first at the same seed", term="pair"),
        Column("95 % interval", term="interval"),
        Column(f"±{numbers.fixed(band)} nats" if metric.in_nats else "Same", numeric=False, term="equivalence"),
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


def _apart(sides: Sides) -> Section:
    """Show runs that ended differently, and settings that only one sweep has."""
    first, second = (context.frame for context in sides.contexts)
    both = shared_runs((first, second))
    other = both[both["status_1"] != both["status_2"]]
    blocks: list[Block] = []
    if len(other):
        columns = [Column(title, numeric=False) for title in ("Setting", "Device", "Seed", *sides.names, "Error")]
        rows = [
            [Cell(str(row["setting"])), Cell(str(row["device"])), Cell(str(row["seed"])),
             *(Cell(str(row[f"status_{i}"]), tone="bad" if row[f"status_{i}"] in WORST else "") for i in (1, 2)),
             Cell(str(row["error_2"] or row["error_1"])[:300])]
            for row in other.to_dict("records")
        ]  # fmt: skip
        blocks.append(Tabular(Table("Runs that ended otherwise", columns, rows), "statuses"))
    for name, mine, theirs in ((sides.names[0], first, second), (sides.names[1], second, first)):
        only = sorted(_named_settings(mine) - _named_settings(theirs))
        if only:
            listed = "; ".join(SEPARATOR.join(each) for each in only[:20]) + (
                f"; and {len(only) - 20} more" if len(only) > 20 else ""
            )
            blocks.append(Words(f"Only in {name}: {listed}.", "remark"))
    text = "Every run that both have ended alike, and both have the same settings."
    return Section("apart", "What one of them has alone", blocks or [Words(text, "empty")])


def _named_settings(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(frame["setting"], frame["device"], strict=True))


def _methods(sides: Sides) -> Section:
    options, k = sides.contexts[1].options, comparison.bound_samples(sides.contexts[1].frame)
    band = numbers.fixed(options.band)
    shown = [(slug, term, meaning.format(k=k, curve=VAL_LOSS, band=band)) for slug, term, meaning in TERMS
             if slug in USED]  # fmt: skip
    commands = [(name, stored_provenance.command(context.runs))
                for name, context in zip(sides.names, sides.contexts, strict=True)]  # fmt: skip
    return Section("methods", "Methods", [Definitions(shown), Heading("Commands"), Facts(commands)])
