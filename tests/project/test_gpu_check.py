"""`make gpu-check` works on a machine that has torch and little else; here the CPU stands in for the GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_scripts import BENCHMARKS, load_benchmark
from paths import ROOT

ABSENT = ("mlflow", "ray", "torchvision", "entmax", "psutil", "pyarrow", "yaml")
SITE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
# an editable install is a finder of its own
sys.meta_path[:] = [Absent(), *(finder for finder in sys.meta_path if "editable" not in repr(finder).lower())]
"""


def gpu_check(device: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(SITE)
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = ["make", "gpu-check", f"DEVICE={device}", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=480)


def test_another_device_is_refused_in_one_line(tmp_path: Path) -> None:
    assert gpu_check("gpu", tmp_path).stderr.startswith("gpu-check: expected the device cuda")


def test_a_machine_without_a_gpu_is_told_so_in_one_line(tmp_path: Path) -> None:
    done = gpu_check("cuda:99", tmp_path)
    assert done.returncode
    assert done.stderr.startswith("gpu-check: cuda:99: ")


def test_a_python_without_torch_is_named_in_one_line() -> None:
    command = ["make", "gpu-check", f"PYTHON={sys.executable} -I -S"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    first = done.stderr.splitlines()[0]
    assert first == f"gpu-check: expected a Python with torch, got {sys.executable}. Set PYTHON=.venv/bin/python."
    assert "Traceback" not in done.stderr


def test_each_part_is_announced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu = load_benchmark("gpu")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu"])
    monkeypatch.setattr(gpu, "run", lambda *_, **__: (0, ""))
    monkeypatch.setattr(gpu.record, "write", lambda *_: None)
    with pytest.raises(SystemExit):
        gpu.main()
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1].rstrip(",") for line in said] == ["tests", *gpu.PARTS]


@pytest.mark.parametrize(
    ("output", "kept"), [("", {}), ('{"20 × 10": 1}\n{"8 × 4": {"ms', {"20 × 10": 1}), ("Killed\n", {})]
)
def test_a_part_that_is_killed_keeps_what_it_has(
    output: str, kept: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu = load_benchmark("gpu")
    monkeypatch.setattr(gpu, "run", lambda *_: (137, output))
    monkeypatch.setitem(gpu.PARTS, "steps", (None, lambda _: ["shown"], 1))
    code, lines, found = gpu.part("steps", "cpu")
    assert (code, found) == (137, kept)
    assert lines[-2].startswith("The part steps stopped with exit code 137: ")


@pytest.mark.slow
def test_every_part_runs_without_mlflow_on_the_cpu(tmp_path: Path) -> None:
    done = gpu_check("cpu", tmp_path)
    page = (ROOT / "benchmarks/results/stand-in.md").read_text()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "| compiled |" in page
    assert "| `rloo` |" in page
    assert "No figure of `gumbel_entmax`" in page
    assert "stopped with" not in page
