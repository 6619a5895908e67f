"""Tables as LaTeX (booktabs), in ASCII: they compile with pdfLaTeX, XeLaTeX and LuaLaTeX, whatever a label holds."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from reports.page.table import Table

HEAD = r"""% needs \usepackage{booktabs}
% A letter that pdfLaTeX has no font for is shown as its number; XeLaTeX and LuaLaTeX show it where their font has it.
\providecommand{\otherletter}[2]{\ifdefined\Umathcode\char #1\relax\else\texttt{U+#2}\fi}
"""
_ASCII = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    '"': r"\char34{}", "`": r"\char96{}",
}  # fmt: skip
_SIGNS = {
    "−": "$-$", "∞": r"$\infty$", "→": r"$\to$", "·": r"$\cdot$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$",
    "÷": r"$\div$", "±": r"$\pm$", "√": r"$\surd$", "●": r"$\bullet$", "≠": r"$\neq$", "≈": r"$\approx$",
    "–": "--", "—": "---", "…": r"\dots{}", "\u00a0": "~", "‘": "`", "’": "'", "“": "``", "”": "''",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c",
}  # fmt: skip
_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
    *("xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
)


def latex(tables: Sequence[Table]) -> str:
    r"""Return the tables as LaTeX, to be included with `\input`."""
    return HEAD + "\n".join(map(_table, tables))


def _table(table: Table) -> str:
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escaped(table.caption)}}}",
        rf"  \begin{{tabular}}{{{align}}}",
        r"    \toprule",
        _row([column.title for column in table.columns]),
        r"    \midrule",
        *(_row([cell.text for cell in row]) for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    r"""Return a row. A bracket or star at its beginning would be an argument of the \\ before it."""
    row = " & ".join(map(escaped, texts)) + r" \\"
    return "    " + ("{}" if row.startswith(("[", "*")) else "") + row


def escaped(text: str) -> str:
    """Return the text as LaTeX in ASCII. Two hyphens, commas or apostrophes stay two."""
    letters = unicodedata.normalize("NFC", text.replace("\n", " "))
    pairs = zip(letters, f"{letters} "[1:], strict=True)
    return "".join(_letter(one) + "{}" * (one == following and one in "-,'") for one, following in pairs)


def _letter(letter: str) -> str:
    known = _ASCII.get(letter) or _SIGNS.get(letter) or (letter if " " <= letter <= "~" else "")
    return known or _accented(letter) or _greek(letter) or rf"\otherletter{{{ord(letter)}}}{{{ord(letter):04X}}}"


def _accented(letter: str) -> str:
    base, *accents = list(unicodedata.normalize("NFD", letter))
    accent = _ACCENTS.get(accents[0]) if len(accents) == 1 else None
    return rf"\{accent}{{{base}}}" if accent and base.isascii() and base.isalpha() else ""


def _greek(letter: str) -> str:
    words = unicodedata.name(letter, "").split()
    if len(words) != 4 or words[0] != "GREEK" or words[2] != "LETTER":
        return ""
    name = words[3].replace("LAMDA", "LAMBDA").lower()
    name = name.capitalize() if words[1] == "CAPITAL" else name
    return rf"$\{name}$" if name in _GREEK else ""
