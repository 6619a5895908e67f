"""Global state that a plugin changes is restored, the plugin is named, and the numbers of other runs stay the same."""

import gc
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from estimators import Pathwise
from harness.config import DiagnosticsConfig, RunConfig
from harness.diagnose import diagnose
from harness.events import Checkpoint, EpochDone, Finished, Interrupted, Note, Started
from harness.execution.executor import Job
from harness.execution.worker import train_to_records
from harness.plugins import quick_check
from harness.plugins.registry import import_notes, load_registry
from harness.process_state import preserved, python_settings, restore, snapshot
from harness.training.run_controls import RunControls
from reports.contract import mlflow_environment

Make = Callable[..., RunConfig]


def enter_inference_mode() -> None:
    held.append(torch.inference_mode())
    held[-1].__enter__()


def enter_autocast() -> None:
    held.append(torch.autocast("cpu"))
    held[-1].__enter__()


def doubled(module, inputs, output):
    return 2 * output if isinstance(output, torch.Tensor) else None


held: list[object] = []
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "dtype": (lambda: torch.set_default_dtype(torch.float64), "the default dtype (float32 to float64)"),
    "tensor type": (
        lambda: torch.set_default_tensor_type(torch.DoubleTensor),
        "the default dtype (float32 to float64)",
    ),
    "device": (lambda: torch.set_default_device("meta"), "the default device (None to meta)"),
    "threads": (lambda: torch.set_num_threads(3), "the number of threads (1 to 3)"),
    "deterministic": (lambda: torch.use_deterministic_algorithms(True), "the use of deterministic algorithms"),
    "warn only": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        "the use of deterministic algorithms",
    ),
    "grad": (lambda: torch.set_grad_enabled(False), "the grad mode (True to False)"),
    "inference": (enter_inference_mode, "the inference mode (False to True)"),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), "the anomaly mode"),
    "matmul": (lambda: torch.set_float32_matmul_precision("medium"), "the precision of float32 products"),
    "tf32": (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "the precision of float32 products"),
    "cudnn tf32": (lambda: setattr(torch.backends.cudnn, "allow_tf32", False), "the precision of float32 products"),
    "benchmark": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "the switches of cudnn"),
    "mkldnn": (lambda: torch.backends.mkldnn.set_flags(False), "the use of mkldnn (True to False)"),
    "denormals": (lambda: torch.set_flush_denormal(True), "the flushing of denormals"),
    "autocast": (enter_autocast, "the state of autocast"),
    "hooks": (lambda: register_module_forward_hook(doubled), "the hooks of all modules"),
    "print": (lambda: torch.set_printoptions(precision=2), "the print options (precision)"),
    "warnings": (lambda: warnings.simplefilter("error"), "which warnings are errors"),
    "environment": (lambda: os.environ.update(MLFLOW_TRACKING_URI="x"), "the environment variables (MLFLOW_TRACKING_U"),
    "reductions": (
        lambda: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
        "the reductions of half-precision products",
    ),
    "attention": (lambda: torch.backends.cuda.enable_flash_sdp(False), "the kernels of attention"),
    "nnpack": (lambda: torch.backends.nnpack.set_flags(False), "the use of nnpack (True to False)"),
    "backward threads": (
        lambda: torch.autograd.set_multithreading_enabled(False),
        "the threads of the backward pass (True to False)",
    ),
    "numpy": (lambda: np.seterr(all="raise"), "numpy's treatment of errors (divide, invalid, over, under)"),
    "umask": (lambda: os.umask(0o077), "the umask"),
    "garbage": (gc.disable, "the collection of garbage (True to False)"),
    "logging": (lambda: logging.disable(logging.ERROR), "the level up to which logging is off (0 to 40)"),
    "folder": (lambda: os.chdir("/"), "the current folder"),
    "signals": (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), "the handlers of signals"),
}


class Changes(Pathwise):
    """A softmax that changes something global with each call."""

    name, relaxes = "changes", True
    change: Callable[[], object] = staticmethod(lambda: None)

    def sample(self, logits_BLK):
        z_SBLK = logits_BLK.softmax(-1).unsqueeze(0)
        type(self).change()
        return z_SBLK


class ChangesWhereBuilt(Changes):
    name = "changes_where_built"

    def __init__(self) -> None:
        super().__init__()
        type(self).change()

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


REGISTRY = {**load_registry(), "changes": Changes, "changes_where_built": ChangesWhereBuilt}


def named(make: Make, name: str, **more: object) -> RunConfig:
    run = make("reinforce", **more)
    return run.model_copy(update={"estimator": run.estimator.model_copy(update={"name": name})})


