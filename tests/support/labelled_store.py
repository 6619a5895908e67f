"""A store of a grid whose labels are given, made without training: a journal, and `harness sync`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from empty_store import add_empty_store
from sqlalchemy import Engine, event

from estimators import REGISTRY
from harness.cli import cli
from harness.config import RunConfig
from harness.events import EpochDone, Event, Finished, Record, Started
from harness.grid.load import Grid, load_grid
from harness.storage.journal import Journal
from reports.page.gradients import NUMBERS

LABELS = (
    *("a · b", "b", "none", "no temperature", "constant(1)", "device=cpu", "seed 0", "lr=0.1", "s", '"a" · "b"'),
    *("1e3", "True", "None", "nan", "NA", "unknown", "missing", "not set", "mine [version 1a2b]", "x (rloo)"),
    *("_hidden", "$x_{$", "$\\frac{", "100 %", "\\input{x} \\\\[1cm]", "{}~^#&_ -- '' ,,", "[1]", "*", '"`|'),
    *("=1+1", "'=1+1", "＝2", "-1", "@x", "<b>&amp;</b>", "a|b`c`*d* _e_ ~~f~~", "![x](http://y.z)", "a, b (c, d"),
    *("漢字", "ключ", "🙂🙃", "café cafe\u0301", "שלום", "\u202eabc", "\\u202eabc", "\u200b", "ﬀ τ ≤ ●", "\x85"),
    *("x" * 200, "x" * 199 + "y", " ", " s", "s ", "../../x", "C:\\x", "%s %d {0}", "a\u0301\u0302\u0303"),
)
ABOUT = {"git_commit": None, "git_dirty": None, "packages": {"argmax-harness": "0", "torch": "0"}, "workers": 1}
ESTIMATOR, FREE = "straight_through", "rloo"
BEGUN_MS = 1_760_000_000_000


def grid_text(
    with_tau: Sequence[str], free: Sequence[str], schedules: Sequence[str], basket: Sequence[str] = ()
) -> str:
    """A grid of estimators with and without a temperature, and schedules, of these labels."""
    estimators = [{"name": ESTIMATOR, "n_samples": 1 + i, "label": label} for i, label in enumerate(with_tau)]
    estimators += [{"name": FREE, "n_samples": 2 + i, "label": label} for i, label in enumerate(free)]
    found: dict[str, Any] = {
        "name": "labelled",
        "data": {"name": "mnist-mini", "train_size": 100},
        "model": {"n_latents": 2, "n_categories": 3, "hidden": [4]},
        "training": {"epochs": 2, "batch_size": 50},
        "estimators": estimators,
        "schedules": [{"kind": "constant", "tau": 0.1 * (1 + i), "label": label} for i, label in enumerate(schedules)],
        "seeds": [0, 1],
    }
    if basket:
        entries = [{"name": FREE, "n_samples": 2 + i, "label": label} for i, label in enumerate(basket)]
        found["diagnostics"] = {"every": 1, "resamples": 64, "probe": 10, "basket": entries}
    text = json.dumps(found, ensure_ascii=False)  # JSON is YAML, but for line breaks
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def make(folder: Path, text: str) -> Grid:
    """Write the grid, the journal that a sweep of it would have left but for its last run, and the store."""
    add_empty_store(folder)
    path = folder / "labelled.yaml"
    path.write_text(text)
    grid = load_grid(path, REGISTRY)
    with Journal(folder / grid.name) as journal:
        for number, run in enumerate(grid.runs[:-1]):
            for time_ms, each in enumerate(_events(run, number)):
                journal.append(Record(run.key, BEGUN_MS + 1000 * number + time_ms, each))
    arguments = ["sync", "--grid", str(path), "--out", str(folder), "--tracking-uri", uri(folder)]
    with _without_waiting_for_the_disk():
        cli.main(args=arguments, standalone_mode=False)
    return grid


@contextmanager
def _without_waiting_for_the_disk() -> Iterator[None]:
    def relax(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def value(number: int) -> float:
    """The test −ELBO of the run of this number."""
    return 100.0 + 0.37 * number + 0.01 * number**2


def _events(run: RunConfig, number: int) -> Iterator[Event]:
    yield Started(ABOUT)
    tau = run.schedule.temperatures(0, steps_per_epoch=1, n_steps=1)
    names = run.diagnostics.metric_names if run.diagnostics else ()
    for epoch in (1, 2):
        yield EpochDone(
            epoch, 2 * epoch, 0.1 * epoch, {"val/loss": value(number) + 3 - epoch, **tau, **_gradients(names)}
        )
    yield Finished(4, {"test/neg_elbo": value(number), "time/total_s": 0.2, "cost/n_cost_evals": 1.0})


def _gradients(names: Sequence[str]) -> Mapping[str, float]:
    measured = ["own", *names] if names else []
    return {f"gradient/{name}/{metric}": 0.5 for name in measured for metric in NUMBERS}
