"""docs/references.md has a row for every reference of the code and the documents, and says the same as they do."""

import calendar
import re
from functools import cache

from paths import ROOT

from estimators import REGISTRY

PAGE = ROOT / "docs" / "references.md"
ARXIV = r"arXiv:([\w./-]*\w)"
NUMBER = r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}"
"""An arXiv number; the second form is that of papers before April 2007."""
NO_AUTHORS = {"AAAI", "AISTATS", "ICLR", "ICML", "NIPS", "NeurIPS", *calendar.month_name}
"""What else stands before a year."""


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row: reference, used by, checked, against, result."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| reference ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def numbers(text: str) -> set[str]:
    """Return the arXiv numbers of a text, without versions."""
    return {re.sub(r"v\d+$", "", number) for number in re.findall(ARXIV, text)}


@cache
def texts() -> dict[str, str]:
    """Return the text of every module, page and grid by its path."""
    patterns = ("estimators/**/*.py", "harness/**/*.py", "reports/**/*.py", "reports/**/*.yaml", "docs/**/*.md")
    patterns += ("experiments/**/*.yaml", "experiments/**/*.md", "estimators/*.md")
    files = {path for pattern in patterns for path in ROOT.glob(pattern)} - {PAGE}
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(files)}


@cache
def numbers_by_file() -> dict[str, set[str]]:
    """Return the arXiv numbers of each file that has some."""
    found = {file: numbers(text) for file, text in texts().items()}
    return {file: there for file, there in found.items() if there}


@cache
def authors_by_file() -> dict[str, set[tuple[str, str]]]:
    """Return (name before the year, year) of what each file cites: "Fan, Chi (2022)", "Chung and Ahn 2017"."""
    pattern = r"([A-ZŠ][\w-]+)(?:\s+et\s+al\.?)?,?\s+\(?((?:18|19|20)\d\d)\b(?![-.\d])"
    found = {name: set(re.findall(pattern, text)) for name, text in texts().items()}
    return {name: {pair for pair in pairs if pair[0] not in NO_AUTHORS} for name, pairs in found.items()}


@cache
def parts_of_references() -> list[tuple[str, str, set[str]]]:
    """Return key, "Authors (year)" and arXiv numbers of each paper that an estimator's `reference` names."""
    found = []
    for key, cls in REGISTRY.items():
        for part in cls.reference.split("; "):
            who = re.match(r"(?:.*\bafter )?(.+? \(\d{4}\))", part)
            assert who or part in ("folklore", "definition"), f"{key}: expected 'Authors (year), …', got {part!r}"
            if who:
                found.append((key, who[1], numbers(part)))
    return found


def missing(text: str) -> list[str]:
    """Return what the code or the documents cite and a page does not have."""
    table = rows(text)
    there = {number for reference, *_ in table for number in numbers(reference)}
    absent = [f"arXiv:{cited} in {file}" for file, all_ in numbers_by_file().items() for cited in sorted(all_ - there)]
    for key, who, cited in parts_of_references():
        mine = [reference for reference, used_by, *_ in table if f"`{key}`" in used_by]
        if not any(reference.startswith(f"{who}, ") and cited <= numbers(reference) for reference in mine):
            absent.append(f"{who} {cited or ''} of {key}")
    heads = [reference.partition("), ")[0].rpartition(" (") for reference, *_ in table]
    known = {(name, year) for authors, _, year in heads for name in re.findall(r"[\w-]+", authors)}
    for file, pairs in authors_by_file().items():
        absent += [f"{name} {year} in {file}" for name, year in sorted(pairs - known)]
    return absent


def test_every_reference_has_a_row() -> None:
    """If this fails, look the reference up and add a row that says what was checked."""
    assert len(parts_of_references()) > 45
    assert len(numbers_by_file()) > 40
    assert len(set().union(*authors_by_file().values())) > 80
    assert missing(PAGE.read_text()) == []


def test_arxiv_numbers_have_the_form_of_arxiv_numbers() -> None:
    for file, found in {**numbers_by_file(), PAGE.name: numbers(PAGE.read_text())}.items():
        assert [number for number in sorted(found) if not re.fullmatch(NUMBER, number)] == [], file


def test_every_row_says_what_was_checked() -> None:
    table = rows(PAGE.read_text())
    assert {len(row) for row in table} == {5}
    assert len({reference for reference, *_ in table}) == len(table)
    for reference, _, checked, against, result in table:
        assert re.match(r"(right|corrected: |not opened)", result), reference
        assert (checked == "–") == (against == "–") == result.startswith("not opened"), reference


def test_files_that_a_row_names_cite_it() -> None:
    """A file of the column "used by" has the number, or else the first author's name."""
    for reference, used_by, *_ in rows(PAGE.read_text()):
        first = re.split(r",| \(", reference)[0]
        for file in re.findall(r"`([\w/.-]+\.\w+)`", used_by):
            text = (ROOT / file).read_text()
            assert first in text or numbers(reference) & numbers(text), f"{file} does not cite {reference}"


def test_a_row_that_is_removed_is_missed() -> None:
    """All rows, but for those that only tests and notices use."""
    lines = PAGE.read_text().splitlines()
    unseen = []
    for reference, used_by, *_ in rows(PAGE.read_text()):
        without = [line for line in lines if not line.startswith(f"| {reference} |")]
        assert len(without) == len(lines) - 1
        if not missing("\n".join(without)) and not re.fullmatch(r"`(tests|harness/datasets)/[\w/.]+`", used_by):
            unseen.append(reference)
    assert unseen == []
