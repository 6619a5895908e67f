"""Compiling the loss of a training step, where that pays and gives the same numbers.

`compile: auto` compiles runs that are long enough to earn back the time of compiling (docs/decisions/008), after a
trial on the first batch: loss and gradient must equal those of plain torch within TOLERANCE. Temperatures are then
tensors, which change without compiling again.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from estimators import Estimator
from harness.config import RunConfig
from harness.datasets.load import Dataset
from harness.errors import first_line
from harness.schedules import Learned
from harness.training import seeding
from harness.training.state import Losses, State
from harness.training.vae import CategoricalVAE

AUTO_STEPS = {"cpu": 100_000}
"""`auto` compiles runs of at least so many steps, and never on other devices, where nothing was measured."""
TRIAL_STEPS = 3
"""Steps of the first batch that are compared: CUDA graphs are replayed only in the third."""
TOLERANCE = 1e-3
"""Largest relative difference of the losses, and of the gradient in norm, between a compiled step and a plain one."""


class CompileError(ValueError):
    """A step that cannot be compiled, or whose numbers differ. The message is one line."""


def compile_if_wanted(
    run: RunConfig, state: State, batch_losses: Callable[[CategoricalVAE, Estimator, Tensor], Losses], dataset: Dataset
) -> None:
    """Compile the losses if the run asks for it, or is long enough and gets the same numbers.

    The time of compiling, also in vain, counts as training time. Raises CompileError if the run asks for it and it
    fails.
    """
    n_images, batch_size = len(dataset.train_ND), run.training.batch_size
    if not _is_wanted(run, math.ceil(n_images / batch_size) * run.training.epochs):
        return
    begun = time.perf_counter()
    batch_BD = dataset.train_batch(torch.arange(min(batch_size, n_images), device=run.device))
    dtype = torch.float32 if run.device == "mps" else torch.float64
    for key in state.estimator.temperatures:
        state.tau_tensors[key] = torch.tensor(getattr(state.estimator, key), dtype=dtype, device=run.device)
        setattr(state.estimator, key, state.tau_tensors[key])
    try:
        plain = partial(batch_losses, state.vae, state.estimator)
        state.compiled = compile_losses(plain, state.vae, state.estimator, batch_BD, run.seed)
    except CompileError:
        if run.training.compile == "on":
            raise
        state.tau_tensors = {}
    state.compile_s = state.elapsed_s = time.perf_counter() - begun


def _is_wanted(run: RunConfig, n_steps: int) -> bool:
    is_learned = isinstance(run.schedule, Learned)
    if run.training.compile == "auto":
        return not is_learned and n_steps >= AUTO_STEPS.get(torch.device(run.device).type, math.inf)
    if run.training.compile == "on" and is_learned:
        raise CompileError("training.compile: expected off or auto with a learned schedule, got on.")
    return run.training.compile == "on"


@final
class CompiledLosses:
    """Losses that are compiled for batches of one shape. A batch of another shape, the last one, takes plain torch."""

    def __init__(self, losses: Callable[[Tensor], Losses], device: torch.device) -> None:
        import torch._dynamo
        import torch._inductor.config

        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no CUDA

        torch._dynamo.reset()  # what previous runs of this process compiled counts against a limit
        torch._inductor.config.fallback_random = True  # the same noise from the same seed
        torch._inductor.config.compile_threads = 1  # workers are parallel already
        mode = "reduce-overhead" if device.type == "cuda" else None  # CUDA graphs
        self._plain, self._reuses_outputs = losses, device.type == "cuda"
        self._compiled: Callable[[Tensor], Losses] = torch.compile(losses, mode=mode, dynamic=False)
        self._shape: torch.Size | None = None

    def __call__(self, x_BD: Tensor) -> Losses:
        self._shape = self._shape or x_BD.shape
        if x_BD.shape != self._shape:
            return self._plain(x_BD)
        if self._reuses_outputs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._compiled(x_BD)


def compile_losses(
    losses: Callable[[Tensor], Losses], vae: nn.Module, estimator: nn.Module, x_BD: Tensor, seed: int
) -> "CompiledLosses":
    """Return the losses, compiled for batches like `x_BD`.

    Raises CompileError if that fails or gives other numbers. Noise, parameters and running state stay as they were.
    """
    name = getattr(estimator, "name", type(estimator).__name__)
    if next(estimator.parameters(), None) is not None:
        raise CompileError(f"training.compile: expected an estimator without parameters of its own, got {name}.")
    try:
        compiled = CompiledLosses(losses, x_BD.device)
        plain, own = (_trial(each, vae, estimator, x_BD, seed) for each in (losses, compiled))
    except Exception as error:
        raise CompileError(
            f"training.compile: expected a step of {name} that compiles, got: {first_line(error)}"
        ) from error
    off_by = [
        ((ours - theirs).norm() / (theirs.norm() + 1e-12)).item() for ours, theirs in zip(own, plain, strict=True)
    ]
    if not all(each <= TOLERANCE for each in off_by):  # written so that NaN is refused
        raise CompileError(
            f"training.compile: expected a step of {name} with the numbers of plain torch within {TOLERANCE:g}, got"
            f" off by {max(off_by, key=lambda each: (each != each, each)):.2g}. Use compile: off."
        )
    return compiled


def _trial(
    losses: Callable[[Tensor], Losses], vae: nn.Module, estimator: nn.Module, x_BD: Tensor, seed: int
) -> list[Tensor]:
    """Return losses, gradients and running state of TRIAL_STEPS steps on one batch, with noise of their own."""
    before = copy.deepcopy(estimator.state_dict())
    found = []
    try:
        for step in range(TRIAL_STEPS):
            with seeding.seeded(seed, "noise", -1 - step, device=x_BD.device):
                bce, kl, _ = losses(x_BD)
                slopes = torch.autograd.grad(bce + kl, list(vae.parameters()), materialize_grads=True)
            found += [value.detach().double().clone() for value in (bce, kl, *slopes, *estimator.state_dict().values())]
    finally:
        estimator.load_state_dict(before)
    return found
