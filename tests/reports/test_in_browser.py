"""A browser opens the report about a hostile store: nothing of the store runs, and nothing leaves the file."""

import json
from pathlib import Path

import pytest

from estimators import build
from harness.gradients import on_toy_problems as toys
from reports.page import gradients

SCRIPT = "<script>window.__pwned = 1</script>"
HANDLERS = (
    "return [...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on/i.test(a.name))).length"
)
FOREIGN = "return document.querySelectorAll('iframe,object,embed,form,base,foreignObject,script[src]').length"


@pytest.fixture
def report(hostile_report: Path) -> Path:
    return hostile_report / "report.html"


def visit(browser, path: Path) -> dict[str, object]:
    """Open a file, touch everything in it, and say what happened."""
    browser.get_log("performance"), browser.get_log("browser")  # what was before
    browser.get(path.as_uri())
    browser.execute_script(
        "for (const e of document.querySelectorAll('*'))"
        " for (const kind of ['mouseover', 'focus', 'click', 'toggle', 'error'])"
        " if (!e.closest('a')) e.dispatchEvent(new Event(kind, {bubbles: true}))"
    )
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    dialogs = [e for e in events if e["method"] == "Page.javascriptDialogOpening"]
    return {
        "pwned": browser.execute_script("return window.__pwned === undefined ? 0 : 1"),
        "scripts": browser.execute_script("return document.scripts.length"),
        "handlers": browser.execute_script(HANDLERS),
        "foreign": browser.execute_script(FOREIGN),
        "sorted by": browser.execute_script("return document.querySelectorAll('th button').length > 0"),
        "dialogs": len(dialogs),
        "requests": [url for url in requests if url != path.as_uri() and not url.startswith("data:")],
        "complaints": [entry["message"] for entry in browser.get_log("browser")],
        "windows": len(browser.window_handles),
    }


CLEAN = {
    **dict.fromkeys(("pwned", "handlers", "foreign", "dialogs"), 0),
    "scripts": 1,
    "sorted by": True,
    "requests": [],
    "complaints": [],
    "windows": 1,
}


def test_a_report_about_a_hostile_store_runs_only_its_own_script(browser, report):
    """Its own script runs (the headings become buttons), so the policy's hash is right; nothing is refused by it."""
    assert visit(browser, report) == CLEAN


def test_every_link_stays_within_the_report(browser, report):
    browser.get(report.as_uri())
    links = browser.execute_script("return [...document.querySelectorAll('a')].map(a => a.href)")
    assert links
    assert all(link.startswith(f"{report.as_uri()}#") for link in links)


def test_the_page_about_gradients_is_as_safe(browser, tmp_path):
    frame = toys.frame(next(iter(toys.TOYS.values())), {SCRIPT: build("rloo")}, 64, 0)
    section = gradients.Section(f"s{SCRIPT.replace('/', '')}", SCRIPT, frame, SCRIPT)
    path = gradients.write([section], tmp_path, title=SCRIPT, command=SCRIPT, notes={SCRIPT: SCRIPT})
    assert visit(browser, path) == CLEAN


@pytest.mark.slow
def test_the_policy_stops_what_escaping_would_let_through(browser, report, tmp_path):
    """What the tests above look for can happen: without policy an injected script runs, with it none does."""
    text = report.read_text(encoding="utf-8")
    head, _, rest = text.partition('<meta http-equiv="Content-Security-Policy"')
    without = head + rest.partition(">")[2]
    attack = f'<main>{SCRIPT}<img src="http://127.0.0.1:9/x" onerror="window.__pwned = 1">'
    for name, page in (("with", text), ("without", without)):
        (tmp_path / name).with_suffix(".html").write_text(page.replace("<main>", attack), encoding="utf-8")
    found = visit(browser, tmp_path / "with.html")
    assert (found["pwned"], found["scripts"], found["handlers"]) == (0, 2, 1)
    assert len(found["complaints"]) >= 2
    found = visit(browser, tmp_path / "without.html")
    assert (found["pwned"], found["requests"]) == (1, ["http://127.0.0.1:9/x"])
