"""The contract of stored names: training, MLflow, the code of both sides and docs/architecture.md hold to it."""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from empty_store import add_empty_store
from mlflow.tracking import MlflowClient

from estimators import REGISTRY
from harness.events import EpochDone, Failed, Finished, Interrupted, Picture, Record, Started
from harness.grid.load import Grid, load_grid
from harness.options import Options
from harness.status.sweep_description import StoreSummary
from harness.storage.attempt import Attempt
from harness.storage.sweep_state import read_sweep
from harness.sweep.replay import open_store
from harness.tracking import Tracker, attach
from harness.train import train
from harness.training.run_controls import RunControls
from reports.contract import stored_run
from reports.contract.stored_run import (
    CHILD_ARTIFACTS,
    CHILD_PARAMS,
    CHILD_TAGS,
    EPOCH_METRICS,
    EXPERIMENT_TAGS,
    HISTORY_KEYS,
    IDENTITY,
    INPUT_TAGS,
    OWN_IMAGES_PARAMS,
    PARENT_ARTIFACTS,
    PARENT_TAGS,
    PICTURES,
    RUN_METRICS,
    STATUSES,
    TASK_METRICS,
    TASK_PARAMS,
)
from reports.store.load import load

ROOT = Path(__file__).parent.parent
GRID = """
name: tiny
question: does it work?
data: {name: mnist-mini, train_size: 100}
model: {n_latents: 2, n_categories: 3, hidden: [4]}
training: {epochs: 2, batch_size: 50}
evaluation: {checkpoint: best}
estimators: [gumbel_softmax, decoupled_st_gs]
seeds: [0]
diagnostics: {every: 1, resamples: 64, probe: 10, basket: [straight_through]}
"""
COMPILED = {"time/compile_s", "compiled"}  # only where a trial of compiling was made
OF_MLFLOW = re.compile(r"mlflow\.(runName|runColor|user|source\..*|log-model\..*)")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    path = tmp_path_factory.mktemp("grid") / "tiny.yaml"
    path.write_text(GRID)
    return load_grid(path, REGISTRY)


@pytest.fixture(scope="module")
def attempts(grid: Grid) -> dict[str, list[Record]]:
    """By estimator: the records of a whole run, with its weights."""
    found = {}
    for run in grid.runs:
        events = train(run, REGISTRY, controls=RunControls(keeps_model=True))
        found[run.estimator.name] = [Record(run.key, 1000 + i, event) for i, event in enumerate(events)]
    return found


def assert_same(found: Iterable[str], contract: Iterable[str], absent: Iterable[str] = ()) -> None:
    """Assert that each name found is one of the contract, and that each of the contract is found."""
    found = set(found)
    patterns = {name: re.compile(re.sub(r"<[^>]*>", ".+", re.escape(name))) for name in contract}
    assert {name for name in found if not any(each.fullmatch(name) for each in patterns.values())} == set()
    missing = {name for name, each in patterns.items() if not any(each.fullmatch(one) for one in found)}
    assert missing == set(absent)


def test_a_run_yields_the_metrics_of_the_contract(attempts: Mapping[str, list[Record]]) -> None:
    events = [record.event for records in attempts.values() for record in records]
    assert_same((name for e in events if isinstance(e, EpochDone) for name in e.metrics), EPOCH_METRICS, {"t"})
    assert_same((name for e in events if isinstance(e, Finished) for name in e.metrics), RUN_METRICS, COMPILED)
    assert {event.name for event in events if isinstance(event, Picture)} == set(PICTURES)
    assert {event.kind for event in events} >= {stored_run.FINISHED}


def test_the_params_that_reports_interpret_are_in_every_configuration(grid: Grid) -> None:
    assert CHILD_PARAMS.keys() <= grid.runs[0].flat().keys()


