"""A browser opens MLflow's own interface on a sweep: its runs by estimator, and its description as text."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from mlflow.tracking import MlflowClient
from outages import whole
from stores_that_fail import free_port, listens, wait_for

from estimators import REGISTRY
from harness.grid.load import load_grid
from harness.status.sweep_description import summarize
from harness.storage.attempt import Attempt
from harness.storage.sweep_state import Record, Sweep
from harness.tracking import Tracker

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[dev]'")
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium and chromedriver: apt-get install chromium chromium-driver",
)
SECONDS = 40.0
ATTACK = "<img src=x onerror=window.__pwned=1> [link](javascript:window.__pwned=1) https://elsewhere.example *why*?"
GRID = f"name: seen\nquestion: {json.dumps(ATTACK)}\nestimators: [straight_through, rloo]\nseeds: [0, 1]\n"


@pytest.fixture
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    names = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    for argument in (*names, "--window-size=1600,1000"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def tracker(tmp_path: Path, out: Path) -> Tracker:
    """The store of a finished sweep."""
    path = tmp_path / "seen.yaml"
    path.write_text(GRID)
    grid = load_grid(path, REGISTRY)
    sweep = Sweep(grid, out / "seen", grid.runs)
    tracker = Tracker(f"sqlite:///{out / 'mlflow.db'}", out=out)
    tracker.open_sweep(name=grid.name, sweep_id="s", runs=grid.runs, tags={}, files={"grid.yaml": grid.text})
    for number, run in enumerate(grid.runs):
        attempt = Attempt([Record(run.key, 1000 * number + i, event) for i, event in enumerate(whole(run))])
        for record in attempt.records:
            sweep.add(record)
        tracker.write(attempt.records, attempt)
    tracker.close_sweep("FINISHED", sweep.counts(), sweep.ended_spans(), summarize(sweep, None, is_over=True))
    return tracker


@pytest.fixture
def address(tracker: Tracker, tmp_path: Path) -> Iterator[str]:
    """Where `harness ui` shows it."""
    port = free_port()
    command = [sys.executable, "-m", "harness.cli", "ui", "--port", str(port), "--tracking-uri", tracker.uri]
    with (tmp_path / "ui.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: listens(port), 90)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def shown(browser: Any) -> str:
    """The text of the page; none while it is being replaced."""
    return str(browser.execute_script("return document.body ? document.body.innerText : ''"))


def click(browser: Any, text: str) -> None:
    """Click what has this text and nothing else, once it is there."""
    script = """
        const found = [...document.querySelectorAll('button, [role^=menuitem], [role=treeitem], li, label, span')]
            .filter(e => e.innerText && e.innerText.trim() === arguments[0]);
        return found.sort((a, b) => a.querySelectorAll('*').length - b.querySelectorAll('*').length)[0] || null"""
    wait_for(lambda: browser.execute_script(script, text) is not None, SECONDS)
    browser.execute_script(script, text).click()


@pytest.mark.slow
def test_a_sweep_is_shown_by_estimator_with_its_description_as_text(
    browser: Any, address: str, tracker: Tracker
) -> None:
    runs = f"{address}/#/experiments/{tracker.experiment_id}/runs"
    browser.get(f"{runs}?workflowType=machine_learning")
    wait_for(lambda: "sweep seen" in shown(browser), SECONDS)
    click(browser, "Group by")
    click(browser, "estimator")
    wait_for(lambda: shown(browser).count("Group: ") >= 2 and "rloo · seed 1" in shown(browser), SECONDS)

    browser.get("about:blank")
    browser.get(f"{runs}/{tracker.parent_id}")
    wait_for(lambda: "4 finished" in shown(browser), SECONDS)
    assert "<img src=x onerror=window.__pwned=1>" in shown(browser)
    assert browser.execute_script("return window.__pwned") is None
    links = browser.execute_script("return [...document.querySelectorAll('a, img')].map(e => e.href || e.src)")
    assert not [link for link in links if "elsewhere" in link or "javascript" in link or link.endswith("/x")]


EXPANDER = """
    const row = [...document.querySelectorAll('[role=row]')].find(e => e.innerText.includes('sweep seen'))
    return row && row.querySelector('button:has(svg)') || null"""
SLIDERS = """
    const titles = [...document.querySelectorAll('*')].filter(e => (e.firstChild || {}).data === arguments[0])
    if (titles.length) titles.pop().scrollIntoView()
    return [...document.querySelectorAll('[role=slider]')].filter(e => e.tabIndex === 0)"""
PICTURES = """
    return [...document.querySelectorAll('img')].filter(e => e.src.includes('originals') && e.naturalWidth > 0)
        .map(e => e.src)"""


def steps_shown(browser: Any) -> list[int]:
    """The step of each picture that has loaded, by its address."""
    addresses = browser.execute_script(PICTURES)
    return [int(re.search(r"originals\+step\+(\d+)", unquote(address))[1]) for address in addresses]


def check_slider(browser: Any, n_runs: int) -> None:
    """The slider leads to the pictures of each step: as many as there are runs."""
    wait_for(lambda: browser.execute_script(SLIDERS, "Model metrics"), SECONDS)  # it is made when it comes into sight
    (slider,) = browser.execute_script(SLIDERS, "Model metrics")
    for step in (5, 10):
        slider.send_keys(Keys.ARROW_RIGHT)
        wait_for(lambda step=step: steps_shown(browser) == [step] * n_runs, SECONDS)


@pytest.mark.slow  # half a minute; tests/support/outages.py wants of every name that the charts can read it
def test_pictures_over_steps_are_on_the_pages_of_charts_and_of_a_run(
    browser: Any, address: str, tracker: Tracker
) -> None:
    runs = f"{address}/#/experiments/{tracker.experiment_id}/runs"
    browser.get(f"{runs}?compareRunsMode=CHART&workflowType=machine_learning")
    wait_for(lambda: browser.execute_script(EXPANDER) is not None, SECONDS)
    browser.execute_script(EXPANDER).click()
    check_slider(browser, 4)
    assert "incorrect filename" not in shown(browser)

    client = MlflowClient(tracking_uri=tracker.uri)
    child = client.search_runs([tracker.experiment_id], "tags.seed = '1'")[0].info.run_id
    browser.get("about:blank")
    browser.get(f"{runs}/{child}/model-metrics")
    check_slider(browser, 1)


def test_the_description_that_is_shown_is_the_stored_one(tracker: Tracker) -> None:
    description = MlflowClient(tracking_uri=tracker.uri).get_run(tracker.parent_id).data.tags["mlflow.note.content"]
    assert "<img" not in description
    assert "**Ended:** 4 finished. Best: `" in description
