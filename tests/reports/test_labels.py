"""Labels are the user's: whatever they hold, settings stay what they are from the grid to the report's files."""

import csv
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from labelled_store import ESTIMATOR, FREE, LABELS, grid_text, make, uri, value

from estimators import REGISTRY
from harness.config import RunConfig
from harness.events import Finished, Record
from harness.gradients.on_toy_problems import estimators as toys
from harness.grid.load import Grid, load_grid
from harness.status.json_document import document
from harness.status.ranking import rank
from harness.storage.sweep_state import Sweep
from reports import comparison
from reports.contract import settings
from reports.contract.settings import Setting
from reports.page.context import Options
from reports.report import build_report
from reports.sections import gradient_history
from reports.store.frame import Runs
from reports.store.load import load

FAST = (("a", "$x_{$"), ("a · b", "none", "=1+1"), ("b", "none", "_hidden", "no temperature"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def grid(folder: Path) -> Grid:
    return make(folder, grid_text(*FAST))


@pytest.fixture(scope="module")
def runs(grid: Grid, folder: Path) -> Runs:
    return load("labelled", uri(folder))


@pytest.fixture(scope="module")
def report(runs: Runs, folder: Path) -> Path:
    return build_report(runs, folder / "report", Options(baseline="a"))


def check(grid: Grid, runs: Runs, baseline: str) -> None:
    """The frame has the grid's settings, the differences its pairs, and no two of its texts are the same."""
    expected = {run.key: run for run in grid.runs}
    frame = runs.runs
    assert sorted(frame["run_key"]) == sorted(expected)
    assert Counter(frame["status"]) == {"finished": len(grid.runs) - 1, "missing": 1}
    wanted = {run.setting for run in grid.runs}
    texts: dict[Setting, str] = {}
    for key, text in zip(frame["run_key"], frame["setting"], strict=True):
        assert texts.setdefault(expected[key].setting, text) == text
    assert len(set(texts.values())) == len(texts) == len(wanted)
    schedules = dict(zip(frame["run_key"], frame["schedule_label"], strict=True))
    assert all(pd.isna(schedules[key]) == (run.setting.schedule is None) for key, run in expected.items())
    found = comparison.differences(frame, "test/neg_elbo", comparison.choose_baseline(frame, baseline))
    pairs = {(row["setting"], row["versus"]): row["n_pairs"] for row in found.to_dict("records")}
    assert pairs == expected_pairs(grid, baseline, texts)


def expected_pairs(grid: Grid, baseline: str, texts: dict[Setting, str]) -> dict[tuple[str, str], int]:
    """By the grid alone: the seeds that both have finished, for the same schedule or where one has none."""
    seeds = Counter(run.setting for run in grid.runs[:-1])
    found = {}
    for one in seeds:
        for other in seeds:
            same = None in (one.schedule, other.schedule) or one.schedule == other.schedule
            if other.estimator == baseline != one.estimator and same:
                found[texts[one], texts[other]] = min(seeds[one], seeds[other])
    return found


def test_every_setting_of_the_grid_is_in_the_report(grid: Grid, runs: Runs) -> None:
    check(grid, runs, "a")
    assert {"a · none", '"a" · "b"', '"a · b"', "=1+1"} <= set(runs.runs["setting"])
    assert {"a", "$x_{$", "a · b", "none", "=1+1"} == set(runs.runs["estimator_label"])


def test_a_schedule_called_none_is_a_schedule(grid: Grid, runs: Runs) -> None:
    named = runs.runs[runs.runs["schedule_label"] == "none"]
    assert set(named["estimator"]) == {ESTIMATOR}
    free = runs.runs[runs.runs["schedule_label"].isna()]
    assert set(free["estimator"]) == {FREE}
    assert free["schedule"].isna().all()


def test_names_are_unique_within_a_grid(grid: Grid) -> None:
    assert len({run.name for run in grid.runs}) == len(grid.runs)
    assert {run.label for run in grid.runs if run.setting.text == "a · b"} == {'"a · b"', '"a" · "b"'}
    assert len({run.key for run in grid.runs}) == len(grid.runs)


def test_a_quoted_label_changes_no_key_and_goes_to_the_worker(grid: Grid) -> None:
    one = next(run for run in grid.runs if run.quoted)
    assert one.model_copy(update={"quoted": False}).key == one.key
    assert RunConfig.from_json(one.to_json()).name == one.name


def test_the_terminal_ranks_every_setting(grid: Grid, runs: Runs, tmp_path: Path) -> None:
    sweep = Sweep(grid, tmp_path, grid.runs)
    for number, run in enumerate(grid.runs):
        sweep.add(Record(run.key, 1, Finished(1, {"test/neg_elbo": value(number), "time/total_s": 1.0})))
    levels = rank(sweep)
    assert [level.n_planned for level in levels] == [2] * len({run.setting for run in grid.runs})
    ranked = json.loads(json.dumps(document(sweep, [])["ranking"]))
    assert len({row["setting"] for row in ranked}) == len(levels)
    best = comparison.levels(runs.runs, "test/neg_elbo")["setting"].iloc[0]
    assert ranked[0]["setting"] == best


def test_tables_have_a_row_for_every_setting(report: Path, runs: Runs) -> None:
    names = set(runs.runs["setting"])
    with (report.parent / "tables" / "quality.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [row["setting"] for row in csv.DictReader(file) if row["metric"] == "test/neg_elbo"]
    assert len(rows) == len(names)
    assert set(rows) == {"'=1+1" if name == "=1+1" else name for name in names}
    frame = pd.read_csv(report.parent / "tables" / "completeness.csv")
    assert list(frame.columns).count("no temperature · cpu") + list(frame.columns).count('"no temperature" · cpu') == 2
    shown = Page(report.read_text())
    assert names <= shown.cells


class Page(HTMLParser):
    """The ids and the texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.cells = Counter[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids.update(value or "" for name, value in attrs if name == "id")

    def handle_data(self, data: str) -> None:
        self.cells.add(data)


def test_ids_of_a_page_are_unique(report: Path) -> None:
    assert max(Page(report.read_text()).ids.values()) == 1


def test_a_legend_shows_a_name_that_begins_with_an_underscore(report: Path) -> None:
    picture = (report.parent / "figures" / "temperature.svg").read_text()
    assert ">_hidden<" in picture
    assert ">none<" in picture


def test_labels_of_a_basket_are_those_of_the_grid(tmp_path: Path) -> None:
    basket = ["a, b", "c (d, e", "1e3", "_x", "a (its own)"]
    make(tmp_path, grid_text(["a"], [], ["b"], basket))
    runs = load("labelled", uri(tmp_path))
    assert list(runs.sweeps[0].basket.values()) == basket
    assert set(runs.runs["diagnostics.basket"].dropna()) == {", ".join(basket)}
    frame = gradient_history.sections(runs)[-1].frame
    assert list(frame["estimator"]) == ["a (its own) [own]", *basket[:-1], "a (its own) [a-its-own]"]


def test_a_baseline_is_an_estimator_before_it_is_a_setting(runs: Runs) -> None:
    assert comparison.choose_baseline(runs.runs, "a · b") == comparison.Baseline("a · b", "estimator_label")
    assert comparison.choose_baseline(runs.runs, '"a" · "b"') == comparison.Baseline('"a" · "b"', "setting")
    assert comparison.choose_baseline(runs.runs, '"a" · "none"') == comparison.Baseline("a · none", "setting")


def test_only_matches_the_label_of_a_schedule_first(grid: Grid) -> None:
    from harness.commands.run_checks import select

    assert {run.setting.schedule for run in select(grid.runs, ["schedule=none"])} == {"none"}
    without = [run for run in grid.runs if run.setting.schedule != "none"]
    assert {run.setting.schedule for run in select(without, ["schedule=none"])} == {None}


def test_gradients_keep_estimators_apart(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(grid_text(["a"], ["a · tau=0.1"], ["x", "y"]))
    assert list(toys(load_grid(path, REGISTRY), REGISTRY)) == ['"a" · tau=0.1', "a · tau=0.2", '"a · tau=0.1"']


def test_two_sweeps_compare_the_same_setting(folder: Path, tmp_path: Path, runs: Runs) -> None:
    from reports.store.shared_setting_names import named_together

    make(tmp_path, grid_text(["a"], [], ["b"]))
    one, other = named_together(load("labelled", uri(tmp_path)), runs)
    assert set(one.runs["setting"]) == {'"a" · "b"'}
    assert set(one.runs["setting"]) < set(other.runs["setting"])
    assert set(other.history["setting"]) <= set(other.runs["setting"])


def test_a_stored_setting_is_short_and_is_read_again() -> None:
    long = Setting("e" * 10_000, "\u202e" * 10_000, tuple((f"x{i}", "9" * 1000) for i in range(3)))
    assert len(long.to_json()) < 7_900
    one = Setting("a · b", None, (("lr", "0.1"), ("x", None)))
    assert settings.from_json(one.to_json()) == one
    for damaged in ("", "[", "[]", '{"estimator": 1}', '{"estimator": "a", "schedule": 2, "axes": []}', "[" * 5000):
        assert settings.from_json(damaged) is None


@pytest.mark.parametrize(
    "more", ["", "training: {lr: [0.1, 0.2]}\nmodel: {hidden: [[8], [8, 4]]}\ndevices: [cpu, cuda]\n"]
)
def test_an_older_store_has_the_same_settings_where_labels_are_ordinary(tmp_path: Path, more: str) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        "estimators: [straight_through, {name: rloo, n_samples: [2, 3]}, {name: gumbel_softmax, label: mine}]\n"
        f"schedules: [{{kind: constant, tau: [0.5, 1]}}, {{kind: linear, final: 0.1, label: slow}}]\nseeds: [0]\n{more}"
    )
    for run in load_grid(path, REGISTRY).runs:
        assert (
            settings.setting_from_label(run.label, run.estimator.name, run.schedule.label, run.estimator.label)
            == run.setting
        )
        assert settings.setting_from_label(run.label, run.estimator.name, run.schedule.label, "") == run.setting


def test_texts_are_distinct() -> None:
    keys = [Setting("a", "b"), Setting("a · b"), Setting('"a" · "b"'), Setting("c"), Setting("a", None, (("b", None),))]
    found = settings.distinct(keys, lambda one: one.text, lambda one: one.quoted)
    assert len(set(found.values())) == len(keys)
    assert found[Setting("c")] == "c"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_any_labels(tmp_path: Path, seed: int) -> None:
    """Every hostile label as that of an estimator, with and without a temperature, and of a schedule."""
    draw = random.Random(seed)  # noqa: S311
    labels = [label for label in LABELS if not re.search("[\x00-\x1f\x7f]", label)]
    draw.shuffle(labels)
    n = len(labels)
    with_tau, free = labels[:3], labels[3 : n // 2]
    grid = make(tmp_path, grid_text(with_tau, free, draw.sample(labels, n // 3)))
    runs = load("labelled", uri(tmp_path))
    check(grid, runs, with_tau[0])
    page = build_report(runs, tmp_path / "report", Options(baseline=None), pdf=True)
    with (page.parent / "tables" / "quality.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [row["setting"] for row in csv.DictReader(file) if row["metric"] == "test/neg_elbo"]
    assert len(set(rows)) == len(rows) == len({run.setting for run in grid.runs})
    assert max(Page(page.read_text()).ids.values()) == 1
    compile_all(page.parent / "tables", tmp_path)


def compile_all(tables: Path, folder: Path) -> None:
    """Compile every table with pdfLaTeX, where it is installed."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed: apt-get install texlive-latex-base texlive-latex-recommended")
    files = sorted(tables.glob("*.tex"))
    assert files
    for file in files:
        head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
        (folder / "d.tex").write_text(rf"{head}\input{{{file}}}\end{{document}}")
        command = [program, "-interaction=nonstopmode", "-halt-on-error", "d.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, f"{file.name}: {done.stdout[-1500:]}"


@pytest.mark.slow
def test_every_table_compiles(report: Path, tmp_path: Path) -> None:
    compile_all(report.parent / "tables", tmp_path)