@pytest.fixture(scope="module")
def client_and_ids(
    grid: Grid, attempts: Mapping[str, list[Record]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[MlflowClient, str]:
    """A store with a finished run, and one that was resumed and failed; its sweep is closed and has a report."""
    out = tmp_path_factory.mktemp("out")
    add_empty_store(out)
    (out / grid.name).mkdir()
    uri = f"sqlite:///{out / 'mlflow.db'}"
    tracker = Tracker(uri, out=out)
    open_store(tracker, read_sweep(grid, out), Options(out=out, workers=1, command="harness run"))
    finished = Attempt(attempts["gumbel_softmax"])
    tracker.write(finished.records, finished)
    key, started = grid.runs[1].key, attempts["decoupled_st_gs"][0].event
    assert isinstance(started, Started)
    ends = [started, Interrupted("stopped"), started, Failed("RuntimeError: no", "Traceback …")]
    failed = Attempt([Record(key, 2000 + i, event) for i, event in enumerate(ends)])
    tracker.write(failed.records, failed)
    tracker.close_sweep(
        "FAILED", dict.fromkeys(STATUSES, 0), {}, StoreSummary("a description", {"gumbel_softmax": grid.runs[0].key})
    )
    (out / "tables").mkdir()
    (out / "tables" / "quality.csv").write_text("a,b\n")
    (out / "report.html").write_text("<p>")
    attach(uri, grid.name, out / "report.html")
    return MlflowClient(tracking_uri=uri), tracker.experiment_id


def runs_of_kind(client: MlflowClient, experiment: str, kind: str) -> list:
    return list(client.search_runs([experiment], f"tags.`harness.kind` = '{kind}'"))


def tags_of(runs: Iterable) -> set[str]:
    return {name for run in runs for name in run.data.tags if not OF_MLFLOW.fullmatch(name)}


def artifacts_of(client: MlflowClient, runs: Iterable, folder: str = "") -> Iterator[str]:
    for run in runs:
        for file in client.list_artifacts(run.info.run_id, folder):
            yield from artifacts_of(client, [run], file.path) if file.is_dir else [file.path]


def test_a_store_has_the_names_of_the_contract(client_and_ids: tuple[MlflowClient, str], grid: Grid) -> None:
    client, experiment = client_and_ids
    children, parents = (runs_of_kind(client, experiment, kind) for kind in ("run", "sweep"))
    assert (len(children), len(parents)) == (2, 1)
    assert_same(tags_of(children), CHILD_TAGS, {"harness.role", "harness.competitor"})  # those of a tuned sweep
    assert_same(tags_of(parents), PARENT_TAGS)
    assert client.get_experiment(experiment).tags.keys() >= EXPERIMENT_TAGS.keys()
    assert_same(artifacts_of(client, children), CHILD_ARTIFACTS)
    assert_same(artifacts_of(client, parents), PARENT_ARTIFACTS, {"growth.json"})
    assert {name for run in children for name in run.data.params} == {
        *IDENTITY,
        *(name for run in grid.runs for name in run.flat()),
    }
    metrics = {name for run in children for name in run.data.metrics}
    assert_same(metrics, {**EPOCH_METRICS, **RUN_METRICS}, {*COMPILED, "tau_forward", "tau_backward", "t"})
    inputs = [one for run in children for one in run.inputs.dataset_inputs]
    tags = {tag.key for one in inputs for tag in one.tags}
    assert tags.union(*(json.loads(one.dataset.source)["tags"] for one in inputs)) == INPUT_TAGS.keys()
    assert {run.data.tags["harness.status"] for run in children} < STATUSES.keys()


def test_a_report_reads_what_was_stored(client_and_ids: tuple[MlflowClient, str]) -> None:
    client, _ = client_and_ids
    runs = load("tiny", client._tracking_client.tracking_uri)
    assert set(runs.runs["status"]) == {"finished", "failed"}
    assert HISTORY_KEYS.keys() <= set(runs.history.columns)
    assert all(runs.history[name].notna().any() for name in ("train/loss", "tau", "time/step_s_median"))
    assert {*runs.images.values().__iter__().__next__()} == set(PICTURES)
    assert runs.sweeps[0].basket == {"straight_through": "straight_through"}


# --- the code -------------------------------------------------------------------------------------------------------

NAMES = {value for name, value in vars(stored_run).items() if name.isupper() and isinstance(value, str)}
UNMISTAKABLE = {name for name in NAMES if re.search("[./]", name)} | set(PICTURES)
WORDS = {*STATUSES}  # not in harness/status, whose JSON has words of its own
PACKAGES = ("reports", "harness/tracking", "harness/status", "harness/sweep/replay.py")


def literals(path: Path) -> Iterator[str]:
    """Yield the strings of a file, those within f-strings too, without docstrings."""
    tree = ast.parse(path.read_text())
    about = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in about:
            yield node.value


def test_no_stored_name_is_written_out_where_it_is_used() -> None:
    paths = [path for name in PACKAGES for path in ((ROOT / name).rglob("*.py") if "." not in name else [ROOT / name])]
    found = [
        f"{path.relative_to(ROOT)}: {text!r}"
        for path in paths
        if path.name != "stored_run.py"
        for text in literals(path)
        if text in UNMISTAKABLE
        or (text in WORDS and "status" not in path.parts)
        or (" " not in text and any(name in text for name in UNMISTAKABLE if not name.endswith(("/", "."))))
        or re.search(r"harness\.(sweep|kind|n_|sha256|label|status)\b(?!_)`", text)
    ]
    assert found == []


def test_names_are_plain_text() -> None:
    """What the driver of a database can take: psycopg2 knows no subclass of str."""
    assert {type(value) for value in NAMES} == {str}


# --- the documentation ----------------------------------------------------------------------------------------------

TABLES = {
    "Tag": (EXPERIMENT_TAGS, CHILD_TAGS, INPUT_TAGS, PARENT_TAGS),
    "Status": (STATUSES,),
    "Param": (CHILD_PARAMS, TASK_PARAMS, OWN_IMAGES_PARAMS),
    "Metric": (EPOCH_METRICS, RUN_METRICS, TASK_METRICS),
    "Key": (HISTORY_KEYS,),
    "Artifact": (CHILD_ARTIFACTS, PARENT_ARTIFACTS),
}


def as_table(title: str, group: Mapping[str, str]) -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in group.items()]
    return "\n".join([f"| {title} | Meaning |", "|---|---|", *rows, ""])


def test_architecture_has_the_tables_of_the_contract() -> None:
    """A failure shows the table that belongs there."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    for title, groups in TABLES.items():
        for group in groups:
            assert as_table(title, group) in page
