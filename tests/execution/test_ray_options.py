"""The options of a sweep on Ray, and mistakes in them. No test starts a cluster."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import command_line
import pytest
from ray_sweeps import grid_file

from harness.cli import main
from harness.execution.ray_cluster import ClusterError, environment, token_hint
from harness.execution.ray_executor import RayExecutor, _Task
from harness.options import RayOptions

pytest.importorskip("ray", reason="ray is not installed: pip install 'argmax-harness[ray]'")


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
def test_runs_that_wait_for_a_gpu_do_not_block_cpu_runs(
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


def test_a_dry_run_needs_no_cluster_and_says_which_machine_it_timed(tmp_path: Path, out: Path) -> None:
    grid = grid_file(tmp_path, epochs=2)
    text = grid.read_text().replace("seeds:", "devices: [cpu, mps]\nseeds:")
    grid.write_text(text)
    done = command_line.harness("run", "--grid", grid, "--out", out, "--executor", "ray", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert "note: times are for this machine; the devices of the cluster are only known when it runs" in said
    assert "will be skipped" not in said


def test_the_error_of_a_cluster_that_needs_a_token_says_how_to_set_it(
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
