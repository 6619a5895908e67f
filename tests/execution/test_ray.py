"""Runs on Ray: the numbers of the local executor, whatever dies meanwhile. Clusters of nodes on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command_line
import pytest
from executors import InThisProcess
from mlflow.tracking import MlflowClient

from estimators import REGISTRY
from harness.cli import main
from harness.config import RunConfig, TrainingConfig
from harness.events import EpochDone, Finished, Interrupted, Picture, Record, Started
from harness.execution.dispatch import Dispatch
from harness.execution.executor import Executor, Job
from harness.execution.local_executor import LocalExecutor
from harness.execution.ray_cluster import ClusterError, environment, token_hint
from harness.execution.ray_executor import RayExecutor, _Task
from harness.grid.load import load_grid
from harness.options import Policy, RayOptions, SavingEvery
from harness.storage.sweep_state import is_measured

pytest.importorskip("ray", reason="ray is not installed: pip install 'argmax-harness[ray]'")

Make = Callable[..., RunConfig]
EVERY_EPOCH = SavingEvery(epochs=1)

PLUGIN = """
import os
from pathlib import Path
from estimators import Pathwise


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
        return (3 * logits_BLK).softmax(-1).unsqueeze(0)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "sharp.py"
    path.write_text(textwrap.dedent(PLUGIN))
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


def unmeasured(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not is_measured(name)}


def told(records: list[Record], run: RunConfig) -> list[object]:
    """What of a run has to be the same, epochs that were repeated once."""
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
    """With a plugin that is carried, and a process that is killed in the second epoch and goes on from the first."""
    monkeypatch.chdir(tmp_path)  # Ray looks for modules where the driver was started
    dying = tiny_run("rloo", training=TrainingConfig(epochs=3, batch_size=50))
    params = {"marker": str(tmp_path / "has-died")}
    dying = dying.model_copy(
        update={"estimator": dying.estimator.model_copy(update={"name": "sharp", "params": params})}
    )
    runs = [dying, tiny_run(), tiny_run("rloo", seed=1), tiny_run("rebar")]
    executor = RayExecutor(RayOptions(cluster.address), plugins=[plugin], saving=EVERY_EPOCH)
    records = compute(executor, runs)
    assert (tmp_path / "has-died").exists(), [str(r.event)[-700:] for r in records if r.run_key == dying.key]
    ends = {record.run_key: record.event for record in records if isinstance(record.event, Finished)}
    assert ends.keys() == {run.key for run in runs}
    (retry,) = [record for record in records if isinstance(record.event, Interrupted)]
    assert (retry.run_key, retry.event.retrying) == (dying.key, True)
    assert retry.event.error == "worker process died (killed, or out of memory?); retry 1 of 2 in 0.1 s"
    epochs = [record.event.epoch for record in records if record.run_key == dying.key and record.event.kind == "epoch"]
    assert epochs == [1, 2, 3]

    here = compute(InThisProcess(workers=1, plugins=[plugin], saving=EVERY_EPOCH), runs)
    for run in runs:
        assert told(records, run) == told(here, run)
        assert [r.event.kind for r in here if r.run_key == run.key] == [
            r.event.kind for r in records if r.run_key == run.key
        ] or run is dying
    starts = [[r.event.provenance for r in found if isinstance(r.event, Started)] for found in (records, here)]
    assert all(provenance["threads"] == 1 for provenance in starts[0])
    assert {str(p["git_commit"]) for p in starts[0]} == {str(p["git_commit"]) for p in starts[1]}


@pytest.mark.slow
def test_asked_to_stop_runs_save_and_those_that_wait_never_begin(cluster: Any, tiny_run: Make) -> None:
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


# --- the command line -----------------------------------------------------------------------------------------------

GRID = """
name: tiny
question: Does it run?
data: {train_size: 1000}
model: {n_latents: 3, n_categories: 4, hidden: [64]}
training: {epochs: %s, batch_size: 50}
evaluation: {bound_samples: 2, n_images: 2}
estimators: [straight_through, gumbel_softmax]
seeds: [0, 1]
"""


def grid_file(folder: Path, epochs: int) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(GRID % epochs)
    return path


def harness(*arguments: object) -> "subprocess.Popen[str]":
    """Start the command in a folder that has nothing to do with the checkout: Ray looks there for modules."""
    command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe, start_new_session=True, cwd="/")


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def events(out: Path) -> list[dict[str, Any]]:
    path = out / "tiny" / "journal.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line[9:]) for line in whole.splitlines()]


