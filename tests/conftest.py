"""Fixtures that several test files share."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from empty_store import add_empty_store
from executors import InThisProcess
from undrawn import figures_undrawn

import harness.sweep.run
from estimators import REGISTRY
from harness.config import DataConfig, EstimatorConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.schedules import Constant, NoSchedule


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for two workers, of which each begins with one half: long tests first, and short ones last.

    The thousands of short tests of estimators are at the end of both halves, so that both workers end together.
    """
    folders: dict[str, list[pytest.Item]] = {"short": [], "reports and sweeps": [], "others": []}
    for item in items:
        parts = item.path.parts
        is_long = "reports" in parts or "sweep" in parts
        folders["short" if "estimators" in parts else "reports and sweeps" if is_long else "others"].append(item)
    short, long, others = folders.values()
    n_first = max(0, len(items) // 2 - len(others))
    items[:] = [*others, *short[:n_first], *long, *short[n_first:]]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _commands_can_be_interrupted() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and every command that a test starts would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep starts no workers, which take 3 s of a core each, unless a test runs it as a process."""
    monkeypatch.setattr(harness.sweep.run, "LocalExecutor", InThisProcess)


@pytest.fixture(autouse=True)
def _own_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the store or the output folder of the person who runs it. Most tests need no folder of their own."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else Path("/dev/null")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HARNESS_OUT", str(folder / "results"))


@pytest.fixture
def undrawn() -> Iterator[None]:
    """The figures of a report are not drawn."""
    with figures_undrawn():
        yield


def _tiny_run(estimator: str = "gumbel_softmax", **changes: Any) -> RunConfig:
    params = changes.pop("params", REGISTRY[estimator].examples if estimator in REGISTRY else {})
    untempered = estimator in REGISTRY and not REGISTRY[estimator].uses_tau
    sections: dict[str, Any] = {
        "data": DataConfig(train_size=200),
        "model": ModelConfig(n_latents=3, n_categories=4, hidden=(16,)),
        "training": TrainingConfig(epochs=2, batch_size=50),
        "evaluation": EvaluationConfig(bound_samples=2, n_images=2),
        "schedule": NoSchedule() if untempered else Constant(tau=1.0),
    }
    return RunConfig(estimator=EstimatorConfig(name=estimator, params=params), **(sections | changes))


@pytest.fixture(scope="session")
def tiny_run() -> Callable[..., RunConfig]:
    """A function that makes a run of a fraction of a second; keyword arguments replace whole sections."""
    return _tiny_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with an empty MLflow store in it."""
    folder = tmp_path / "results"
    add_empty_store(folder)
    return folder
