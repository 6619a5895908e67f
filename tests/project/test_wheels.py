"""The two wheels: argmax-grad needs torch alone, and a class that is written against one works with the other."""

import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from paths import ROOT

GRAD = ROOT / "estimators"
PLUGIN = """
from estimators import Pathwise


class Sharp(Pathwise):
    "A softmax of twice the logits."

    name, relaxes = "sharp", True

    def __init__(self, *, tau: float = 1.0):
        super().__init__()
        self.tau = tau

    def sample(self, logits_BLK):
        return (2 * logits_BLK / self.tau).softmax(-1).unsqueeze(0)
"""
USE = """
import estimators, torch
from estimators import draw_codes, expect, sample
assert estimators.__file__.startswith({prefix!r}), estimators.__file__
logits = torch.zeros(8, 2, 3, requires_grad=True)
loss = sample(logits, "reinmax").square().sum() + expect(logits, lambda z: z[..., 0].sum(-1), "rloo").sum()
draw = draw_codes(logits, "carms")
(loss + draw.loss(draw.z[..., 0].sum(-1)).sum()).backward()
assert logits.grad.isfinite().all()
"""


def project(path: Path) -> dict[str, object]:
    return tomllib.loads((path / "pyproject.toml").read_text())["project"]


def test_both_wheels_have_the_same_version_and_need_the_same_torch() -> None:
    whole, part = project(ROOT), project(GRAD)
    for key in ("version", "requires-python", "license"):
        assert whole[key] == part[key]
    assert part["dependencies"] == [need for need in whole["dependencies"] if need.startswith("torch>")]
    packages = tomllib.loads((GRAD / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {path.parent for path in (ROOT / "estimators").rglob("*.py")}
    assert set(packages) == {".".join(path.relative_to(ROOT).parts) for path in found}


def distributions_of(name: str, found: set[str]) -> set[str]:
    """Return a distribution and all that it requires."""
    if name not in found:
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                distributions_of(need.name, found)
    return found


def only_torch(folder: Path) -> Path:
    """Fill a folder with links to torch and what torch requires."""
    folder.mkdir()
    for name in distributions_of("torch", set()):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


def environment(folder: Path, wheel: Path, packages: Path) -> Path:
    """Make an environment with the wheel, and the packages of a folder; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    said(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{packages}\n")
    return python


def copied(folder: Path) -> Path:
    """Copy what the wheels are made of, so that nothing is built in this folder."""
    for name in ("estimators", "harness", "reports"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def build(source: Path, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def ran(python: Path, *arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python there, with nothing of this environment."""
    return subprocess.run(
        [python, *map(str, arguments)], cwd=cwd, env={"PATH": "/usr/bin:/bin", "HOME": str(cwd)}, capture_output=True,
        text=True, check=False, timeout=300,
    )  # fmt: skip


def said(python: Path, *arguments: object, cwd: Path) -> str:
    done = ran(python, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_each_wheel_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    plugin, work = tmp_path / "sharp.py", tmp_path / "work"
    plugin.write_text(PLUGIN)
    work.mkdir()
    (tmp_path / "source").mkdir()
    source = copied(tmp_path / "source")

    torch_alone = only_torch(tmp_path / "torch")
    python = environment(
        tmp_path / "grad", build(source / GRAD.relative_to(ROOT), tmp_path / "wheel of grad"), torch_alone
    )
    said(python, "-c", USE.format(prefix=str(tmp_path / "grad")), cwd=work)
    assert "0 failed" in said(python, "-m", "estimators.conformance", plugin, cwd=work)
    for name in ("harness", "reports", "mlflow", "pandas", "numpy"):
        assert "ModuleNotFoundError" in ran(python, "-c", f"import {name}", cwd=work).stderr, name

    everything = Path(torch.__file__).parents[1]
    python = environment(tmp_path / "harness", build(source, tmp_path / "wheel of harness"), everything)
    said(python, "-c", USE.format(prefix=str(tmp_path / "harness")), cwd=work)
    grid = work / "grid.yaml"
    grid.write_text(
        "name: tiny\ndata: {train_size: 100}\ntraining: {epochs: 1}\nevaluation: {bound_samples: 0, n_images: 0}\n"
        "estimators: [sharp]\nseeds: [0]\n"
    )
    command = ("-m", "harness.cli", "run", "--grid", grid, "--plugin", plugin, "--workers", 1)
    assert "1 finished." in said(python, *command, cwd=work)
    assert (work / "results" / "tiny").is_dir()
