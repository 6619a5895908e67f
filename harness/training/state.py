"""The state of a run: task, estimator, optimisers, and how they are built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from estimators import Estimator
from harness import process_state
from harness.config import RunConfig
from harness.plugins.registry import datasets_of
from harness.schedules import Learned
from harness.tasks.splits import Batch, Splits, take
from harness.tasks.task import Loss, Task
from harness.training import seeding
from harness.training.data import load_splits, new_task
from harness.training.learned_tau import LearnedTau
from harness.training.optimizers import make_optimizer


class Best(NamedTuple):
    """The best epoch so far by the measure that ranks on validation, its value, and the parameters after it."""

    epoch: int
    value: float
    parameters: dict[str, Any]


@dataclass
class State:
    """All that changes during training, except torch's generators; and the data."""

    task: Task
    estimators: Mapping[str, Estimator]  # by layer
    splits: Splits
    optimizers: list[torch.optim.Optimizer]  # of the task, the estimators' own parameters, a learned tau
    trained_by_loss: list[torch.nn.Parameter]
    trained_by_control: list[torch.nn.Parameter]  # by the estimators' control_loss
    learned_tau: LearnedTau | None = None
    compiled: Callable[[Batch], Loss] | None = None  # the task's loss, if it was compiled
    compile_s: float = 0.0
    tau_tensors: dict[str, Tensor] = field(default_factory=dict)  # the temperatures that the compiled loss reads
    process_changes: dict[str, list[str]] = field(default_factory=dict)  # made by whom while building, and put back
    epoch: int = 0
    step: int = 0
    step_s: list[float] = field(default_factory=list)  # seconds of each step so far
    elapsed_s: float = 0.0
    peak_mb: float = 0.0  # the peak memory before the checkpoint that the run continues from
    best: Best | None = None  # kept if the run evaluates its best epoch

    @property
    def estimator(self) -> Estimator:
        """The estimator of the first layer: those of all layers have the same settings."""
        return next(iter(self.estimators.values()))

    def temperatures(self) -> dict[str, float]:
        """Return the estimator's present temperatures by name."""
        return {key: float(getattr(self.estimator, key)) for key in self.estimator.temperatures}

    def set_temperature(self, key: str, value: float | Tensor) -> None:
        """Set a temperature of the estimators of all layers."""
        for estimator in self.estimators.values():
            setattr(estimator, key, value)


def start(
    run: RunConfig, registry: Mapping[str, type[Estimator]], device: torch.device, splits: Splits | None = None
) -> State:
    """Build task, estimators and optimisers. The seed alone decides the initial weights, whatever the estimator.

    The data are loaded, unless they are given.
    """
    with seeding.seeded(run.seed, "initialisation", device=device):
        with process_state.preserved() as by_task:
            task = new_task(run, registry)
            splits, shapes = splits or load_splits(run, task, datasets_of(registry)), task.layers()
        with process_state.preserved() as by_estimator, seeding.seeded(run.seed, "estimator", device=device):
            estimators = {layer: _estimator(run, registry, task, splits, shape) for layer, shape in shapes.items()}
        with process_state.preserved() as by_build:  # each is put back before the next is built
            task.build(splits, {name: one.n_outputs(shapes[name][1]) for name, one in estimators.items()})
    task.to(device)
    for estimator in estimators.values():
        estimator.to(device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = "model" in run.sections and run.model.precision == "tf32"
    controls = filter(None, (estimator.control_optimizer() for estimator in estimators.values()))
    trained_parameters = task.trained_parameters()
    optimizers = [make_optimizer(run.training, trained_parameters), *controls]
    own = [parameter for estimator in estimators.values() for parameter in estimator.parameters()]
    state = State(task, estimators, splits.to(device), optimizers, trained_parameters, own)
    state.process_changes = {task.name: [*by_task, *by_build], state.estimator.name: by_estimator}
    if isinstance(run.schedule, Learned):
        state.learned_tau = LearnedTau(run.schedule, device)
        state.optimizers.append(state.learned_tau.optimizer)
        trained = state.trained_by_loss if run.schedule.through == "loss" else state.trained_by_control
        trained.append(state.learned_tau.log_tau)
    return state


def _estimator(
    run: RunConfig, registry: Mapping[str, type[Estimator]], task: Task, splits: Splits, shape: tuple[int, int]
) -> Estimator:
    """Return the estimator of a layer of that shape, with parameters for the context that the task gives."""
    estimator = run.build_estimator(registry)
    context = task.context(take(splits.train, 1))
    estimator.prepare(*shape, n_context=0 if context is None else context.shape[-1])
    return estimator


def parameters(state: State) -> dict[str, Any]:
    """Return all that an evaluation depends on: task, estimators and temperatures. Tensors are not copied."""
    return {
        "task": state.task.state_dict(),
        "estimators": [estimator.state_dict() for estimator in state.estimators.values()],
        "temperatures": state.temperatures(),
    }


def set_parameters(state: State, saved: Mapping[str, Any]) -> None:
    """Set what `parameters` returned."""
    state.task.load_state_dict(saved["task"])
    for estimator, estimator_state in zip(state.estimators.values(), saved["estimators"], strict=True):
        estimator.load_state_dict(estimator_state)
    for key, value in saved["temperatures"].items():
        state.set_temperature(key, value)


def set_temperatures(run: RunConfig, state: State, steps_per_epoch: int, n_steps: int) -> None:
    """Set the temperatures of the next update: those of the schedule, or the learned one."""
    if state.learned_tau is not None:
        state.set_temperature("tau", state.learned_tau.tau())
        return
    values = run.schedule.temperatures(state.step, steps_per_epoch=steps_per_epoch, n_steps=n_steps)
    for key, value in values.items():
        state.set_temperature(key, state.tau_tensors[key].fill_(value) if key in state.tau_tensors else value)


def temperatures_as_numbers(state: State) -> None:
    """Replace temperatures that are tensors by their values, for evaluation."""
    temperatures = {"tau": state.learned_tau.value} if state.learned_tau else state.tau_tensors
    for key, tau in temperatures.items():
        state.set_temperature(key, float(tau))
