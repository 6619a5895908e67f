"""Sweeps on Ray whose driver, head or memory is lost. Each has a cluster of its own."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from ray_sweeps import events, finish, grid_file, other_out, results, start, wait_for

pytest.importorskip("ray", reason="ray is not installed: pip install 'argmax-harness[ray]'")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_driver_that_ends_leaves_no_process_and_the_sweep_continues(number: int, tmp_path: Path, out: Path) -> None:
    import psutil

    grid, reference = grid_file(tmp_path, 80), other_out(out, "reference")
    assert finish(start("run", "--grid", grid, "--out", reference))[0] == 0
    command = ("run", "--grid", grid, "--out", out, "--executor", "ray", "--checkpoint-every", "1epochs")
    process = start(*command)
    wait_for(lambda: sum(e["kind"] == "epoch" for e in events(out)) > 20, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    assert finish(process)[0] == (130 if number == signal.SIGINT else -9)
    assert not psutil.wait_procs(children, timeout=30)[1]
    code, said, err = finish(start(*command))
    assert code == 0, said + err
    assert results(out) == results(reference)


@pytest.mark.slow
def test_a_lost_cluster_head_is_reported_and_the_sweep_continues_without_it(tmp_path: Path, out: Path) -> None:
    from ray.cluster_utils import Cluster

    grid, reference = grid_file(tmp_path, 200), other_out(out, "reference")
    assert finish(start("run", "--grid", grid, "--out", reference))[0] == 0
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100_000_000})
    options = ("--executor", "ray", "--address", own.address, "--checkpoint-every", "1epochs")
    process = start("run", "--grid", grid, "--out", out, *options)
    wait_for(lambda: sum(e["kind"] == "epoch" for e in events(out)) > 20, process)
    own.head_node.kill_gcs_server()
    code, said, err = finish(process)
    own.shutdown()
    assert code == 130, said + err
    assert "stopped: the Ray cluster has not answered for 20 s; its head may be gone" in said
    code, said, err = finish(start("run", "--grid", grid, "--out", out))
    assert code == 0, said + err
    assert "of them started before" in said
    assert results(out) == results(reference)


@pytest.mark.slow
def test_a_node_short_of_memory_uses_no_more_retries_than_allowed(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # Ray finds every run too large
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    options = ("--executor", "ray", "--workers", 1, "--retries", 1, "--only", "seed=0")
    code, said, err = finish(start("run", "--grid", grid_file(tmp_path, 200), "--out", out, *options))
    assert code == 1, said + err
    ends = [event for event in events(out) if event["kind"] in ("failed", "interrupted")]
    assert Counter(event["kind"] for event in ends) == {"failed": 2, "interrupted": 2}
    assert all(event["error"].startswith("Ray stopped it, since its node was short of memory") for event in ends)
