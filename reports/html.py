"""The report: one HTML file that needs nothing else, and the same bytes for the same runs."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reports import comparison, export, figures, gallery, gradient_history, provenance, tables, verdict
from reports.comparison import Baseline, Metric
from reports.files import write_atomically
from reports.frame import NO_TEMPERATURE, Runs
from reports.gradients import Section
from reports.page import environment
from reports.palette import Style, styles
from reports.svg import Panel
from reports.tables import Table

CURVE_METRICS = ("val/loss", "train/loss")  # the first that the runs have


@dataclass(frozen=True)
class Compared:
    """Everything that is said about one final metric."""

    metric: Metric
    levels: pd.DataFrame
    differences: pd.DataFrame
    subject: str
    predicate: str
    level_table: Table
    difference_table: Table | None
    panels: Sequence[Panel]


def build_report(runs: Runs, out_dir: Path, *, baseline: str | None = None, title: str | None = None) -> Path:
    """Write ``report.html`` and ``tables/`` under ``out_dir`` and return the path of the report.

    ``baseline`` is an estimator, an estimator with its parameters or a setting, by default straight_through if there is
    one, else the first by name. Raises ReportError for a baseline that no run has, OSError where it cannot write.
    """
    chosen = comparison.choose_baseline(runs.runs, baseline)
    look = styles(zip(runs.runs["estimator"], runs.runs["estimator_label"], strict=True))
    with python_warnings.catch_warnings():
        python_warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has its own fonts
        compared = [_compare(runs.runs, metric, chosen, look) for metric in comparison.metrics(runs.runs)]
        measured = gradient_history.sections(runs)
        name = title or runs.experiment
        page = _render(runs, compared, measured, chosen, look, name, stated=baseline is not None)
    folder = out_dir / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (_files(compared) | _gradient_files(measured)).items():
        write_atomically(folder / name, text)
    write_atomically(out_dir / "report.html", page)
    return out_dir / "report.html"


def _compare(runs: pd.DataFrame, metric: Metric, baseline: Baseline, look: Mapping[str, Style]) -> Compared:
    levels = comparison.levels(runs, metric.name, bad_is_worst=metric.compared)
    differences = comparison.differences(runs, metric.name, baseline)
    subject, predicate = verdict.sentence(levels, differences, baseline)
    panels = [figures.level_plot(runs, levels, metric, look)]
    table = None
    if metric.compared and len(differences):
        table = tables.differences_table(differences, metric, baseline.label)
        points = comparison.difference_points(runs, metric.name, differences)
        panels.append(figures.difference_plot(differences, points, metric, baseline.label, look))
    return Compared(
        metric=metric,
        levels=levels,
        differences=differences if metric.compared else differences.iloc[:0],
        subject=subject,
        predicate=predicate,
        level_table=tables.levels_table(levels, metric),
        difference_table=table,
        panels=[panel for panel in panels if panel is not None],
    )


def _files(compared: Sequence[Compared]) -> dict[str, str]:
    """File name -> text of everything under tables/."""
    level_frames = [each.levels.assign(metric=each.metric.name) for each in compared]
    difference_frames = [each.differences.assign(metric=each.metric.name) for each in compared if len(each.differences)]
    kinds = {
        "quality": (level_frames, [each.level_table for each in compared]),
        "differences": (difference_frames, [each.difference_table for each in compared if each.difference_table]),
    }
    files: dict[str, str] = {}
    for kind, (frames, shown) in kinds.items():
        if frames:
            whole = pd.concat(frames, ignore_index=True)
            whole = whole[["metric", *(name for name in whole.columns if name != "metric")]]
            files |= {f"{kind}.csv": export.csv(whole)}
            files |= {f"{kind}.md": export.markdown(shown), f"{kind}.tex": export.latex(shown)}
    return files


def _gradient_files(measured: Sequence[Section]) -> dict[str, str]:
    """The same for the gradient diagnostics, where there are some."""
    if not measured:
        return {}
    whole = pd.concat([section.frame.assign(parameters_of=section.title) for section in measured], ignore_index=True)
    first = ["parameters_of", "estimator"]
    whole = whole[[*first, *(name for name in whole.columns if name not in (*first, "reason"))]]
    shown = gradient_history.tables(measured)
    return {
        "gradients.csv": export.csv(whole),
        "gradients.md": export.markdown(shown),
        "gradients.tex": export.latex(shown),
    }


def _render(
    runs: Runs,
    compared: Sequence[Compared],
    measured: Sequence[Section],
    baseline: Baseline,
    look: Mapping[str, Style],
    title: str,
    *,
    stated: bool,
) -> str:
    frame, history = runs.runs, runs.history
    metric = next((name for name in CURVE_METRICS if name in history and history[name].notna().any()), None)
    stored = runs.sweeps[-1].provenance if runs.sweeps else {}
    colour = {
        estimator: look[label].colour
        for estimator, label in zip(frame["estimator"], frame["estimator_label"], strict=True)
    }
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            question=provenance.question(runs),
            counts=verdict.counts(frame),
            compared=compared,
            differing=[each for each in compared if each.difference_table],
            power=next((verdict.power(each.differences) for each in compared if len(each.differences)), ""),
            warnings=verdict.warnings(frame),
            notes=runs.notes,
            baseline=baseline,
            baseline_stated=stated,
            command=provenance.command(runs),
            date=provenance.newest_end(frame),
            code=provenance.code(stored),
            hardware=provenance.summary(stored),
            packages=provenance.packages(stored),
            completeness=tables.completeness(frame),
            legend=sorted(look.items()),
            curve_metric=metric,
            by_step=figures.curves(history, metric, "step", look) if metric else [],
            by_time=figures.curves(history, metric, "elapsed_s", look) if metric else [],
            one_epoch=bool(len(history)) and history["epoch"].nunique() == 1,
            temperatures=figures.temperatures(history),
            gradient_truth=gradient_history.truth(history),
            gradient_tables=gradient_history.tables(measured),
            gradient_panels=gradient_history.last_panels(measured),
            gradient_curves=gradient_history.curves(history, look),
            tempered=bool((frame["schedule_label"] != NO_TEMPERATURE).any()),
            timings=tables.timings(frame),
            shared=bool(frame.loc[frame["status"] == "finished", "shared_machine"].any()),
            galleries=gallery.galleries(runs),
            n_pictured=len(gallery.pictured(runs)),
            n_pictures=gallery.MAX_SETTINGS,
            failures=tables.failures(frame),
            provenance=list(provenance.facts(stored)) if stored else [],
            settings=provenance.settings(frame),
            sweeps=runs.sweeps,
            exclusions=_exclusions(frame),
            k=comparison.bound_samples(frame),
            colour=colour,
        )
    )


def _exclusions(frame: pd.DataFrame) -> str:
    """Which runs are in no mean and no pair, in words."""
    without = frame[~frame["status"].isin(("finished", "failed", "diverged"))]
    if without.empty:
        return "No run was excluded."
    found = without["status"].value_counts().sort_index()
    listed = ", ".join(f"{count} {status}" for status, count in found.items())
    return f"In no mean and no pair, because they were not tried to the end: {listed}; listed under “Did not finish”."
