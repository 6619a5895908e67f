"""`make gpu-check` works on a machine that has torch and little else; here the CPU stands in for the GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

ABSENT = ("mlflow", "ray", "torchvision", "entmax", "psutil", "pyarrow", "yaml")
SITE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def gpu_check(device: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(SITE)
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = ["make", "gpu-check", f"DEVICE={device}", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=480)


def test_a_machine_without_a_gpu_is_told_so_in_one_line(tmp_path: Path) -> None:
    done = gpu_check("cuda:99", tmp_path)
    assert done.returncode
    assert done.stderr.startswith("gpu-check: cuda:99: ")


@pytest.mark.slow
def test_every_part_runs_without_mlflow_on_the_cpu(tmp_path: Path) -> None:
    done = gpu_check("cpu", tmp_path)
    page = (ROOT / "benchmarks/results/stand-in.md").read_text()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "| compiled |" in page
    assert "| `rloo` |" in page
    assert "No figure of `gumbel_entmax`" in page
    assert "stopped with" not in page
