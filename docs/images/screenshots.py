"""Take the pictures of docs/mlflow.md: MLflow's interface on a sweep of the quickstart, in a headless Chromium.

    harness run --grid experiments/quickstart.yaml --out /tmp/shown --save-models
    harness report --experiment quickstart --from /tmp/shown --attach
    python docs/images/screenshots.py /tmp/shown

It needs selenium, chromium and chromedriver, and knows the interface of MLflow 3.17. What is remembered of a visitor in
the browser (columns, groups, closed panels) is put there before the page opens.
"""

import argparse
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from reports.contract.sqlite_uri import DATABASE, sqlite_uri

HERE = Path(__file__).parent
COLOURS = 128
COLUMNS = ["metrics.`test/neg_elbo`", "metrics.`test/neg_bound`", "tags.`harness.best`", "attributes.`Dataset`"]
STEADY = 5
"""So often, a second apart, a section is in the same place before it counts as staying there."""
PLACE = """
    let box = arguments[0];
    while (box.parentElement && !/auto|scroll/.test(getComputedStyle(box).overflowY)) box = box.parentElement;
    return arguments[0].getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop"""
GROUPED = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "estimator"}]}
STATE = {
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": COLUMNS,
    "columnOrder": [],
    "columnWidths": {},
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "FIRST_10_RUNS",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": False,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": GROUPED,
    "groupsExpanded": {},
    "autoRefreshEnabled": False,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}


@contextmanager
def interface(uri: str) -> Iterator[str]:
    """Yield the address of MLflow's interface on this store."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "harness.cli", "ui", "--port", str(port), "--tracking-uri", uri]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(address), 120)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{address}/health", timeout=2).status == 200)  # noqa: S310 our own server
    except OSError:
        return False


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the page did not come")
        time.sleep(0.2)


@contextmanager
def chromium(width: int = 1600, height: int = 1000) -> Iterator[Any]:
    """Yield a browser with a window of this size."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    names = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    for argument in (*names, "--hide-scrollbars", f"--window-size={width},{height}"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver") or ""))
    try:
        yield browser
    finally:
        browser.quit()


class Visitor:
    """Somebody with a browser and some patience."""

    def __init__(self, browser: Any, address: str, experiment_id: str) -> None:
        self.browser, self.address, self.experiment = browser, address, f"/experiments/{experiment_id}"
        browser.get(f"{address}/#/experiments?workflowType=machine_learning")
        self.remember("mlflow.assistant.panelOpen_v1", False)
        self.remember("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", True)
        self.remember_state()

    def remember_state(self, **changes: object) -> None:
        """Be somebody who left the page of the experiment in STATE, with these changes."""
        name = self.experiment.rpartition("/")[2]
        key = f'MLflowLocalStorage-1.1-ExperimentPage-["{name}"]-ReactComponentState'
        self.remember(key, STATE | changes)

    def remember(self, key: str, value: object) -> None:
        self.browser.execute_script("localStorage.setItem(arguments[0], arguments[1])", key, json.dumps(value))

    def open(self, path: str, *texts: str) -> None:
        """Open a page; wait until it shows all of these texts."""
        separator = "&" if "?" in path else "?"
        self.browser.get("about:blank")
        self.browser.get(f"{self.address}/#{path}{separator}workflowType=machine_learning")
        for text in texts:
            self.see(text)

    def see(self, text: str, seconds: float = 20) -> None:
        WebDriverWait(self.browser, seconds).until(
            lambda browser: text in browser.find_element(By.TAG_NAME, "body").text, f"{text!r} is not shown"
        )

    def click(self, xpath: str, seconds: float = 20) -> None:
        found = WebDriverWait(self.browser, seconds).until(lambda browser: browser.find_elements(By.XPATH, xpath))
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
        found[0].click()

    def scroll_to(self, title: str, seconds: float = 40) -> None:
        """Bring the last section with this title to the top, again until it stays: those above it grow as they load."""
        tops: list[float] = []
        deadline = time.monotonic() + seconds
        while len(tops) < STEADY or max(tops[-STEADY:]) - min(tops[-STEADY:]) > 2:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the section {title!r} does not stay in its place")
            found = self.browser.find_elements(By.XPATH, f"//*[text()='{title}']")
            if found:
                self.browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", found[-1])
                time.sleep(0.2)
                tops.append(self.browser.execute_script(PLACE, found[-1]))
            time.sleep(1)

    def add_image_grid(self, names: Sequence[str], steps: int) -> None:
        """Fill the window with a chart of these pictures of the runs in sight, so many marks after the first step's."""
        title = names[0] if len(names) == 1 else "Image grid"
        dialog = "//*[@role='dialog']"
        self.click("(//button[contains(., 'Add chart')])[last()]")
        self.click("//*[@role='menuitem'][contains(., 'Image grid')]")
        self.click(f"{dialog}//*[@role='switch']")  # not the parameters of each run
        self.click(f"({dialog}//button[@role='combobox'])[last()]")
        for name in names:
            self.click(f"//*[@role='option'][contains(., '{name}')]")
        self.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        slider = self.browser.find_element(By.XPATH, f"{dialog}//*[@role='slider']")
        for _ in range(1 + steps):
            slider.send_keys(Keys.ARROW_RIGHT)
        self.click(f"{dialog}//button[. = 'Add chart']")
        time.sleep(2)
        self.click(
            f"(//button[contains(@data-component-id, 'fullscreen')][preceding-sibling::*[. = '{title}']])[last()]"
        )

    def keep(self, name: str, settle_s: float = 4.0) -> None:
        """Save what is seen, in few colours, once curves and pictures have been drawn."""
        time.sleep(settle_s)
        picture = Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
        path = HERE / f"mlflow-{name}.png"
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the --out of the sweep")
    parser.add_argument("--only", help="the name of one picture")
    given = parser.parse_args()
    uri = sqlite_uri(given.out / DATABASE)
    client = MlflowClient(tracking_uri=uri)
    experiment_id = client.get_experiment_by_name("quickstart").experiment_id
    runs = client.search_runs([experiment_id])
    parent = next(run for run in runs if run.data.tags["harness.kind"] == "sweep").info.run_id
    children = [run for run in runs if run.data.tags["harness.kind"] == "run"]
    best = [run.info.run_id for run in children if "harness.best" in run.data.tags]
    models = client.search_logged_models([experiment_id])
    with interface(uri) as address, chromium() as browser:
        me = Visitor(browser, address, experiment_id)
        for name, picture in pictures(me, parent, best, [run.info.run_id for run in children], models).items():
            if given.only in (None, name):
                me.remember_state()
                try:
                    picture()
                except WebDriverException as error:  # the page differs: look at what there is
                    print(f"{name}: {type(error).__name__} {error.msg}")
                me.keep(name)


