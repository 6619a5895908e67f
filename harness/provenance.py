"""The provenance of a number: code, packages, hardware, threads."""

import hashlib
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
"""The folder of `harness`."""
PACKAGES = ("argmax-harness", "torch", "torchvision", "mlflow", "numpy", "pandas", "seaborn", "scipy", "entmax")
OWN_FILES = {"harness/provenance.py", "pyproject.toml"}
GIT_TIMEOUT_S = 10.0
GIT_SETTINGS = ("GIT_CONFIG_", "GIT_EXEC_PATH")
"""The variables that git still gets: they say where the user's settings are, not which repository to use."""


def _is_git_setting(name: str) -> bool:
    settings = name.startswith(GIT_SETTINGS) and name != "GIT_CONFIG_PARAMETERS"  # git -c exports it to a hook
    return settings or not name.startswith("GIT_")


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Return code version, package versions, hardware and thread count of this process, as plain JSON values."""
    import torch

    return {
        **git_state(PACKAGE),
        "source_sha256": source_sha256(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "hostname": platform.node(),
    }


def code_version(facts: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return what the bits of a run depend on besides its configuration and machine: the source code and torch."""
    return facts.get("source_sha256"), facts.get("packages", {}).get("torch")


@lru_cache(maxsize=1)
def source_sha256() -> str:
    """Return a hash of the source code that computes runs: `harness` and `estimators`.

    It does not depend on where they are: side by side in a checkout, or in two folders, as Ray puts them.

    Raises ModuleNotFoundError if one of them cannot be found.
    """
    sources: dict[str, Path] = {}
    for package in ("harness", "estimators"):
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{package}: expected a package of this project that can be imported")
        folder = Path(spec.origin).parent
        sources |= {f"{package}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*.py")}
    digest = hashlib.sha256()
    for name, path in sorted(sources.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def git_state(folder: Path) -> dict[str, Any]:
    """Return commit and dirty flag of this project's checkout, which has `folder` as its `harness`; else None for both.

    A wheel or a copy inside another repository, and an unpacked archive, have no commit.
    """
    folder = folder.resolve()
    commit = _git(folder, "rev-parse", "--verify", "HEAD") if _is_own_checkout(folder) else None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"git_commit": commit, "git_dirty": None if changes is None else bool(changes)}


def _is_own_checkout(folder: Path) -> bool:
    """Return whether git tracks this file, and this project's pyproject.toml at the top of the working tree."""
    try:
        project = tomllib.loads((folder.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    tracked = _git(folder, "ls-files", "--error-unmatch", "--full-name", "--", "provenance.py", "../pyproject.toml")
    return project == PACKAGES[0] and tracked is not None and set(tracked.split()) == OWN_FILES


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of git, or None. It does not get variables that a hook exports, and never prompts."""
    kept = {name: value for name, value in os.environ.items() if _is_git_setting(name)}
    environment = kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", "--no-pager", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_TIMEOUT_S, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def package_version(name: str) -> str | None:
    """Return the installed version, or None if the package is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the model name of the processor if the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    return named if named is not None else platform.processor() or platform.machine()
