"""`harness data fetch` and `harness report` killed by SIGKILL at random moments: every file is whole or not there."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reports_store import StoreWriter, main_grid

from harness.datasets import files as stored_files
from harness.datasets.descriptions import DATASETS, DataError, DatasetInfo
from harness.datasets.idx import format_idx, sha256

N = 12_000
FETCH = """
import json, sys
from dataclasses import replace
from pathlib import Path
from harness.datasets import descriptions
from harness.datasets.fetch import fetch
info = descriptions.DATASETS["mnist"]
facts = json.loads(sys.argv[3])
files = tuple(replace(f, shape=tuple(facts[f.name][0]), sha256=facts[f.name][1]) for f in info.files)
descriptions.DATASETS = {"mnist": replace(info, files=files)}
print("ready", flush=True)
fetch("mnist", source_dir=Path(sys.argv[1]), data_dir=Path(sys.argv[2]), say=lambda line: None)
"""
REPORT = """
import sys
print("ready", flush=True)
from harness.cli import main
main(["report", "--experiment", "demo", "--tracking-uri", sys.argv[1], "--out", sys.argv[2]])
"""
WRITE = """
import sys
from pathlib import Path
from reports.contract.atomic_files import write_atomically
print("ready", flush=True)
texts = [letter * 3_000_000 for letter in "ab"]
while True:
    for text in texts:
        for name in ("report.html", "table.csv"):
            write_atomically(Path(sys.argv[1], name), text)
"""


def start(code: str, arguments: Sequence[object]) -> subprocess.Popen:
    """Start the program and wait until it is ready."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def whole(code: str, *arguments: object) -> float:
    """Return the seconds that the program takes if it is not killed."""
    process, begun = start(code, arguments), time.monotonic()
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - begun


def killed(after_s: float, code: str, *arguments: object) -> bool:
    """Return whether the program was still running when it was killed."""
    process = start(code, arguments)
    time.sleep(after_s)
    process.kill()
    process.communicate()
    return process.returncode != 0


def moments(seconds: float, n: int) -> list[float]:
    """`n` random moments, spread over all of the time."""
    chosen = random.Random(n)  # noqa: S311 the same in every run
    return [seconds * (i + chosen.random()) / n for i in range(n)]


COUNTS = [3, pytest.param(25, marks=pytest.mark.slow)]
REPORTS = [pytest.param(25, marks=pytest.mark.slow)]  # the writer below, which reports write with, is killed anyway


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> tuple[DatasetInfo, Path]:
    """A data set of 12,000 + 12,000 random images, as the catalogue knows it, and the folder where its files lie."""
    chosen, source = np.random.RandomState(1), tmp_path_factory.mktemp("source")
    files = []
    for file in DATASETS["mnist"].files:
        shape = (N, *file.shape[1:])
        content = format_idx(chosen.randint(0, 10, shape).astype(np.uint8))
        (source / file.name).write_bytes(content)
        files.append(replace(file, shape=shape, sha256=sha256(content)))
    return replace(DATASETS["mnist"], files=tuple(files)), source


@pytest.mark.parametrize("n", COUNTS)
def test_a_killed_fetch_leaves_whole_files_only(mnist, tmp_path, n):
    info, source = mnist
    facts = json.dumps({file.name: [file.shape, file.sha256] for file in info.files})
    seconds = whole(FETCH, source, tmp_path / "whole", facts)
    cut_short = 0
    for number, moment in enumerate(moments(seconds, n)):
        folder = tmp_path / f"data{number}"
        cut_short += killed(moment, FETCH, source, folder, facts)
        for path in (folder / "mnist").glob("[!.]*"):
            assert path.read_bytes() == (source / path.name).read_bytes(), (path, moment)
        for file in info.files:
            try:
                assert stored_files.read(info, file, folder).shape == file.shape
            except DataError as error:
                assert "found no" in str(error) or "found none" in str(error)  # noqa: PT017 missing, never damaged
    assert cut_short  # a machine that has got faster since ends some before their moment
    whole(FETCH, source, folder, facts)  # what the last one left is in nobody's way
    assert stored_files.is_complete(info, folder)


@pytest.mark.parametrize("n", REPORTS)
def test_a_killed_report_leaves_whole_files_only(tmp_path, n):
    writer = StoreWriter(tmp_path)
    writer.sweep("demo", main_grid(), epochs=4)
    right, folder = tmp_path / "right", tmp_path / "report"
    seconds = whole(REPORT, writer.uri, right)
    cut_short = 0
    for moment in moments(seconds, n):
        cut_short += killed(moment, REPORT, writer.uri, folder)
        check_same(folder, right)
    assert cut_short  # a machine that has got faster since ends some before their moment
    whole(REPORT, writer.uri, folder)
    check_same(folder, right)
    assert (folder / "report.html").is_file()


def check_same(folder: Path, right: Path) -> None:
    """Every file that is there, but for unfinished ones under their hidden names, is that of an undisturbed report."""
    for path in folder.rglob("[!.]*"):
        if path.is_file():
            assert path.read_bytes() == (right / path.relative_to(folder)).read_bytes(), path


@pytest.mark.parametrize("n", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_writer_killed_while_writing_leaves_whole_files_only(tmp_path, n):
    """Nearly every moment of this program is within a write."""
    for moment in moments(0.5, n):
        assert killed(moment, WRITE, tmp_path)
        for name in ("report.html", "table.csv"):
            if (tmp_path / name).exists():
                text = (tmp_path / name).read_text()
                assert len(text) == 3_000_000
                assert len(set(text)) == 1
    assert list(tmp_path.glob(".*.tmp"))  # some were killed in the middle, and what they left has another name
