"""The blocks that a section of the report consists of. The template has a macro for each kind; nothing here is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd

from reports.page.gallery import Gallery
from reports.page.svg import Panel
from reports.page.table import Table


@dataclass(frozen=True)
class Words:
    """A paragraph. ``tone`` is empty, ``warn`` (must not be overlooked), ``remark`` or ``empty`` (nothing to show).

    It is shown as it is, since it may have a label in it; with ``code``, what stands between backticks is code.
    """

    kind: ClassVar[str] = "words"
    text: str
    tone: str = ""
    code: bool = False


@dataclass(frozen=True)
class How:
    """How to read what stands above."""

    kind: ClassVar[str] = "how"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a section, and a few words beside it."""

    kind: ClassVar[str] = "heading"
    title: str
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    """Figures side by side, or below each other on a phone. They are also written to ``figures/<name>…``."""

    kind: ClassVar[str] = "pictures"
    name: str
    panels: Sequence[Panel] = field(repr=False)
    legend: bool = False


@dataclass(frozen=True)
class Tabular:
    """A table; ``frame`` has its numbers in full. With a name both are written to ``tables/<name>.*``."""

    kind: ClassVar[str] = "tabular"
    table: Table
    name: str = ""
    frame: pd.DataFrame | None = field(default=None, repr=False)
    style: str = "sortable"  # or matrix
    summary: str = ""  # the table is folded behind it, if given


@dataclass(frozen=True)
class Finding:
    """A sentence about one metric: subject, in bold, and predicate."""

    title: str
    metric: str
    subject: str
    predicate: str
    link: str = ""  # where the title leads


@dataclass(frozen=True)
class Findings:
    """The sentences of a section, one for each metric."""

    kind: ClassVar[str] = "findings"
    findings: Sequence[Finding] = field(repr=False)


@dataclass(frozen=True)
class Counts:
    """How many runs ended how."""

    kind: ClassVar[str] = "counts"
    counts: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Facts:
    """Label and text pairs; a label in ``code`` is one of our names. With a summary they are folded behind it."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str]] = field(repr=False)
    summary: str = ""
    code: bool = False  # the labels are names of parameters
    command: str = ""  # shown first, to be copied


@dataclass(frozen=True)
class Source:
    """A text as it is, folded behind its summary."""

    kind: ClassVar[str] = "source"
    summary: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Galleries:
    """The pictures of all settings."""

    kind: ClassVar[str] = "galleries"
    galleries: Sequence[Gallery] = field(repr=False)
    originals: str = "Test images, as they are"


@dataclass(frozen=True)
class Definitions:
    """The terms of the report: (slug, term, meaning). A slug is what a heading of a column links to."""

    kind: ClassVar[str] = "definitions"
    terms: Sequence[tuple[str, str, str]] = field(repr=False)


Block = (
    Words | How | Heading | Pictures | Tabular | Findings | Counts | Facts | Source | Galleries | Definitions
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One of the report's sections; ``slug`` is its address in the page."""

    slug: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple, repr=False)
