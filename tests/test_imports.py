"""The import direction of docs/architecture.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported(path: Path) -> set[str]:
    """Full names of everything a file imports anywhere in it, whether at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top_levels(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules("estimators"), ids=lambda p: p.name)
def test_estimators_need_torch_and_the_standard_library_only(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"torch", "estimators"}
    if path.name == "gumbel_entmax.py":
        allowed.add("entmax")  # the one library an estimator wraps, imported when it is used
    assert top_levels(path) <= allowed


def test_backbone_knows_no_estimator() -> None:
    assert "estimators" not in top_levels(ROOT / "harness" / "vae.py")


@pytest.mark.parametrize("path", modules("reports"), ids=lambda p: p.name)
def test_reports_know_nothing_of_the_harness(path: Path) -> None:
    assert not top_levels(path) & {"harness", "estimators", "torch"}


@pytest.mark.parametrize("path", modules("harness"), ids=lambda p: p.name)
def test_only_tracking_imports_mlflow(path: Path) -> None:
    uses_mlflow = "mlflow" in top_levels(path)
    assert not uses_mlflow or path.parent.name == "tracking"


@pytest.mark.parametrize(
    "path", [p for package in ("estimators", "harness", "reports") for p in modules(package)], ids=str
)
def test_nothing_imports_the_command_line(path: Path) -> None:
    found = imported(path)
    assert "harness.cli" not in found
    if path.name != "cli.py" and not path.name.startswith("command"):
        assert not any(name.startswith("harness.command") for name in found)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, harness.cli; print(*{'torch', 'mlflow', 'pandas', 'pydantic', 'rich'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["mlflow", "reports", "scipy", "pandas", "matplotlib"])
def test_workers_start_without(name: str) -> None:
    """MLflow never, nor reports, which are not sent to a cluster; the others would take a good part of the start."""
    names = "harness.ray_worker, harness.executors, harness.checkpoint, harness.train, harness.plugins"
    code = f"import sys, {names}; print({name!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
