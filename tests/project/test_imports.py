"""Which folder may import which. `docs/architecture.md` says what each of them holds."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT

PACKAGES = ("estimators", "harness", "reports")

BOTTOM = "atomic_file bounded_names config devices environment errors events measures options process_state provenance"
BOTTOM += " schedules terminal units"
REPORTS = (
    "reports reports.compare_sweeps reports.report reports.page reports.store reports.process_settings reports.contract"
)
MAY_IMPORT = {
    "cli": f"commands {BOTTOM} reports.contract",
    "commands": f"sweep tracking status storage execution gradients grid training plugins datasets {BOTTOM} {REPORTS}",
    "sweep": f"tracking status storage execution grid plugins {BOTTOM} reports.contract",
    "tracking": f"status storage datasets {BOTTOM} reports.contract",
    "status": f"storage execution train training tasks datasets estimators {BOTTOM} reports.contract",
    "storage": f"grid search plugins training datasets {BOTTOM} reports.contract",
    "execution": f"train gradients training plugins datasets estimators {BOTTOM}",
    "train": f"gradients training tasks estimators {BOTTOM}",
    "diagnose": f"gradients estimators {BOTTOM} reports.page",
    "models": f"training tasks datasets estimators {BOTTOM}",
    "gradients": f"grid training plugins tasks estimators {BOTTOM} reports.contract",
    "grid": f"search training plugins tasks datasets estimators {BOTTOM} reports.contract",
    "search": "config reports.statistics",
    "training": f"plugins tasks datasets estimators {BOTTOM}",
    "plugins": f"tasks datasets estimators {BOTTOM}",
    "tasks": f"datasets estimators {BOTTOM}",
    "config": "bounded_names datasets estimators measures schedules reports.contract",
    "datasets": "atomic_file environment errors",
    "environment": "errors",
    "process_state": "devices",
    "units": "options",
    "reports": "reports.page reports.store",
    "reports.compare_sweeps": "reports.report reports.sections reports.page reports.comparison"
    " reports.store reports.process_settings reports.contract",
    "reports.report": "reports.sections reports.page reports.store reports.process_settings reports.contract",
    "reports.sections": "reports.page reports.comparison reports.statistics reports.store reports.contract",
    "reports.page": "reports.comparison reports.store reports.process_settings reports.contract",
    "reports.comparison": "reports.statistics reports.store reports.contract",
    "reports.store": "reports.process_settings reports.contract",
}
"""Folder, or file of the top level -> what it may import of this project, in the order of the data flow: each imports
only what stands further down. What is not here imports none of it. Names without a package are of `harness`."""


def imported(path: Path) -> set[str]:
    """Return the full names of all that a file imports, at its top, inside a function or for type checking."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top_levels(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def graph() -> dict[str, set[str]]:
    """Return module -> modules of this project that it imports anywhere."""
    paths = {module_of(path): path for package in PACKAGES for path in files(package)}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = imported(path)
        inner = {name for name in names if name in paths}
        outer = {name.rpartition(".")[0] for name in names - inner if name.rpartition(".")[0] in paths}
        parents = {name for name in inner if any(other.startswith(f"{name}.") for other in inner)}
        found[module] = (inner - parents | outer) - {module}
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "harness" and len(parts) > 1 else ".".join(parts[: 1 + (parts[0] == "reports")])


def test_folders_import_exactly_what_the_table_allows() -> None:
    found: dict[str, set[str]] = {}
    for module, imports in graph().items():
        found.setdefault(room(module), set()).update({room(name) for name in imports} - {room(module), "harness"})
    allowed = {name: set(others.split()) for name, others in MAY_IMPORT.items()}
    assert {name: extra for name, others in found.items() if (extra := others - allowed.get(name, set()))} == {}
    unused = {name: others - found[name] - set(BOTTOM.split()) for name, others in allowed.items()}
    assert {name: others for name, others in unused.items() if others} == {}


def test_the_table_has_one_direction() -> None:
    order = list(MAY_IMPORT)
    for name, others in MAY_IMPORT.items():
        for other in set(others.split()) & set(order):
            assert order.index(name) < order.index(other), f"{name} imports {other}, which stands above it"


def test_there_is_no_import_cycle() -> None:
    """Not even one that runs through imports inside functions or for type checking."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(graph()[module]):
                visit(name, (*path, module))
            done.add(module)

    for module in graph():
        visit(module, ())


def test_estimators_need_torch_and_the_standard_library_only() -> None:
    allowed = set(sys.stdlib_module_names) | {"torch", "estimators"}
    extra = {path.name: found for path in files("estimators") if (found := top_levels(path) - allowed)}
    assert extra == {}  # entmax, the one library that an estimator wraps, is found at run time


def test_backbone_knows_no_estimator() -> None:
    assert "estimators" not in top_levels(ROOT / "harness" / "tasks" / "vae.py")


def test_reports_know_nothing_of_the_harness() -> None:
    assert [path for path in files("reports") if top_levels(path) & {"harness", "estimators", "torch"}] == []


def test_only_tracking_imports_mlflow() -> None:
    users = {path.parent for path in files("harness") if "mlflow" in top_levels(path)}
    assert users == {ROOT / "harness" / "tracking"}


LEAN = {
    "help": [("harness.cli", "torch mlflow pandas pydantic rich numpy scipy")],
    "a grid, the terminal, the estimators and a sweep, one after the other": [
        ("harness.config, harness.schedules, harness.grid.load, harness.plugins.registry", "torch"),
        ("harness.status, harness.status.progress", "torch numpy scipy pandas"),
        ("estimators", "entmax"),
        ("harness.execution.ray_executor, harness.sweep.run, harness.commands.run", "ray"),
    ],
    "a worker": [  # reports are not sent to a cluster; the others would take a good part of the start
        (
            "harness.execution.ray_worker, harness.execution.worker, harness.train, harness.plugins.registry",
            "mlflow reports scipy pandas matplotlib",
        )
    ],
    "a report": [("reports.store.load", "mlflow harness")],
}
"""For each kind of process: what it imports, and what must not be imported with it."""


@pytest.mark.parametrize("steps", LEAN.values(), ids=LEAN)
def test_slow_imports_happen_only_where_they_are_needed(steps: list[tuple[str, str]]) -> None:
    checks = (
        f"import {names}; assert not {set(heavy.split())} & sys.modules.keys(), {names!r}" for names, heavy in steps
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(["import sys", *checks])], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
