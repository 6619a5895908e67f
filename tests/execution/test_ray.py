"""Runs on a Ray cluster on this machine have the numbers of the local executor, also if nodes or workers die."""

import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import command_line
import pytest
from executors import InThisProcess
from mlflow.tracking import MlflowClient
from ray_sweeps import events, finish, grid_file, results, start, unmeasured, wait_for

from estimators import REGISTRY
from harness.config import RunConfig, TrainingConfig
from harness.events import EpochDone, Finished, Interrupted, Picture, Record, Started
from harness.execution.dispatch import Dispatch
from harness.execution.executor import Executor, Job
from harness.execution.local_executor import LocalExecutor
from harness.execution.ray_cluster import ClusterError
from harness.execution.ray_executor import RayExecutor
from harness.grid.load import load_grid
from harness.options import Policy, RayOptions, SavingEvery

pytest.importorskip("ray", reason="ray is not installed: pip install 'argmax-harness[ray]'")

Make = Callable[..., RunConfig]
EVERY_EPOCH = SavingEvery(epochs=1)
PLUGIN = """
import os
from pathlib import Path
from estimators import Pathwise
from sharpness import FACTOR


class Sharp(Pathwise):
    '''Dies once, in the second of its epochs, as when the system takes its memory.'''

    name, relaxes = "sharp", True

    def __init__(self, *, marker: str = ""):
        super().__init__()
        self.marker, self.n_calls = marker, 0

    def sample(self, logits_BLK):
        self.n_calls += self.training
        if self.marker and self.n_calls == 7 and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), 9)
        return (FACTOR * logits_BLK).softmax(-1).unsqueeze(0)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """Return a plug-in that imports a module beside it."""
    path = tmp_path / "plugin" / "sharp.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(PLUGIN))
    (path.parent / "sharpness.py").write_text("FACTOR = 3\n")
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs for tasks, and two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
    for _ in range(2):
        add_node(cluster)
    yield cluster
    cluster.shutdown()


def add_node(cluster: Any) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)


def remove_node(cluster: Any) -> None:
    """Take a node away as a power cut does."""
    node = sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0]
    cluster.remove_node(node, allow_graceful=False)


def compute(executor: Executor, runs: list[RunConfig], policy: Policy = Policy(pause_s=0.1)) -> list[Record]:  # noqa: B008
    """Compute runs as a driver does: a retry goes on from the newest checkpoint."""
    checkpoints: dict[str, bytes] = {}
    executor.start(len(runs))
    records = []
    try:
        for record in Dispatch(executor, policy, lambda run: Job(run, checkpoints.get(run.key))).records(runs):
            if record.event.kind == "checkpoint":
                checkpoints[record.run_key] = record.event.content
            records.append(record)
    finally:
        executor.close()
    return records


def told(records: list[Record], run: RunConfig) -> list[object]:
    """Return the results of a run that must be the same, each repeated epoch once."""
    found: dict[object, object] = {}
    for event in (record.event for record in records if record.run_key == run.key):
        if isinstance(event, EpochDone | Finished):
            metrics = unmeasured(event.metrics)
            assert found.setdefault((event.kind, event.step), metrics) == metrics
        elif isinstance(event, Picture):
            found[event.name] = event.png
    return list(found.items())


def test_the_numbers_are_those_of_local_workers(
    cluster: Any, tiny_run: Make, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a plugin and a module of it sent to the nodes, and a process that is killed in epoch two and resumes."""
    monkeypatch.chdir(tmp_path)  # Ray looks for modules where the driver was started
    dying = tiny_run("rloo", training=TrainingConfig(epochs=3, batch_size=50))
    params = {"marker": str(tmp_path / "has-died")}
    dying = dying.model_copy(
        update={"estimator": dying.estimator.model_copy(update={"name": "sharp", "params": params})}
    )
    runs = [dying, tiny_run(), tiny_run("rloo", seed=1), tiny_run("rebar")]
    here_only = InThisProcess(workers=1, plugins=[plugin], saving=EVERY_EPOCH)
    executor = RayExecutor(RayOptions(cluster.address), plugins=[plugin], saving=EVERY_EPOCH)
    shutil.rmtree(plugin.parent)  # other nodes do not have it
    records = compute(executor, runs)
    assert (tmp_path / "has-died").exists(), [str(r.event)[-700:] for r in records if r.run_key == dying.key]
    ends = {record.run_key: record.event for record in records if isinstance(record.event, Finished)}
    assert ends.keys() == {run.key for run in runs}
    (retry,) = [record for record in records if isinstance(record.event, Interrupted)]
    assert (retry.run_key, retry.event.retrying) == (dying.key, True)
    assert retry.event.error == "worker process died (killed, or out of memory?); retry 1 of 2 in 0.1 s"
    epochs = [record.event.epoch for record in records if record.run_key == dying.key and record.event.kind == "epoch"]
    assert epochs == [1, 2, 3]

    here = compute(here_only, runs)
    for run in runs:
        assert told(records, run) == told(here, run)
        assert [r.event.kind for r in here if r.run_key == run.key] == [
            r.event.kind for r in records if r.run_key == run.key
        ] or run is dying
    starts = [[r.event.provenance for r in found if isinstance(r.event, Started)] for found in (records, here)]
    assert all(provenance["threads"] == 1 for provenance in starts[0])
    assert {str(p["git_commit"]) for p in starts[0]} == {str(p["git_commit"]) for p in starts[1]}


