"""Tables as CSV (full precision), Markdown and LaTeX (booktabs), each written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reports.tables import Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "∞": r"$\infty$", "→": r"$\to$", "·": r"$\cdot$",
    "≥": r"$\geq$", "–": "--", "<": r"$<$", ">": r"$>$", "τ": r"$\tau$",
}  # fmt: skip


def write_atomically(path: Path, text: str) -> None:
    """Write beside the target and rename: a reader sees the old file or the new one, never half of one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def markdown(tables: Sequence[Table]) -> str:
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    def line(texts: Sequence[str]) -> str:
        return (
            "| "
            + " | ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for text in texts)
            + " |"
        )

    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    rows = [line([cell.text for cell in row]) for row in table.rows]
    return "\n".join([f"**{table.caption}**", "", line([column.title for column in table.columns]), rule, *rows, ""])


def latex(tables: Sequence[Table]) -> str:
    head = "% needs \\usepackage{booktabs}; text is UTF-8\n"
    return head + "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escaped(table.caption)}}}",
        rf"  \begin{{tabular}}{{{align}}}",
        r"    \toprule",
        "    " + " & ".join(_escaped(column.title) for column in table.columns) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(_escaped(cell.text) for cell in row) + r" \\" for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text.replace("\n", " "))
