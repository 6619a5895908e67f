"""What several files look at: a browser, and the report about a hostile store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import open_browser
from hostile_store import TITLE, hostile_store

from reports.page.context import Options
from reports.report import build_report
from reports.store.load import load


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    yield from open_browser()


@pytest.fixture(scope="session")
def hostile_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return hostile_store(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def hostile_report(hostile_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its report, in folders of its own."""
    out = tmp_path_factory.mktemp("report") / "inner" / "report"
    build_report(load(None, hostile_uri), out, Options(title=TITLE))
    return out


@pytest.fixture
def secret(tmp_path) -> Path:
    """A folder of this machine with a file that no report may show."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "history.json").write_text('[{"epoch": 1}]')
    return folder
