"""A report depends on its runs only: settings of process, folder and environment change no byte of it."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from paths import ROOT, SUPPORT
from reports_store import Planned, in_memory

from reports.page import figures, quality_tables
from reports.page.context import Context, Options
from reports.report import build_report
from reports.store.frame import Runs

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
from reports.process_settings import import_matplotlib
import_matplotlib()
from reports_store import Planned, in_memory
from reports.report import build_report
from reports.page.context import Options
grid = [Planned(name, "constant", 0) for name in ("rloo", "gumbel_softmax")]
build_report(in_memory(grid, epochs=2), Path(sys.argv[1]), pdf=True)
import os
from matplotlib import pyplot  # seaborn's theme brings it, but no figure is made through it
assert pyplot.get_fignums() == []
print(os.environ.get("MPLBACKEND"), os.environ.get("MATPLOTLIBRC"))
"""


@pytest.fixture(scope="module")
def runs() -> Runs:
    grid = [Planned(name, "constant", seed) for name in ("gumbel_softmax", "straight_through") for seed in (0, 1)]
    return in_memory([*grid, Planned("rloo", "none", 0, status="failed", error="x")], epochs=2)


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def plain(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plain")
    build_report(runs, folder)
    return digest(folder)


HOSTILE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "x",
    "svg.id": "x",
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "savefig.pad_inches": 3,
    "axes.prop_cycle": mpl.cycler(color=["red"]),
    "axes.formatter.limits": (0, 0),
    "axes.titley": 0.5,
    "axes.xmargin": 0.4,
    "figure.dpi": 33,
    "figure.autolayout": True,
    "figure.constrained_layout.use": False,
    "font.size": 40,
    "font.family": "serif",
    "lines.linestyle": ":",
    "lines.marker": "x",
    "legend.loc": "upper left",
    "legend.frameon": True,
    "path.simplify": False,
    "path.sketch": (1, 100, 2),
    "text.antialiased": False,
    "text.usetex": True,
    "xtick.direction": "in",
    "xaxis.labellocation": "left",
    "errorbar.capsize": 9,
    "pdf.compression": 0,
}


def test_settings_of_the_caller_change_nothing_and_are_kept(
    runs: Runs, plain: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mpl.rc_context(HOSTILE), pd.option_context("display.max_colwidth", 5, "display.precision", 1):
        before, error, printed = dict(mpl.rcParams), np.geterr(), np.get_printoptions()
        filters = list(warnings.filters)
        build_report(runs, tmp_path)
        assert dict(mpl.rcParams) == before
        assert (np.geterr(), np.get_printoptions()) == (error, printed)
        assert list(warnings.filters) == filters
        assert pd.get_option("display.max_colwidth") == 5
    assert digest(tmp_path) == plain


def test_errors_that_the_caller_asks_for_do_not_end_a_report(
    runs: Runs, plain: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        build_report(runs, tmp_path / "report")
        assert np.geterr()["divide"] == "raise"
    assert digest(tmp_path / "report") == plain


def test_figures_in_a_notebook_leave_its_backend_and_figures_alone(runs: Runs) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("svg")
    try:
        mine = plt.figure()
        one = figures.levels(runs.runs)
        with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
            other = figures.levels(runs.runs)
        assert one is not None
        assert one == other
        assert plt.get_fignums() == [mine.number]
        assert mpl.get_backend() == "svg"
    finally:
        plt.close("all")
        plt.switch_backend("agg")


def test_a_table_as_text_is_whole_whatever_pandas_shows(runs: Runs) -> None:
    table = quality_tables.quality(runs.runs)
    expected = str(table)
    with pd.option_context("display.max_colwidth", 8, "display.max_rows", 3, "display.max_columns", 2):
        assert str(table) == expected
        assert table._repr_html_().count("<tr>") == len(table.rows) + 1


def _environments(folder: Path) -> dict[str, dict[str, str]]:
    (folder / "rc").write_text("font.size: 40\nsvg.fonttype: path\nlines.linewidth: 9\nsavefig.bbox: tight\n")
    (folder / "bad").write_bytes(b"\xff\xfe no settings: \xff\nbackend: nonsense\n")
    (folder / "file").write_text("")
    return {
        "notebook": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        "unknown backend": {"MPLBACKEND": "nonsense"},
        "settings": {"MATPLOTLIBRC": str(folder / "rc"), "PYTHONHASHSEED": "1"},
        "damaged settings": {"MATPLOTLIBRC": str(folder / "bad"), "PYTHONHASHSEED": "2"},
        "no folder for settings": {"MPLCONFIGDIR": str(folder / "file" / "x")},
        "place and language": {"TZ": "Asia/Kathmandu", "LC_ALL": "de_DE.UTF-8", "PYTHONHASHSEED": "3"},
    }


def _run(folder: Path, out: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(out), str(SUPPORT), str(ROOT)]
    known = {**os.environ, "PYTHONHASHSEED": "0", **environment}
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_environment_and_folder_do_not_change_or_appear_in_a_report(tmp_path: Path) -> None:
    first = _run(tmp_path, tmp_path / "plain", {})
    assert (first.returncode, first.stderr) == (0, "")
    expected = digest(tmp_path / "plain")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "matplotlibrc").write_bytes(b"font.size: 40\nno_such: thing\n\xff")
    cases = {**_environments(tmp_path), "folder": {}}
    for name, environment in cases.items():
        done = _run(elsewhere if name == "folder" else tmp_path, tmp_path / name, environment)
        assert (name, done.returncode, done.stderr) == (name, 0, "")
        assert done.stdout.split() == [str(environment.get(each)) for each in ("MPLBACKEND", "MATPLOTLIBRC")]
        assert digest(tmp_path / name) == expected, name


def test_reprs_are_short(runs: Runs) -> None:
    from reports.sections import SECTIONS

    context = Context(runs, Options())
    sections = [section(context) for section in SECTIONS]
    blocks = [block for section in sections for block in section.blocks]
    inner = [getattr(block, "table", None) for block in blocks] + [
        panel for block in blocks for panel in getattr(block, "panels", ())
    ]
    for one in (runs, *runs.sweeps, context, *sections, *blocks, *inner):
        assert len(repr(one)) < 1_000, type(one)
    assert repr(runs).startswith("Runs('demo': 5 runs of 3 settings (4 finished, 1 failed) in .runs,\n")
    assert len(repr(runs)) < 300
    assert json.dumps(repr(runs.sweeps[0])) == json.dumps("Sweep('s': 0 planned runs, over, began None)")
