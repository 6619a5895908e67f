"""Two sweeps side by side: what changed from the first to the second, setting by setting and seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from reports import comparison, figures, provenance, tables, verdict
from reports import statistics as st
from reports.blocks import Block, Counts, Definitions, Facts, Heading, How, Pictures, Section, Tabular, Words
from reports.context import Context, Options
from reports.definitions import TERMS
from reports.files import write_atomically, write_bytes_atomically
from reports.frame import WORST, Runs
from reports.html import figure_files, render, table_files
from reports.tables import Cell, Column, Table

USED = ("setting", "pair", "interval", "p-better", "equivalence", "failures", "step-time")
HOW = (
    "Second minus first at the same seed: an interval below zero is an improvement, one above it a regression. Where "
    "all differences are exactly zero, the second sweep gave the first one's numbers again, to the last bit."
)


class Sides(NamedTuple):
    """The two sweeps with the names that the user gave them, and the report's context of each."""

    names: tuple[str, str]
    contexts: tuple[Context, Context]


def build_comparison(first: tuple[str, Runs], second: tuple[str, Runs], out_dir: Path, options: Options) -> Path:
    """Write ``compare.html``, ``tables/`` and ``figures/`` under ``out_dir``; return the page.

    Raises ReportError for a metric that no run has, OSError where it cannot write.
    """
    plain = Options(metric=options.metric, title=options.title, band=options.band, ui=options.ui)
    sides = Sides((first[0], second[0]), (Context(first[1], plain), Context(second[1], plain)))
    rows = changes(sides, options.band)
    sections = [_changed(sides, rows), _settings(sides, rows), _apart(sides), _methods(sides)]
    title = options.title or f"{sides.names[0]} → {sides.names[1]}"
    page = render(sides.contexts[1], sections, title=title, question="What changed from one sweep to the other?")
    (out_dir / "tables").mkdir(parents=True, exist_ok=True)
    (out_dir / "figures").mkdir(exist_ok=True)
    for name, text in table_files(sections).items():
        write_atomically(out_dir / "tables" / name, text)
    for name, content in figure_files(sections, pdf=False):
        write_bytes_atomically(out_dir / "figures" / name, content)
    write_atomically(out_dir / "compare.html", page)
    return out_dir / "compare.html"