@pytest.mark.slow
def test_on_a_stop_runs_are_saved_and_waiting_runs_never_begin(cluster: Any, tiny_run: Make) -> None:
    training = TrainingConfig(epochs=5000, batch_size=50)
    runs = [tiny_run(seed=seed, training=training) for seed in range(4)]
    executor = RayExecutor(RayOptions(cluster.address, workers=3))
    executor.start(len(runs))
    dispatch = Dispatch(executor, Policy(), Job)
    records = []
    try:
        for record in dispatch.records(runs):
            records.append(record)
            if isinstance(record.event, EpochDone) and len({r.run_key for r in records}) == 2:
                dispatch.stop()
    finally:
        executor.close()
    begun = list(dict.fromkeys(r.run_key for r in records if isinstance(r.event, EpochDone)))
    assert len(begun) == 2
    for key in begun:
        *_, last, saved, end = [r.event for r in records if r.run_key == key]
        assert (last.kind, saved.kind) == ("epoch", "checkpoint")
        assert end == Interrupted(f"stopped after epoch {last.epoch}")
        assert saved.content.startswith(b"{")
    (waiting,) = {run.key for run in runs[:3]}.difference(begun)  # the nodes hold two
    assert [r.event for r in records if r.run_key == waiting] == [Interrupted("stopped before it began")]
    assert not [r for r in records if r.run_key == runs[3].key]


@pytest.mark.slow
def test_the_runs_of_lost_nodes_continue_elsewhere_with_the_same_bits(cluster: Any, tmp_path: Path, out: Path) -> None:
    n_losses, epochs = 2, 100
    grid = grid_file(tmp_path, epochs)
    here = compute(LocalExecutor(workers=2), list(load_grid(grid, REGISTRY).runs))
    options = ("--executor", "ray", "--address", cluster.address, "--checkpoint-every", "1epochs", "--retries", 5)
    process = start("run", "--grid", grid, "--out", out, *options)
    for loss in range(n_losses):
        seen = len(events(out))
        wait_for(lambda seen=seen: sum(e["kind"] == "epoch" for e in events(out)[seen:]) > epochs // 3, process)
        remove_node(cluster)
        add_node(cluster)
        wait_for(lambda loss=loss: sum(bool(e.get("retrying")) for e in events(out)) > loss, process)
    code, said, err = finish(process)
    assert code == 0, said + err
    assert "differed when recomputed" not in said
    retries = [event["error"] for event in events(out) if event.get("retrying")]
    assert n_losses <= len(retries) <= 2 * n_losses  # a node may hold one run that ends and one that begins
    assert all(line.startswith("its node died") for line in retries)
    assert results(out) == {r.run_key: unmeasured(r.event.metrics) for r in here if isinstance(r.event, Finished)}
    seen_epochs = Counter((event["run_key"], event["epoch"]) for event in events(out) if event["kind"] == "epoch")
    assert set(seen_epochs.values()) == {1}
    assert len(seen_epochs) == 4 * epochs
    code, said, err = finish(start("run", "--grid", grid, "--out", out, *options))
    assert code == 0, err
    assert "0 runs to do, 4 already done" in said


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["there", "of its own"])
def test_a_grid_on_a_cluster_is_stored(own: bool, request: pytest.FixtureRequest, tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path, epochs=2)
    given = ("run", "--grid", grid, "--out", out, "--executor", "ray")
    if own:
        code, said, err = finish(start(*given, "--workers", 2))
    else:
        address = request.getfixturevalue("cluster").address
        done = command_line.harness(*given, "--address", address)
        code, said, err = done.returncode, done.stdout, done.stderr
    assert (code, err) == (0, "")
    assert "4 finished." in said
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    children = client.search_runs([experiment.experiment_id], filter_string="tags.`harness.kind` = 'run'")
    assert {(run.info.status, run.data.tags["harness.status"]) for run in children} == {("FINISHED", "finished")}
    assert len(children) == 4


def test_missing_devices_have_a_reason(cluster: Any) -> None:
    executor = RayExecutor(RayOptions(cluster.address))
    try:
        assert executor.missing_reason("cpu") is None
        for device in ("cuda:1", "mps"):
            line = f"{device}: Ray chooses the GPU of a run; on Ray the device is called cuda"
            assert executor.missing_reason(device) == line
        assert executor.missing_reason("cuda") == "cuda: no node of the Ray cluster has a GPU"
    finally:
        executor.close()


def test_runs_that_fit_on_no_node_are_refused(cluster: Any) -> None:
    with pytest.raises(ClusterError, match=r"--threads: expected a node with 3 CPUs, .* whose largest has 1"):
        RayExecutor(RayOptions(cluster.address), threads=3).start(1)
