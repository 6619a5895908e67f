"""The report: one HTML file that needs nothing else, the same bytes for the same runs, and its tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from reports.contract.atomic_files import Folder, write_atomically
from reports.page import export
from reports.page.blocks import Pictures, Section, Tabular
from reports.page.context import Context, Options
from reports.page.latex import latex
from reports.page.palette import Styles
from reports.page.template import environment
from reports.process_settings import default_settings
from reports.sections import SECTIONS
from reports.store.frame import Runs


@default_settings()
def build_report(runs: Runs, out_dir: Path, options: Options | None = None, *, pdf: bool = False) -> Path:
    """Write ``report.html``, ``tables/`` and ``figures/`` (SVG; with ``pdf`` also that) under ``out_dir``.

    Return the report's path.

    Raises ReportError for an option that fits no run, OSError where it cannot write.
    """
    context = Context(runs, options or Options())
    sections = [section(context) for section in SECTIONS]
    page = render(context, sections)
    with Folder(out_dir / "tables") as tables:
        for name, content in (*table_files(sections).items(), *runs.parquet_files().items()):
            tables.write(name, content)
    with Folder(out_dir / "figures") as figures:
        for name, content in figure_files(sections, pdf=pdf):
            figures.write(name, content)
    write_atomically(out_dir / "report.html", page)
    return out_dir / "report.html"


def render(context: Context, sections: Sequence[Section], *, title: str = "", question: str = "") -> str:
    """Return the page. Title and question are by default those of the sweep."""
    return page_of(
        sections,
        title or context.title,
        question or asked(context.runs),
        context.styles,
        context.colour,
        context.options.refresh_s,
    )


def page_of(
    sections: Sequence[Section],
    title: str,
    question: str,
    styles: Styles,
    colour: Mapping[str, int],
    refresh_s: int | None = None,
) -> str:
    """Return the page of some sections. ``colour`` has the colour of every estimator, ``styles`` those of labels."""
    template = environment().get_template("report.html.j2")
    legend = sorted(styles.items())
    return template.render(
        title=title, question=question, sections=sections, legend=legend, colour=colour, refresh_s=refresh_s
    )


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