def events(run: RunConfig, checkpoint: bytes | None = None, pace: RunControls | None = None) -> list[object]:
    return [record.event for record in train_to_records(Job(run, checkpoint), REGISTRY, pace)]


def numbers(found: list[object]) -> list[dict[str, float]]:
    every = [event.metrics for event in found if isinstance(event, EpochDone | Finished)]
    return [
        {k: v for k, v in m.items() if not k.startswith(("time/", "memory/")) and "seconds" not in k} for m in every
    ]


def notes(found: list[object]) -> list[str]:
    return [event.text for event in found if isinstance(event, Note)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", CHANGES)
def test_changed_state_is_named_and_restored(what):
    change, expected = CHANGES[what]
    before = snapshot()
    with preserved() as changed:
        change()
    assert changed[0].startswith(expected)
    assert len(changed) == 1
    assert snapshot() == before
    assert restore(before) == []


def test_state_is_restored_after_a_failure_too():
    before = snapshot()
    changed = []

    def fails() -> None:
        nonlocal changed
        with preserved() as changed:
            torch.set_default_dtype(torch.float64)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert changed == ["the default dtype (float32 to float64)"]
    assert snapshot() == before


def test_new_precision_switches_are_restored_and_old_ones_work_again():
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9")
    before = snapshot()
    with preserved() as changed:
        torch.backends.fp32_precision = "tf32"
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    assert changed == ["the precision of float32 products"]
    assert snapshot() == before
    assert torch.get_float32_matmul_precision() == "highest"


def test_environment_variables_of_the_harness_are_left_alone():
    for name in (*mlflow_environment.ALWAYS, *mlflow_environment.UNLESS_SET):
        assert name.startswith(python_settings._SET_BY_HARNESS)
    assert not "MLFLOW_TRACKING_URI".startswith(python_settings._SET_BY_HARNESS)


def test_restoring_state_costs_a_run_less_than_a_millisecond():
    before, taken = snapshot(), []
    for _ in range(20):
        begun = time.perf_counter()
        restore(before)
        taken.append(time.perf_counter() - begun)
    assert min(taken) < 1e-3


def test_a_new_environment_variable_is_kept_and_not_named(monkeypatch):
    monkeypatch.setenv("THEIRS", "1")
    monkeypatch.setenv("REMOVED", "1")
    for name in ("MYLIB_SCALE", "OMP_NUM_TEAMS"):
        monkeypatch.setenv(name, "")  # so that it is as before when the test ends
        del os.environ[name]
    with preserved() as changed:
        os.environ.update(MYLIB_SCALE="3", THEIRS="2", OMP_NUM_TEAMS="4")
        del os.environ["REMOVED"]
    assert changed == ["the environment variables (OMP_NUM_TEAMS, REMOVED, THEIRS)"]
    assert os.environ["MYLIB_SCALE"] == "3"
    assert (os.environ["THEIRS"], os.environ["REMOVED"]) == ("1", "1")
    assert "OMP_NUM_TEAMS" not in os.environ


def test_a_plugin_may_set_its_own_variable_at_import(tmp_path: Path, tiny_run, monkeypatch):
    monkeypatch.setenv("MYLIB_SCALE", "")
    del os.environ["MYLIB_SCALE"]
    path = tmp_path / "mine.py"
    path.write_text(
        "import os\nfrom estimators import Pathwise\nos.environ.setdefault('MYLIB_SCALE', '3')\n"
        "class Mine(Pathwise):\n    name, relaxes = 'mine', True\n"
        "    def sample(self, logits_BLK):\n"
        "        return (float(os.environ['MYLIB_SCALE']) * logits_BLK).softmax(-1)[None]\n"
    )
    registry, run = load_registry([path]), named(tiny_run, "mine")
    assert import_notes(registry) == []
    assert quick_check.check([run], registry) == quick_check.CheckResult("passed")
    found = [record.event for record in train_to_records(Job(run), registry)]
    assert isinstance(found[-1], Finished)
    assert notes(found) == []


HURTS = [
    "dtype",
    "threads",
    "warn only",
    "grad",
    "anomaly",
    "matmul",
    "mkldnn",
    "denormals",
    "hooks",
    "warnings",
    "device",
]


@pytest.fixture(scope="module")
def alone(tiny_run) -> list[dict[str, float]]:
    """The numbers of a run in a process in which no state was changed."""
    return numbers(events(tiny_run("reinforce")))


@pytest.mark.parametrize("cls", [Changes, ChangesWhereBuilt], ids=["in a step", "where built"])
@pytest.mark.parametrize("what", HURTS)
def test_the_next_run_of_the_same_process_has_the_numbers_it_has_alone(what, cls, tiny_run, alone, monkeypatch):
    monkeypatch.setattr(cls, "change", staticmethod(CHANGES[what][0]))
    before = snapshot()
    found = events(named(tiny_run, cls.name))
    assert snapshot() == before
    assert numbers(events(tiny_run("reinforce"))) == alone
    if cls is ChangesWhereBuilt:  # and its own run starts from the same state
        assert isinstance(found[-1], Finished)
        assert len(notes(found)) == 1
        assert notes(found)[0].startswith(f"changes_where_built changes {CHANGES[what][1]}")


def test_a_change_in_a_step_is_named_after_each_epoch_in_the_same_words(tiny_run, monkeypatch):
    monkeypatch.setattr(Changes, "change", staticmethod(CHANGES["threads"][0]))
    found = notes(events(named(tiny_run, "changes")))
    assert len(found) == 2
    assert set(found) == {
        "changes changes the number of threads (1 to 3) of the whole process. It is restored for the other"
        " estimators. Set dtype, device and the like on its own tensors."
    }


def test_a_run_resumed_after_another_run_has_the_same_bits(tiny_run, monkeypatch, alone):
    stopped = events(tiny_run("reinforce"), pace=RunControls(is_stopping=lambda *_: True))
    assert isinstance(stopped[-1], Interrupted)
    (saved,) = (event for event in stopped if isinstance(event, Checkpoint))
    monkeypatch.setattr(Changes, "change", staticmethod(CHANGES["dtype"][0]))
    events(named(tiny_run, "changes"))
    assert numbers(events(tiny_run("reinforce"), saved.content)) == alone[1:]


def test_a_state_changing_estimator_in_a_basket_does_not_change_the_run(tiny_run, alone, monkeypatch):
    monkeypatch.setattr(Changes, "change", staticmethod(CHANGES["hooks"][0]))
    monkeypatch.setattr(ChangesWhereBuilt, "change", staticmethod(CHANGES["grad"][0]))
    basket = [{"name": "changes"}, {"name": "changes_where_built"}, {"name": "rloo", "params": {"n_samples": 2}}]
    settings = {"every": 1, "resamples": 64, "probe": 4}
    found = []
    for entries in (basket, basket[-1:]):
        diagnostics = DiagnosticsConfig.model_validate(settings | {"basket": tuple(entries)})
        found.append(numbers(events(tiny_run("reinforce", diagnostics=diagnostics))))
    mixed, plain = found
    assert [{k: v for k, v in m.items() if not k.startswith("gradient/")} for m in mixed] == alone
    for one, other in zip(mixed, plain, strict=True):
        assert {k: v for k, v in one.items() if k in other} == other


def test_diagnose_names_a_state_changing_estimator_and_measures_the_rest(monkeypatch):
    logits, weights = torch.randn(2, 2, 3), torch.randn(2, 3)

    def cost(z_SBLK):
        return ((z_SBLK * weights.to(z_SBLK.dtype)).sum((-1, -2)) - 1) ** 2

    monkeypatch.setattr(Changes, "change", staticmethod(CHANGES["dtype"][0]))
    plain = diagnose(logits, cost, ["rloo"], resamples=64).drop(columns="seconds")
    with pytest.warns(UserWarning, match="diagnose: changes changes the default dtype"):
        mixed = diagnose(logits, cost, [Changes(), "rloo"], resamples=64)
    assert mixed.drop(columns="seconds").iloc[1].equals(plain.iloc[0])


def test_a_plugin_that_changes_state_at_import_is_named(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import os, torch\nfrom estimators import Pathwise\ntorch.set_default_dtype(torch.float64)\n"
        "os.environ['CUDA_VISIBLE_DEVICES'] = ''\nos.chdir('/')\n"
        "class Mine(Pathwise):\n    name, relaxes = 'mine', True\n"
        "    def sample(self, logits_BLK):\n        return logits_BLK.softmax(-1)[None]\n"
    )
    before = snapshot()
    (line,) = import_notes(load_registry([path]))
    assert line.startswith("mine.py changes the default dtype (float32 to float64) and the environment variables (CUDA")
    assert snapshot() == before
    assert import_notes(load_registry()) == []


def test_provenance_states_the_current_settings(tiny_run):
    (started,) = (event for event in events(tiny_run()) if isinstance(event, Started))
    assert started.provenance["process"] == {
        "dtype": "float32",
        "threads": 1,
        "deterministic": False,
        "float32_matmul_precision": "highest",
        "cudnn_tf32": True,
        "cudnn_benchmark": False,
        "mkldnn": True,
        "autocast": False,
        "denormals": "flushed to 0 in training",
    }
