"""The report: one HTML file that needs nothing else, the same bytes for the same runs, and its tables and figures."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from reports.contract.atomic_files import Folder, write_atomically
from reports.contract.errors import ReportError
from reports.contract.settings import distinct
from reports.page import export
from reports.page.blocks import Pictures, Section, Tabular
from reports.page.context import Context, Options
from reports.page.latex import latex
from reports.page.palette import Styles
from reports.page.template import environment
from reports.process_settings import default_settings
from reports.sections import over_tasks, sections_of
from reports.store.frame import Runs

TASKS = "tasks"
"""The folder with the reports of the tasks, of runs of several."""


@default_settings()
def build_report(runs: Runs, out_dir: Path, options: Options | None = None, *, pdf: bool = False) -> Path:
    """Write ``report.html``, ``tables/`` and ``figures/`` (SVG; with ``pdf`` also that) under ``out_dir``.

    Runs of several tasks make a report of each in ``tasks/<task>/``, and ``report.html`` is about all of them.
    Return the report's path.

    Raises ReportError for an option that fits no run, OSError where it cannot write.
    """
    options = options or Options()
    if len(runs.tasks) > 1:
        return _build_over_tasks(runs, out_dir, options, pdf=pdf)
    context = Context(runs, options)
    path = _build(context, out_dir, pdf=pdf)
    _remove_others(out_dir / TASKS, keep=())
    return path


def _build(context: Context, out_dir: Path, *, pdf: bool, back: str = "") -> Path:
    """Write the report of one task."""
    sections = sections_of(context)
    return _write(context.runs, sections, render(context, sections, back=back), out_dir, pdf=pdf)


def _build_over_tasks(runs: Runs, out_dir: Path, options: Options, *, pdf: bool) -> Path:
    """Write the report of each task, and one about all of them."""
    parts = {label: runs.of_task(label) for label in runs.tasks}
    fitting, notes = options_by_task(parts, options)
    contexts = {label: Context(parts[label], fitting[label], runs.runs) for label in parts}
    folders = _folder_names(list(parts))
    links = {label: f"{TASKS}/{folders[label]}/report.html" for label in parts}
    for label, context in contexts.items():
        _build(context, out_dir / TASKS / folders[label], pdf=pdf, back="../../report.html")
    _remove_others(out_dir / TASKS, keep=folders.values())
    sections = over_tasks.sections(runs, contexts, links, notes)
    styles = {label: style for context in contexts.values() for label, style in context.styles.items()}
    colour = {name: number for context in contexts.values() for name, number in context.colour.items()}
    page = page_of(sections, options.title or runs.experiment, asked(runs), styles, colour, options.refresh_s)
    return _write(runs, sections, page, out_dir, pdf=pdf)


def options_by_task(parts: Mapping[str, Runs], options: Options) -> tuple[dict[str, Options], list[str]]:
    """Return the options that fit each task, and a line for each option that does not fit all of them.

    Raises ReportError for an option that fits no task, and for a band if the tasks have different units.
    """
    title = options.title or next(iter(parts.values())).experiment
    fitting = {label: Options(title=f"{title}: {label}", ui=options.ui, refresh_s=options.refresh_s) for label in parts}
    notes = []
    for name in ("metric", "group_by", "baseline"):
        if (value := getattr(options, name)) is None:
            continue
        errors = {}
        for label, runs in parts.items():
            wanted = replace(fitting[label], **{name: value})
            try:
                Context(runs, wanted)
            except ReportError as error:
                errors[label] = error
            else:
                fitting[label] = wanted
        if len(errors) == len(parts):
            raise next(iter(errors.values()))
        if errors:
            flag = f"--{name.replace('_', '-')} {value}"
            notes.append(f"{flag} is not possible for {', '.join(errors)}, where the default is used.")
    if options.band is not None:
        primary = {label: Context(runs, fitting[label]).primary for label, runs in parts.items()}
        units = {label: metric.unit or "no unit" for label, metric in primary.items() if metric}
        if len(set(units.values())) > 1:
            listed = ", ".join(f"{label}: {unit}" for label, unit in units.items())
            raise ReportError(
                f"--band: expected tasks with one unit, got {listed}. Leave it out: tasks declare theirs."
            )
        fitting = {label: replace(each, band=options.band) for label, each in fitting.items()}
    return fitting, notes


def _folder_names(labels: Sequence[str]) -> dict[str, str]:
    """Return a different name of a folder for each label: ``polynomial(p=2)`` → ``polynomial-p-2``."""

    def short(label: str) -> str:
        return re.sub(r"[^a-z0-9._-]+", "-", label.lower()).strip("-.")[:80] or "task"

    return distinct(labels, short, lambda label: f"{short(label)}-{zlib.crc32(label.encode()):08x}")


def _remove_others(folder: Path, keep: Collection[str]) -> None:
    """Remove what earlier reports wrote about tasks that are gone. Files of anyone else stay."""
    for path in sorted(folder.glob("*/report.html")):
        if path.parent.name not in keep:
            for name in ("tables", "figures"):
                if (path.parent / name).is_dir():
                    with Folder(path.parent / name):
                        pass
            path.unlink()


def _write(runs: Runs, sections: Sequence[Section], page: str, out_dir: Path, *, pdf: bool) -> Path:
    """Write a page with its tables and figures; return its path."""
    with Folder(out_dir / "tables") as tables:
        for name, content in (*table_files(sections).items(), *runs.parquet_files().items()):
            tables.write(name, content)
    with Folder(out_dir / "figures") as figures:
        for name, content in figure_files(sections, pdf=pdf):
            figures.write(name, content)
    write_atomically(out_dir / "report.html", page)
    return out_dir / "report.html"


def render(
    context: Context, sections: Sequence[Section], *, title: str = "", question: str = "", back: str = ""
) -> str:
    """Return the page. Title and question are by default those of the sweep; ``back`` leads to the other tasks."""
    return page_of(
        sections,
        title or context.title,
        question or asked(context.runs),
        context.styles,
        context.colour,
        context.options.refresh_s,
        back,
    )


def page_of(
    sections: Sequence[Section],
    title: str,
    question: str,
    styles: Styles,
    colour: Mapping[str, int],
    refresh_s: int | None = None,
    back: str = "",
) -> str:
    """Return the page of some sections. ``colour`` has the colour of every estimator, ``styles`` those of labels."""
    template = environment().get_template("report.html.j2")
    names = {"title": title, "question": question, "colour": colour, "refresh_s": refresh_s, "back": back}
    return template.render(sections=sections, legend=sorted(styles.items()), **names)


def asked(runs: Runs) -> str:
    """Return the question of the newest sweep that has one."""
    questions = [sweep.question.strip() for sweep in runs.sweeps if sweep.question.strip()]
    return questions[-1] if questions else ""


def table_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """Return the content of each file under tables/ by name. Tables of one name share their files."""
    named: dict[str, list[Tabular]] = {}
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Tabular) and block.name:
                named.setdefault(block.name, []).append(block)
    files: dict[str, bytes] = {}
    for name, blocks in named.items():
        frames = [block.frame for block in blocks if block.frame is not None]
        if frames:
            whole = pd.concat(frames, ignore_index=True)
            first = [column for column in ("metric",) if column in whole]
            files[f"{name}.csv"] = export.csv(whole[[*first, *(each for each in whole.columns if each not in first)]])
        files[f"{name}.md"] = export.markdown([block.table for block in blocks]).encode()
        files[f"{name}.tex"] = latex([block.table for block in blocks]).encode()
    return files


def figure_files(sections: Sequence[Section], *, pdf: bool) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file under figures/."""
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Pictures):
                for number, panel in enumerate(block.panels, 1):
                    stem = block.name if len(block.panels) == 1 else f"{block.name}-{number}"
                    yield f"{stem}.svg", panel.for_paper().encode("utf-8")
                    if pdf:
                        yield f"{stem}.pdf", panel.pdf()