def results(out: Path) -> dict[str, dict[str, float]]:
    """The final numbers of every run, but the measured ones."""
    return {event["run_key"]: unmeasured(event["metrics"]) for event in events(out) if event["kind"] == "finished"}


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("timed out")


def other_out(out: Path, name: str) -> Path:
    folder = out.parent / name
    folder.mkdir()
    (folder / "mlflow.db").write_bytes((out / "mlflow.db").read_bytes())
    return folder


@pytest.mark.slow
def test_the_runs_of_lost_nodes_go_on_elsewhere_with_the_same_bits(cluster: Any, tmp_path: Path, out: Path) -> None:
    n_losses, epochs = 2, 100
    grid = grid_file(tmp_path, epochs)
    here = compute(LocalExecutor(workers=2), list(load_grid(grid, REGISTRY).runs))
    options = ("--executor", "ray", "--address", cluster.address, "--checkpoint-every", "1epochs", "--retries", 5)
    process = harness("run", "--grid", grid, "--out", out, *options)
    for loss in range(n_losses):
        seen = len(events(out))
        wait_for(lambda seen=seen: sum(e["kind"] == "epoch" for e in events(out)[seen:]) > epochs // 3, process)
        remove_node(cluster)
        add_node(cluster)
        wait_for(lambda loss=loss: sum(bool(e.get("retrying")) for e in events(out)) > loss, process)
    code, said, err = finished(process)
    assert code == 0, said + err
    assert "differed when recomputed" not in said
    retries = [event["error"] for event in events(out) if event.get("retrying")]
    assert n_losses <= len(retries) <= 2 * n_losses  # a node may hold one run that ends and one that begins
    assert all(line.startswith("its node died") for line in retries)
    assert results(out) == {r.run_key: unmeasured(r.event.metrics) for r in here if isinstance(r.event, Finished)}
    seen_epochs = Counter((event["run_key"], event["epoch"]) for event in events(out) if event["kind"] == "epoch")
    assert set(seen_epochs.values()) == {1}
    assert len(seen_epochs) == 4 * epochs
    code, said, err = finished(harness("run", "--grid", grid, "--out", out, *options))
    assert code == 0, err
    assert "0 runs to do, 4 already done" in said


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["there", "of its own"])
def test_a_grid_on_a_cluster_is_stored(own: bool, request: pytest.FixtureRequest, tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path, epochs=2)
    given = ("run", "--grid", grid, "--out", out, "--executor", "ray")
    if own:
        code, said, err = finished(harness(*given, "--workers", 2))
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_driver_that_ends_leaves_no_process_and_the_sweep_goes_on(number: int, tmp_path: Path, out: Path) -> None:
    import psutil

    grid, reference = grid_file(tmp_path, 80), other_out(out, "reference")
    assert finished(harness("run", "--grid", grid, "--out", reference))[0] == 0
    command = ("run", "--grid", grid, "--out", out, "--executor", "ray", "--checkpoint-every", "1epochs")
    process = harness(*command)
    wait_for(lambda: sum(e["kind"] == "epoch" for e in events(out)) > 20, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    assert finished(process)[0] == (130 if number == signal.SIGINT else -9)
    assert not psutil.wait_procs(children, timeout=30)[1]
    code, said, err = finished(harness(*command))
    assert code == 0, said + err
    assert results(out) == results(reference)


@pytest.mark.slow
def test_a_cluster_whose_head_is_gone_is_said_and_the_sweep_goes_on_without_it(tmp_path: Path, out: Path) -> None:
    from ray.cluster_utils import Cluster

    grid, reference = grid_file(tmp_path, 200), other_out(out, "reference")
    assert finished(harness("run", "--grid", grid, "--out", reference))[0] == 0
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100_000_000})
    options = ("--executor", "ray", "--address", own.address, "--checkpoint-every", "1epochs")
    process = harness("run", "--grid", grid, "--out", out, *options)
    wait_for(lambda: sum(e["kind"] == "epoch" for e in events(out)) > 20, process)
    own.head_node.kill_gcs_server()
    code, said, err = finished(process)
    own.shutdown()
    assert code == 130, said + err
    assert "stopped: the Ray cluster has not answered for 20 s; its head may be gone" in said
    code, said, err = finished(harness("run", "--grid", grid, "--out", out))
    assert code == 0, said + err
    assert "of them started before" in said
    assert results(out) == results(reference)