def changes(sides: Sides, band: float) -> pd.DataFrame:
    """One row per setting and device that both sweeps have: levels, and the paired difference second − first."""
    metric = sides.contexts[1].primary or sides.contexts[0].primary
    frames = [context.frame for context in sides.contexts]
    if metric is None or any(metric.name not in frame for frame in frames):
        return pd.DataFrame()
    tried = [comparison.by_seed(frame, metric.name) for frame in frames]
    about = frames[1].drop_duplicates(comparison.SETTING).set_index(comparison.SETTING)
    steps = [_step_s(frame) for frame in frames]
    rows = []
    for key in sorted(tried[0].keys() & tried[1].keys()):
        mine = [pd.Series(each[key], dtype=float) for each in tried]
        pairs = _pairs(tried[0][key], tried[1][key])
        finite = pairs[np.isfinite(pairs)]
        interval = st.t_interval(finite)
        rows.append({
            **dict(zip(comparison.SETTING, key, strict=True)),
            **{name: about.loc[key, name] for name in ("estimator", "estimator_label")},
            **{f"mean_{i}": st.mean(each[np.isfinite(each)].to_numpy()) for i, each in enumerate(mine, 1)},
            **{f"failed_{i}": int(np.isinf(each).sum()) for i, each in enumerate(mine, 1)},
            "n_pairs": len(pairs), "n_bad": len(pairs) - len(finite), "mean": st.mean(finite),
            "low": interval.low, "high": interval.high, "same": bool(len(pairs)) and bool(np.all(pairs == 0)),
            "equivalence": st.equivalence(pairs, band),
            "step_ratio": steps[1].get(key, math.nan) / steps[0].get(key, math.nan),
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    return frame.sort_values(["mean", "setting"], ascending=[False, True], kind="stable").reset_index(drop=True)


def _pairs(first: Mapping[int, float], second: Mapping[int, float]) -> np.ndarray:
    """The differences second − first at the seeds of both."""
    seeds = sorted(first.keys() & second.keys())
    return st.paired_differences([second[seed] for seed in seeds], [first[seed] for seed in seeds])


def _step_s(frame: pd.DataFrame) -> Mapping[tuple[str, str], float]:
    if "time/step_s_median" not in frame:
        return {}
    finished = frame[frame["status"] == "finished"]
    found = finished.groupby(comparison.SETTING)["time/step_s_median"].median()
    return {(str(setting), str(device)): float(value) for (setting, device), value in found.items()}  # type: ignore[misc]


def _changed(sides: Sides, rows: pd.DataFrame) -> Section:
    """In a sentence or two: better, worse, the same; and what ended otherwise."""
    blocks: list[Block] = []
    if rows.empty:
        blocks.append(Words("The two sweeps have no setting in common that both have tried to the end.", "warn"))
    else:
        words = rows["equivalence"].where(~rows["same"], "equal")
        order = ("worse", "better", "equivalent", "undecided", "equal")
        said = {"equal": "equal to the last bit"}
        found = [f"{int((words == word).sum())} {said.get(word, word)}" for word in order if (words == word).any()]
        blocks.append(Words(f"Of {len(rows)} settings that both have: {', '.join(found)}.", "lead"))
    for name, context in zip(sides.names, sides.contexts, strict=True):
        blocks += [Heading(name), Counts(verdict.counts(context.frame))]
        blocks += [Words(note, "warn") for note in context.runs.notes]
    blocks.append(Heading("What is not the same"))
    differing = list(_differing(sides))
    text = "Code, packages, machine and settings are the same, as far as they were stored."
    blocks.append(Facts(differing) if differing else Words(text))
    return Section("changed", "What changed", blocks)


def _differing(sides: Sides) -> list[tuple[str, str]]:
    """What provenance and configuration say that is not the same, first → second."""
    stored = [dict(provenance.facts(c.runs.sweeps[-1].provenance)) if c.runs.sweeps else {} for c in sides.contexts]
    settings = [dict(provenance.settings(context.frame)) for context in sides.contexts]
    found = []
    for one, other in (stored, settings):
        names = [*one, *(name for name in other if name not in one)]
        found += [(name, f"{one.get(name, 'not stored')} → {other.get(name, 'not stored')}") for name in names
                  if one.get(name) != other.get(name) and name not in ("seed", "device")]  # fmt: skip
    return found


def _settings(sides: Sides, rows: pd.DataFrame) -> Section:
    """Table and figure of the settings that both have."""
    if rows.empty:
        return Section("settings", "Setting by setting", [Words("There is nothing to compare.", "empty")])
    context = sides.contexts[1]
    metric = context.primary
    blocks: list[Block] = []
    if metric is not None:
        points = _points(sides, rows, metric.name)
        panel = figures.difference_plot(rows.assign(versus=""), points, metric, sides.names[0], context.look)
        blocks += [Pictures("changes", [panel])] if panel else []
        blocks.append(Tabular(_table(sides, rows, metric.title, context.options.band), "changes", rows))
    return Section("settings", "Setting by setting", [*blocks, How(HOW)])


def _points(sides: Sides, rows: pd.DataFrame, metric: str) -> list[np.ndarray]:
    tried = [comparison.by_seed(context.frame, metric) for context in sides.contexts]
    return [_pairs(tried[0][key], tried[1][key]) for key in zip(rows["setting"], rows["device"], strict=True)]


def _table(sides: Sides, rows: pd.DataFrame, title: str, band: float) -> Table:
    columns = [
        Column("Setting", numeric=False, term="setting"),
        Column("Device", numeric=False),
        *(Column(name, meaning="mean of the finished runs; in brackets failed ones") for name in sides.names),
        Column("Pairs", term="pair"),
        Column("Change", meaning="second − first at the same seed", term="pair"),
        Column("95 % interval", term="interval"),
        Column(f"±{tables.number(band)} nats", numeric=False, term="equivalence"),
        Column("Step time", meaning="second ÷ first, medians", term="step-time"),
    ]
    shown = []
    for row in rows.to_dict("records"):
        word = "equal" if row["same"] else str(row["equivalence"])
        tone = {"better": "good", "worse": "bad"}.get(word, "")
        ratio, width = row["step_ratio"], row["high"] - row["low"]
        span = tables.interval(row["low"], row["high"], signed=True)
        levels = [
            Cell(tables.number(row[f"mean_{i}"]) + (f" ({row[f'failed_{i}']})" if row[f"failed_{i}"] else ""),
                 None if math.isnan(row[f"mean_{i}"]) else row[f"mean_{i}"],
                 tone="warn" if row[f"failed_{i}"] else "")
            for i in (1, 2)
        ]  # fmt: skip
        shown.append([
            Cell(str(row["setting"]), str(row["setting"]), estimator=str(row["estimator"])),
            Cell(str(row["device"]), str(row["device"])), *levels, Cell(str(row["n_pairs"]), row["n_pairs"]),
            Cell(tables.number(row["mean"], signed=True), None if math.isnan(row["mean"]) else row["mean"], tone=tone),
            Cell(span, None if math.isnan(width) else width, tone=tone),
            Cell(word, word, tone=tone or "quiet"),
            Cell("–" if math.isnan(ratio) else f"× {ratio:.2f}", None if math.isnan(ratio) else ratio),
        ])  # fmt: skip
    return Table(f"{title}: {sides.names[1]} against {sides.names[0]}, nats per example", columns, shown)


def _apart(sides: Sides) -> Section:
    """Runs that ended otherwise, and settings that one sweep alone has."""
    first, second = (context.frame for context in sides.contexts)
    both = first.merge(second, on=["setting", "device", "seed"], suffixes=("_1", "_2"))
    other = both[(both["status_1"] != both["status_2"])]
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
        only = sorted(set(mine["setting"]) - set(theirs["setting"]))
        if only:
            listed = "; ".join(only[:20]) + (f"; and {len(only) - 20} more" if len(only) > 20 else "")
            blocks.append(Words(f"Only in {name}: {listed}.", "remark"))
    text = "Every run that both have ended alike, and both have the same settings."
    return Section("apart", "What one of them has alone", blocks or [Words(text, "empty")])


def _methods(sides: Sides) -> Section:
    options, k = sides.contexts[1].options, comparison.bound_samples(sides.contexts[1].frame)
    band = tables.number(options.band)
    shown = [(slug, term, meaning.format(k=k, curve="val/loss", band=band)) for slug, term, meaning in TERMS
             if slug in USED]  # fmt: skip
    commands = [(name, provenance.command(context.runs))
                for name, context in zip(sides.names, sides.contexts, strict=True)]  # fmt: skip
    return Section("methods", "Methods", [Definitions(shown), Heading("Commands"), Facts(commands)])
