"""A report about a store that somebody else filled runs nothing, writes only to its folder and moves no cursor.

`tests/reports/test_in_browser.py` checks the same in a browser.
"""

import csv
import re

import pytest
from command_line import run_captured
from hostile_store import PAYLOADS, UNSEEN
from report_page import Page

from reports.contract.text import visible, visible_json, visible_lines
from reports.page import export
from reports.page.latex import latex
from reports.page.table import Cell, Column, Table

KINDS = {".html", ".csv", ".md", ".tex", ".svg", ".parquet", ".json"}


@pytest.fixture(scope="module")
def page(hostile_report) -> Page:
    return Page((hostile_report / "report.html").read_text(encoding="utf-8"))


def test_the_report_has_no_script_but_its_own(page):
    assert page.tags.count("script") == 1
    assert not {"iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href", "action")]
    assert not [link for link in links if not link.startswith(("#", "data:image/png;base64,", "data:,"))]
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_what_the_store_says_is_there_as_text(page):
    for payload in PAYLOADS:
        shown = re.sub(r"\s+", " ", visible(payload, 100)[:100]).strip()
        assert shown in page.text, shown
    assert "{{ 7*7 }}" in page.text


def test_the_page_states_its_content_security_policy(page):
    (policy,) = (value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_no_character_is_invisible_and_no_file_is_written_elsewhere(hostile_report):
    assert {path.name for path in hostile_report.parents[1].iterdir()} == {"inner"}
    written = [path for path in hostile_report.parents[1].rglob("*") if path.is_file()]
    assert {path.suffix for path in written} == KINDS
    assert all(
        path.is_relative_to(hostile_report) and re.fullmatch(r"\.?[a-z-]+[0-9]*\.\w+", path.name) for path in written
    )
    for path in (each for each in written if each.suffix != ".parquet"):
        found = re.search(UNSEEN, path.read_text(encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8"))
        assert found is None, (path.name, found)


def test_a_spreadsheet_calculates_nothing(hostile_report):
    with (hostile_report / "tables" / "quality.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    texts = [row[name] for row in rows for name in ("setting", "device", "estimator", "estimator_label", "axes")]
    assert any(text.startswith("'=cmd") for text in texts)
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]
    assert any(row["mean"].startswith("-") or float(row["mean"] or 0) > 0 for row in rows)  # numbers stay numbers


def test_markdown_and_latex_show_labels_as_text():
    table = Table("<b> [x](y)", [Column("a", numeric=False), Column("b")], [[Cell("[1cm] | <i>"), Cell("*")]])
    assert export.markdown([table]).splitlines()[0] == "**&lt;b> [x]\\(y)**"
    assert "| [1cm] \\| &lt;i> | \\* |" in export.markdown([table])
    assert r"    {}[1cm] $|$ $<$i$>$ & * \\" in latex([table])


def test_the_name_of_an_experiment_makes_no_path(hostile_uri, tmp_path, capfd, monkeypatch):
    """Where the folder is named, the report is written there and nowhere else: see the test of its files."""
    places = []
    monkeypatch.setattr("reports.report.build_report", lambda runs, folder, *_, **__: places.append(folder) or folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    code, said = run_captured(capfd, "report", "--tracking-uri", hostile_uri, "--from", str(tmp_path / "a" / "b"))
    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith("experiment: expected 1 to 64 letters")
    assert not re.search(UNSEEN, said)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b"]
    code, _ = run_captured(capfd, "report", "--tracking-uri", hostile_uri, "--out", str(tmp_path / "a" / "b"))
    assert (code, places) == (0, [tmp_path / "a" / "b"])
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_names_in_an_error_do_not_move_the_cursor(hostile_uri, capfd):
    code, said = run_captured(capfd, "report", "--tracking-uri", hostile_uri, "--experiment", "other")
    assert code == 2
    assert said.count("\n") == 1
    assert "<script>" in said
    assert not re.search(UNSEEN, said)


def test_different_texts_stay_different():
    assert visible("a\x00") != visible("a\x01")
    assert visible("x" * 400 + "a", 300) != visible("x" * 400 + "b", 300)
    assert visible("plain · τ → λ") == "plain · τ → λ"
    assert visible_lines("a\r\nb\tc\x1b") == "a\nb\tc\\x1b"
    assert visible_json({"\x1b": ["\ud800", 1, None]}) == {"\\x1b": ["\\ud800", 1, None]}
