"""The worked example of a task on two Ray nodes: its plug-in and a module of it travel, and the bits are the same."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import harness
from empty_store import add_empty_store
from gate_sweeps import N_RUNS, stored_content, write_example, write_grid
from killed_sweeps import results

from harness.execution.executor import Job
from harness.execution.ray_executor import RayExecutor

pytest.importorskip("ray", reason="ray is not installed: pip install 'argmax-harness[ray]'")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs for tasks, and two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield found
    found.shutdown()


MEETING = """
import os
import time
from pathlib import Path

if os.getpid() != {driver}:  # a worker waits until one of the other node has come here too
    import ray

    folder = Path({folder!r})
    (folder / ray.get_runtime_context().get_node_id()).touch()
    end = time.monotonic() + 300
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
"""


@pytest.mark.slow  # a cluster and its two workers: a minute, and several on a busy machine
def test_two_nodes_have_the_bits_of_this_machine(
    cluster: Any, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, reference, nodes = write_grid(tmp_path / "gate.yaml", epochs=2), tmp_path / "reference", tmp_path / "nodes"
    add_empty_store(reference)
    nodes.mkdir()
    plugin = write_example(tmp_path / "plugin")
    with (plugin.parent / "gate_sizes.py").open("a") as file:
        file.write(MEETING.format(driver=os.getpid(), folder=str(nodes)))
    given = ("run", "--grid", grid, "--plugin", plugin, "--checkpoint-every", "1epochs", "--save-models")
    done = harness(*given, "--out", reference)
    assert done.returncode == 0, done.stdout + done.stderr

    original = RayExecutor.submit

    def submit(executor: RayExecutor, job: Job) -> None:
        shutil.rmtree(plugin.parent, ignore_errors=True)  # another machine does not have it
        original(executor, job)

    monkeypatch.setattr(RayExecutor, "submit", submit)
    monkeypatch.chdir(tmp_path)  # Ray looks for modules where the driver was started
    done = harness(*given, "--out", out, "--executor", "ray", "--address", cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{N_RUNS} finished." in done.stdout
    assert len(list(nodes.iterdir())) == 2
    assert results(out, "gate") == results(reference, "gate")
    assert stored_content(out, "gate") == stored_content(reference, "gate")