def pictures(me: Visitor, parent: str, best: list[str], children: list[str], models: list[Any]) -> dict[str, Any]:
    """What leads to each picture, by its name."""
    run, sweep = f"{me.experiment}/runs/{best[0]}", f"{me.experiment}/runs/{parent}"
    comparison = f"/compare-runs?runs={json.dumps(children)}&experiments={json.dumps([me.experiment.split('/')[-1]])}"

    def description() -> None:
        me.open(sweep, "Description")
        me.click("//button[contains(., 'Show more')]")

    def charts() -> None:
        me.open(f"{me.experiment}/runs?compareRunsMode=CHART", "Group: rloo")
        me.scroll_to("train")

    def curves() -> None:
        me.open(f"{run}/model-metrics", "Auto-refresh")
        me.scroll_to("train")

    def images() -> None:
        shown = {"runsHiddenMode": "HIDE_ALL", "runsVisibilityMap": dict.fromkeys(best, True)}
        me.remember_state(groupBy=None, runsExpanded={parent: True}, **shown)
        me.open(f"{me.experiment}/runs?compareRunsMode=CHART", "Model metrics")
        me.scroll_to("Model metrics")
        me.add_image_grid(["reconstructions", "prior_samples"], steps=2)

    def dataset() -> None:
        me.open(run, "mnist-mini")
        me.click("//*[@role='button'][contains(., 'mnist-mini')]")
        me.see("num rows")

    return {
        "runs": lambda: me.open(f"{me.experiment}/runs", "Group: rloo"),
        "charts": charts,
        "compare": lambda: me.open(comparison, "Parallel Coordinates"),
        "sweep": description,
        "report": lambda: me.open(f"{sweep}/artifacts/report/report.html", "report.html"),
        "system": lambda: me.open(f"{sweep}/system-metrics", "cpu_utilization"),
        "curves": curves,
        "images": images,
        "dataset": dataset,
        "models": lambda: me.open(f"{me.experiment}/models", "Ready"),
        **({"model": lambda: me.open(f"{me.experiment}/models/{models[0].model_id}", "Ready")} if models else {}),
    }


if __name__ == "__main__":
    main()
