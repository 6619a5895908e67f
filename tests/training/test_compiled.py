"""Compiled training steps: the same numbers as plain ones, no recompilation as tau changes, clear failures."""

import shutil

import pytest
import torch
from pydantic import ValidationError

from estimators import REGISTRY
from harness.config import DataConfig, EstimatorConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from harness.events import EpochDone, Event, Finished
from harness.schedules import Exponential, Learned, NoSchedule
from harness.tasks import Loss
from harness.train import train
from harness.training import compiled
from harness.training.compiled import CompileError

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler on the CPU"
)


def run_with(compile: str, name: str = "gumbel_softmax", epochs: int = 2) -> list[Event]:
    """Train a small model; 100 images in batches of 32, so that the last batch is a smaller one."""
    run = RunConfig(
        estimator=EstimatorConfig(name=name),
        schedule=Exponential(rate=0.1, every=1, floor=0.5) if REGISTRY[name].uses_tau else NoSchedule(),
        data=DataConfig(train_size=100),
        model=ModelConfig(n_latents=3, n_categories=4, hidden=(16,)),
        training=TrainingConfig(epochs=epochs, batch_size=32, compile=compile),
        evaluation=EvaluationConfig(bound_samples=0, n_images=0),
    )
    return list(train(run, REGISTRY))


def losses(events: list[Event]) -> list[float]:
    return [event.metrics["train/loss"] for event in events if isinstance(event, EpochDone)]


@needs_compiler
def test_a_compiled_run_has_the_numbers_of_a_plain_one_and_compiles_once(monkeypatch):
    torch._dynamo.utils.counters.clear()
    fast, plain = run_with("on"), run_with("off")
    assert losses(fast) == pytest.approx(losses(plain), rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    end = fast[-1]
    assert isinstance(end, Finished)
    assert end.metrics["compiled"] == 1.0
    assert 0 < end.metrics["time/compile_s"] < end.metrics["time/total_s"]
    assert "compiled" not in plain[-1].metrics


def test_auto_trains_uncompiled_where_it_cannot_compile(monkeypatch):
    monkeypatch.setitem(compiled.AUTO_STEPS, "cpu", 1)
    tried, plain = run_with("auto", "rebar"), run_with("off", "rebar")
    assert losses(tried) == losses(plain)
    assert tried[-1].metrics["compiled"] == 0.0


def test_auto_does_not_compile_short_runs(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    assert "compiled" not in run_with("auto")[-1].metrics


@pytest.mark.parametrize("name", ["nvil", "relax"])
def test_an_estimator_with_parameters_of_its_own_is_not_compiled(name, monkeypatch):
    with pytest.raises(CompileError, match="expected an estimator without parameters of its own, got"):
        run_with("on", name)
    monkeypatch.setitem(compiled.AUTO_STEPS, "cpu", 1)
    assert run_with("auto", name)[-1].metrics["compiled"] == 0.0


@needs_compiler
@pytest.mark.parametrize("name", ["reinforce_ema", pytest.param("gumbel_rao", marks=pytest.mark.slow)])
def test_running_means_and_noise_of_the_backward_pass_are_the_same_compiled(name):
    assert losses(run_with("on", name)) == pytest.approx(losses(run_with("off", name)), rel=1e-4)


def test_a_gradient_of_nan_is_refused(monkeypatch):
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.nan

    def wrong(losses, **_):
        def poisoned(x_BD):
            loss = losses(x_BD)
            return loss._replace(terms={name: Poison.apply(term) for name, term in loss.terms.items()})

        return poisoned

    monkeypatch.setattr(torch, "compile", wrong)
    with pytest.raises(CompileError, match="got off by nan"):
        run_with("on")


def test_auto_trains_uncompiled_if_the_compiler_cannot_start(monkeypatch):
    def unsupported(*_, **__):
        raise RuntimeError("not on this Python")

    monkeypatch.setattr(torch, "compile", unsupported)
    monkeypatch.setitem(compiled.AUTO_STEPS, "cpu", 1)
    assert losses(run_with("auto")) == losses(run_with("off"))
    with pytest.raises(CompileError, match="got: not on this Python"):
        run_with("on")


def test_compiled_steps_with_other_numbers_are_refused(monkeypatch):
    def wrong(losses, **_):
        return lambda x_BD: Loss({name: 1.01 * value for name, value in losses(x_BD).terms.items()})

    monkeypatch.setattr(torch, "compile", wrong)
    with pytest.raises(CompileError, match=r"with the numbers of plain torch within 0\.001, got off by 0\.01"):
        run_with("on")


def test_a_learned_schedule_is_not_compiled():
    run = RunConfig(
        estimator=EstimatorConfig(name="gumbel_softmax"),
        schedule=Learned(),
        data=DataConfig(train_size=100),
        training=TrainingConfig(epochs=1, compile="on"),
    )
    with pytest.raises(CompileError, match="expected off or auto with a learned schedule, got on"):
        list(train(run, REGISTRY))


@pytest.mark.slow
@needs_compiler
def test_between_epochs_a_temperature_is_a_number_again():
    seen = []

    class Watched(REGISTRY["gumbel_softmax"].__base__):
        name, relaxes = "watched", True

        def __init__(self, *, tau: float = 1.0):
            super().__init__()
            self.tau = tau

        def sample(self, logits_BLK):
            if not (self.training or torch.compiler.is_compiling()):
                seen.append(self.tau)
            return (logits_BLK / self.tau).softmax(-1).unsqueeze(0)

    run = RunConfig(
        estimator=EstimatorConfig(name="watched"),
        data=DataConfig(train_size=100),
        model=ModelConfig(n_latents=3, n_categories=4, hidden=(16,)),
        training=TrainingConfig(epochs=1, batch_size=32, compile="on"),
        evaluation=EvaluationConfig(bound_samples=0, n_images=0),
    )
    end = list(train(run, {"watched": Watched}))[-1]
    assert end.metrics["compiled"] == 1.0
    assert seen
    assert all(type(tau) is float for tau in seen)


def test_on_and_off_may_be_written_as_yaml_reads_them():
    assert [TrainingConfig(compile=value).compile for value in (True, False, "auto")] == ["on", "off", "auto"]
    with pytest.raises(ValidationError):
        TrainingConfig(compile="maybe")
