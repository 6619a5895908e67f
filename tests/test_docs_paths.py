"""Every path, link and dotted name in the Markdown pages exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
FOLDERS = ("docs", "estimators", "experiments", "harness", "reports", "benchmarks")
PAGES = sorted({*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))})
PAGES.remove(ROOT / "CHANGELOG.md")  # it tells of files as they were called then
PACKAGES = ("harness", "reports", "estimators")
MADE_BY_USERS = {"grid.yaml", "my.yaml", "my-question.yaml", "my_relaxation.py", "sharp_softmax.py", "gradients.md"}
MADE_BY_USERS |= {"my_grid.yaml", "my_model.py", "my_task.py", "my_images.py", "__init__.py"}
SUFFIXES = "py|md|yaml|css|js|j2"
TOP = "harness|reports|estimators|tests|docs|benchmarks|experiments"


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def in_backticks(page: Path) -> set[str]:
    return {word for code in re.findall(r"`([^`\n]+)`", prose(page)) for word in code.split()}


def exists(word: str, page: Path) -> bool:
    """Look for a file, or a pattern of files, beside the page, at the top, and in each package."""
    places = (page.parent, ROOT, *(ROOT / package for package in PACKAGES))
    return any(any(place.glob(word)) if "*" in word else (place / word).exists() for place in places)


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def stored_names() -> set[str]:
    """Return the tags, and the group of entry points, that begin as a module of ours does."""
    sources = [path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {name for source in sources for name in re.findall(r"[\"'](harness\.\w+)", source)}


@cache
def top_names(path: Path) -> set[str]:
    """Return what a module defines or imports at its top."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def resolves(dotted: str) -> bool:
    """Whether a name is a module or package, or is in the longest module that it begins with."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:n])
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if path.exists():
            return all(part in top_names(path) for part in parts[n:])
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_links_and_names_of_a_page_exist(page: Path) -> None:
    words = {word.strip(".,;:()") for word in in_backticks(page)}
    pattern = rf"[\w./*-]+\.({SUFFIXES})|({TOP})/[\w./*-]*"
    paths = {word for word in words if re.fullmatch(pattern, word)} - MADE_BY_USERS
    assert [word for word in sorted(paths) if not exists(word, page)] == []

    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target

    dotted = re.findall(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+", page.read_text())
    assert [name for name in sorted(set(dotted) - stored_names()) if not resolves(name)] == []


def test_architecture_describes_every_folder_and_file() -> None:
    words = in_backticks(ROOT / "docs" / "architecture.md")
    folders = [path.parent for package in ("harness", "reports") for path in (ROOT / package).glob("*/__init__.py")]
    assert [folder.name for folder in folders if f"{folder.relative_to(ROOT)}/" not in words] == []
    files = [path for package in ("harness", "reports") for path in (ROOT / package).glob("[a-z]*.py")]
    assert [path.name for path in files if not {path.stem, str(path.relative_to(ROOT))} & words] == []


def test_pages_that_the_code_names_exist() -> None:
    sources = [path for folder in (*PACKAGES, "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    named = {page for path in sources for page in re.findall(rf"\b(?:{TOP})/[\w/-]+\.md\b", path.read_text())}
    assert len(named) > 5
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []
