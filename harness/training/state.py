"""The state of a run: backbone, estimator, optimisers, and how they are built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from estimators import Estimator
from harness import process_state
from harness.config import RunConfig
from harness.schedules import Learned
from harness.training import seeding
from harness.training.learned_tau import LearnedTau
from harness.training.optimizers import make_optimizer
from harness.training.vae import CategoricalVAE


class Losses(NamedTuple):
    """The losses of one batch, as scalars: reconstruction cost and KL in nats per example, and the control loss."""

    bce: Tensor
    kl: Tensor
    control: Tensor | None


@dataclass
class State:
    """All that changes during training, except torch's generators."""

    vae: CategoricalVAE
    estimator: Estimator
    optimizers: list[torch.optim.Optimizer]  # of the backbone, the estimator's own parameters, a learned tau
    trained_by_loss: list[torch.nn.Parameter]
    trained_by_control: list[torch.nn.Parameter]  # by the estimator's control_loss
    learned_tau: LearnedTau | None = None
    compiled: Callable[[Tensor], Losses] | None = None  # `batch_losses`, if it was compiled
    compile_s: float = 0.0
    tau_tensors: dict[str, Tensor] = field(default_factory=dict)  # the temperatures that the compiled losses read
    process_changes: list[str] = field(default_factory=list)  # made by building the estimator, and put back
    epoch: int = 0
    step: int = 0
    step_s: list[float] = field(default_factory=list)  # seconds of each step so far
    elapsed_s: float = 0.0
    peak_mb: float = 0.0  # the peak memory before the checkpoint that the run continues from

    def temperatures(self) -> dict[str, float]:
        """Return the estimator's present temperatures by name."""
        return {key: float(getattr(self.estimator, key)) for key in self.estimator.temperatures}


def start(run: RunConfig, registry: Mapping[str, type[Estimator]], n_pixels: int, device: torch.device) -> State:
    """Build backbone, estimator and optimisers. The seed alone decides the initial weights, whatever the estimator."""
    with process_state.preserved() as changed, seeding.seeded(run.seed, "estimator", device=device):
        estimator = run.build_estimator(registry)
        estimator.prepare(run.model.n_latents, run.model.n_categories, n_context=n_pixels)
    n_outputs = estimator.n_outputs(run.model.n_categories)
    with seeding.seeded(run.seed, "initialisation", device=device):
        vae = CategoricalVAE(n_pixels=n_pixels, n_outputs=n_outputs, **run.model.model_dump()).to(device)
    estimator.to(device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = run.model.precision == "tf32"
    control = estimator.control_optimizer()
    optimizers = [make_optimizer(run.training, list(vae.parameters())), *([control] if control else [])]
    own = list(estimator.parameters())
    state = State(vae, estimator, optimizers, list(vae.parameters()), own, process_changes=changed)
    if isinstance(run.schedule, Learned):
        state.learned_tau = LearnedTau(run.schedule, device)
        state.optimizers.append(state.learned_tau.optimizer)
        trained = state.trained_by_loss if run.schedule.through == "loss" else state.trained_by_control
        trained.append(state.learned_tau.log_tau)
    return state


def set_temperatures(run: RunConfig, state: State, steps_per_epoch: int, n_steps: int) -> None:
    """Set the temperatures of the next update: those of the schedule, or the learned one."""
    if state.learned_tau is not None:
        state.estimator.tau = state.learned_tau.tau()
        return
    values = run.schedule.temperatures(state.step, steps_per_epoch=steps_per_epoch, n_steps=n_steps)
    for key, value in values.items():
        setattr(state.estimator, key, state.tau_tensors[key].fill_(value) if key in state.tau_tensors else value)


def temperatures_as_numbers(state: State) -> None:
    """Replace temperatures that are tensors by their values, for evaluation."""
    temperatures = {"tau": state.learned_tau.value} if state.learned_tau else state.tau_tensors
    for key, tau in temperatures.items():
        setattr(state.estimator, key, float(tau))
