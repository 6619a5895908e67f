"""The report in a real browser: sorting, filtering, phones, paper, dark mode, and accessibility by axe-core."""

import base64
import json
import re
from pathlib import Path

import pytest
from browsers import axe
from reports_store import in_memory, main_grid, with_diagnostics

from reports.compare_sweeps import build_comparison
from reports.page.context import Options
from reports.report import build_report

WIDTHS = (390, 768, 1440)
TABLE = "document.querySelector('#quality table.sortable')"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("usable")
    runs = in_memory(main_grid(), epochs=6)
    many = in_memory(main_grid(n_seeds=8), epochs=3)
    return {
        "report": build_report(runs, out / "report", Options(ui="http://127.0.0.1:5000")),
        "gradients": build_report(with_diagnostics(), out / "gradients"),
        "compare": build_comparison(("before", runs), ("after", many), out / "compare", Options()),
    }


def visit(browser, path: Path, width: int = 1280, **media: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(path.as_uri())


def column(browser, index: int, table: str = TABLE) -> list[str]:
    script = f"return [...{table}.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[{index}].innerText.trim())"
    return browser.execute_script(script)


@pytest.mark.parametrize("name", ["report", "gradients", "compare"])
def test_the_report_opens_from_a_file_without_requests_or_errors(browser, pages, name):
    visit(browser, pages[name])
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("data:", pages[name].as_uri()))] == []
    assert browser.get_log("browser") == []


def test_clicks_on_a_heading_sort_and_reverse_the_rows(browser, pages):
    visit(browser, pages["report"])
    before = column(browser, 3)
    browser.execute_script(f"{TABLE}.tHead.rows[0].cells[0].querySelector('button').click()")
    names = column(browser, 0)
    assert names == sorted(names)
    browser.execute_script(f"{TABLE}.tHead.rows[0].cells[0].querySelector('button').click()")
    assert column(browser, 0) == names[::-1]
    browser.execute_script(f"{TABLE}.tHead.rows[0].cells[3].querySelector('button').click()")
    known = [text for text in column(browser, 3) if text != "–"]
    assert known == sorted(known, key=float)
    assert browser.execute_script(f"return {TABLE}.tHead.rows[0].cells[3].getAttribute('aria-sort')") == "ascending"
    assert sorted(column(browser, 3)) == sorted(before)


def test_rows_are_filtered_by_words(browser, pages):
    visit(browser, pages["report"])
    table = "document.querySelector('#completeness details table')"
    browser.execute_script("document.querySelector('#completeness details').open = true")
    everything = column(browser, 0, table)
    script = (
        f"const t = {table}; const i = t.closest('.scroll').previousElementSibling.querySelector('input');"
        "i.value = arguments[0]; i.dispatchEvent(new Event('input'));"
        "return i.parentElement.querySelector('output').value"
    )
    said = browser.execute_script(script, "GUMBEL_softmax exponential")
    shown = column(browser, 0, table)
    assert shown
    assert all("gumbel_softmax" in name and "exponential" in name for name in shown)
    assert said == f"{len(shown)} of {len(everything)}"
    assert browser.execute_script(script, "no such run") == f"0 of {len(everything)}"
    browser.execute_script(script, "")
    assert column(browser, 0, table) == everything


def test_the_report_is_complete_without_javascript(browser, pages):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, pages["report"])
        found = browser.execute_cdp_cmd("DOM.getDocument", {"depth": -1})
        root = found["root"]["nodeId"]
        rows = browser.execute_cdp_cmd("DOM.querySelectorAll", {"nodeId": root, "selector": "#quality tbody tr"})
        buttons = browser.execute_cdp_cmd("DOM.querySelectorAll", {"nodeId": root, "selector": "th button"})
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert len(rows["nodeIds"]) > 20
    assert buttons["nodeIds"] == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "gradients", "compare"])
def test_nothing_is_wider_than_the_window(browser, pages, name, width):
    visit(browser, pages[name], width)
    for details in (False, True):
        browser.execute_script(f"for (const d of document.querySelectorAll('details')) d.open = {str(details).lower()}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def axe_core(tmp_path_factory) -> str:
    return axe(tmp_path_factory.mktemp("axe"))


def violations(browser, path: Path, axe_core: str, scheme: str, before: str = "") -> list[object]:
    """What axe-core finds on a page with everything unfolded, after a script has run."""
    visit(browser, path, prefers_color_scheme=scheme)
    browser.execute_script(f"for (const d of document.querySelectorAll('details')) d.open = true; {before}")
    browser.set_script_timeout(120)
    browser.execute_script(axe_core)
    found = browser.execute_async_script("axe.run(document).then(arguments[0])")
    assert len(found["passes"]) > 20
    listed = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]]
    for each in found["incomplete"]:
        unsure = [node["html"][:200] for node in each["nodes"] if not _is_undecidable(node["html"])]
        listed += [(f"perhaps {each['id']}", unsure)] if unsure else []
    return listed


def _is_undecidable(html: str) -> bool:
    """Text of a figure, which may stand over its lines, and text of one character: axe leaves their contrast open."""
    return html.startswith("<text") or len(re.sub(r"<[^>]*>", "", html).strip()) == 1


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("report", "light"),
        pytest.param("report", "dark", marks=pytest.mark.slow),
        ("gradients", "light"),
        ("compare", "dark"),
    ],
)
def test_axe_finds_nothing(browser, pages, axe_core, name, scheme):
    assert violations(browser, pages[name], axe_core, scheme) == []


def test_axe_would_find_something(browser, pages, axe_core):
    """The check can fail: a picture without words, grey on white, a field without a name."""
    wrong = "document.querySelector('main').insertAdjacentHTML('beforeend', arguments)"
    html = "<img src='data:,'><p style='color:#bbb;background:#fff'>pale words</p><input>"
    found = violations(browser, pages["compare"], axe_core, "light", wrong.replace("arguments", json.dumps(html)))
    assert {"image-alt", "color-contrast", "label"} <= {each[0] for each in found}


def test_the_report_prints_completely_and_on_white(browser, pages, tmp_path):
    """All of it, including the folded parts."""
    visit(browser, pages["report"], prefers_color_scheme="dark")
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") > 5
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    folded = "[...document.querySelectorAll('details > :not(summary, .filter)')]"
    hidden = browser.execute_script(f"return {folded}.filter(e => !e.getClientRects().length).length")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert paper == "rgb(255, 255, 255)"
    assert hidden == 0
