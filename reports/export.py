"""Tables as CSV (full precision), Markdown and LaTeX (booktabs)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.tables import Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "∞": r"$\infty$", "→": r"$\to$", "·": r"$\cdot$",
    "≥": r"$\geq$", "–": "--", "<": r"$<$", ">": r"$>$", "τ": r"$\tau$",
}  # fmt: skip


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of one


def csv(frame: pd.DataFrame) -> str:
    """The frame; a text that a spreadsheet would calculate gets an apostrophe before it, as spreadsheets mean text."""
    texts = frame.select_dtypes(["object", "string"]).columns
    safe = frame.assign(**{name: frame[name].map(_no_formula) for name in texts})
    return safe.rename(columns=_no_formula).to_csv(index=False, lineterminator="\n")


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def markdown(tables: Sequence[Table]) -> str:
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(_plain(text).replace("|", "\\|") for text in texts) + " |"

    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    rows = [line([cell.text for cell in row]) for row in table.rows]
    head = line([column.title for column in table.columns])
    return "\n".join([f"**{_plain(table.caption)}**", "", head, rule, *rows, ""])


def _plain(text: str) -> str:
    """Markdown that shows the text: no line breaks, no HTML, no links."""
    text = text.replace("\\", "\\\\").replace("\n", " ").replace("`", "\\`")
    return text.replace("<", "&lt;").replace("](", "]\\(")


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
        _latex_row([column.title for column in table.columns]),
        r"    \midrule",
        *(_latex_row([cell.text for cell in row]) for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _latex_row(texts: Sequence[str]) -> str:
    r"""A row. A bracket or star at its beginning would be an argument of the \\\\ before it."""
    row = " & ".join(map(_escaped, texts)) + r" \\"
    return "    " + ("{}" if row.startswith(("[", "*")) else "") + row


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text.replace("\n", " "))