@pytest.mark.slow
def test_a_node_short_of_memory_costs_no_more_tries_than_said(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # Ray finds every run too large
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    options = ("--executor", "ray", "--workers", 1, "--retries", 1, "--only", "seed=0")
    code, said, err = finished(harness("run", "--grid", grid_file(tmp_path, 200), "--out", out, *options))
    assert code == 1, said + err
    ends = [event for event in events(out) if event["kind"] in ("failed", "interrupted")]
    assert Counter(event["kind"] for event in ends) == {"failed": 2, "interrupted": 2}
    assert all(event["error"].startswith("Ray stopped it, since its node was short of memory") for event in ends)


# --- mistakes -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("options", "on_cpu", "on_gpu", "free"),
    [
        (RayOptions(), 0, 0, (10, 3)),  # 8 CPUs and 2 that wait; a GPU and 2 that wait
        (RayOptions(), 0, 3, (7, 0)),
        (RayOptions(), 9, 0, (1, 1)),
        (RayOptions(gpus_per_run=0.3), 0, 2, (8, 3)),  # three a GPU
        (RayOptions(workers=2), 1, 0, (1, 1)),
    ],
)
def test_runs_that_wait_for_a_gpu_leave_the_cpus_to_others(
    options: RayOptions, on_cpu: int, on_gpu: int, free: tuple[int, int]
) -> None:
    executor = RayExecutor(options)
    nodes = [{"NodeID": str(n), "Alive": True, "Resources": {"CPU": 4.0, "GPU": float(n)}} for n in range(2)]
    executor._cluster.ray = SimpleNamespace(nodes=lambda: nodes)
    devices = ["cpu"] * on_cpu + ["cuda"] * on_gpu
    executor._tasks = {str(n): _Task(None, device) for n, device in enumerate(devices)}
    assert (executor.n_free("cpu"), executor.n_free("cuda")) == free


def test_variables_that_reach_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SETTING", "7")
    carried = environment(2, ["MY_SETTING"])
    assert (carried["MY_SETTING"], carried["OMP_NUM_THREADS"], carried["MKL_NUM_THREADS"]) == ("7", "2", "2")
    assert all(name.startswith(("HARNESS_", "OMP", "MKL", "MY_SETTING")) for name in carried)
    monkeypatch.setenv("HARNESS_OTHER", "8")
    monkeypatch.setenv("HARNESS_DATA_DIR", "/here")
    assert environment(1, [])["HARNESS_OTHER"] == "8"
    assert not {"HARNESS_DATA_DIR", "HARNESS_OUT"} & environment(1, []).keys()  # each node's own
    assert environment(1, ["HARNESS_DATA_DIR"])["HARNESS_DATA_DIR"] == "/here"
    with pytest.raises(ClusterError, match="--env: expected the name of a variable that is set, got 'NOBODYS'"):
        environment(1, ["NOBODYS"])


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--address", "10.0.0.1:6379"), "--address: expected --executor ray with it, got --executor local"),
        (("--gpus-per-run", "0.5"), "--gpus-per-run: expected --executor ray"),
        (("--executor", "ray", "--memory-limit", "1GB"), "--memory-limit: expected none with --executor ray"),
        (("--executor", "ray", "--address", "127.0.0.1:1"), "--address 127.0.0.1:1: expected the head of a Ray"),
        (("--executor", "ray", "--address", "ray://head:10001"), "--address: expected HOST:PORT"),
        (("--executor", "ray", "--env", "NOBODYS"), "--env: expected the name of a variable that is set"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_line(
    options: tuple[str, ...], pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "--grid", str(grid_file(tmp_path, 1)), "--out", str(tmp_path / "out"), *options])
    err = capsys.readouterr().err
    assert (end.value.code, len(err.strip().splitlines())) == (2, 1), err
    assert re.search(pattern, err)


def test_a_dry_run_needs_no_cluster_and_says_what_it_looked_at(tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path, epochs=2)
    text = grid.read_text().replace("seeds:", "devices: [cpu, mps]\nseeds:")
    grid.write_text(text)
    done = command_line.harness("run", "--grid", grid, "--out", out, "--executor", "ray", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert "note: times are for this machine; the devices of the cluster are only known when it runs" in said
    assert "will be skipped" not in said


def test_the_error_of_a_cluster_that_asks_for_a_token_says_how_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.execution.ray_cluster.TOKEN", tmp_path / "auth_token")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert token_hint() == ""
    (tmp_path / "auth_token").write_text("0" * 64)
    assert token_hint().endswith("export RAY_AUTH_MODE=token.")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert token_hint() == ""


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"expected ray to be installed.*pip install 'argmax-harness\[ray\]'"):
        RayExecutor(RayOptions()).start(1)
