"""Compiling the loss of a training step, where that pays and gives the same numbers.

`compile: auto` compiles runs that are long enough to earn back the time of compiling (docs/decisions/008), after a
trial on the first batch: loss and gradient must equal those of plain torch within TOLERANCE. Temperatures are then
tensors, which change without compiling again.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import torch
from torch import Tensor

from estimators import Estimator
from harness.config import RunConfig
from harness.errors import first_line
from harness.schedules import Learned
from harness.tasks.splits import Batch
from harness.tasks.task import Loss, Task, total
from harness.training import seeding
from harness.training.state import State

AUTO_STEPS = {"cpu": 100_000}
"""`auto` compiles runs of at least so many steps, and never on other devices, where nothing was measured."""
TRIAL_STEPS = 3
"""Steps of the first batch that are compared: CUDA graphs are replayed only in the third."""
TOLERANCE = 1e-3
"""Largest relative difference of the losses, and of the gradient in norm, between a compiled step and a plain one."""


class CompileError(ValueError):
    """A step that cannot be compiled, or whose numbers differ. The message is one line."""


def compile_if_wanted(run: RunConfig, state: State, *, cuda_graphs: bool = True) -> None:
    """Compile the loss if the run asks for it, or is long enough and gets the same numbers.

    On CUDA, the kernels of a step are replayed as one graph, unless `cuda_graphs` is False.

    The time of compiling, also in vain, counts as training time. Raises CompileError if the run asks for it and it
    fails.
    """
    n_train, batch_size = state.splits.n_train, run.training.batch_size
    if not _is_wanted(run, math.ceil(n_train / batch_size) * run.training.epochs):
        return
    begun = time.perf_counter()
    batch = state.splits.train_batch(torch.arange(min(batch_size, n_train), device=run.device))
    dtype = torch.float32 if run.device == "mps" else torch.float64
    for key in state.estimator.temperatures:
        state.tau_tensors[key] = torch.tensor(getattr(state.estimator, key), dtype=dtype, device=run.device)
        state.set_temperature(key, state.tau_tensors[key])
    try:
        state.compiled = compile_loss(state.task, state.estimators, batch, run.seed, cuda_graphs=cuda_graphs)
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
class CompiledLoss:
    """A loss that is compiled for batches of one form. A batch of another form, the last one, takes plain torch."""

    def __init__(self, loss: Callable[[Batch], Loss], *, cuda_graphs: bool) -> None:
        import torch._dynamo
        import torch._inductor.config

        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no CUDA

        torch._dynamo.reset()  # what previous runs of this process compiled counts against a limit
        torch._inductor.config.fallback_random = True  # the same noise from the same seed
        torch._inductor.config.compile_threads = 1  # workers are parallel already
        mode = "reduce-overhead" if cuda_graphs else None
        self._plain, self._reuses_outputs = loss, cuda_graphs
        self._compiled: Callable[[Batch], Loss] = torch.compile(loss, mode=mode, dynamic=False)
        self._shapes: list[torch.Size] = []

    def __call__(self, batch: Batch) -> Loss:
        shapes = [batch.shape] if isinstance(batch, Tensor) else [one.shape for one in batch]
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            return self._plain(batch)
        if self._reuses_outputs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._compiled(batch)


def compile_loss(
    task: Task, estimators: Mapping[str, Estimator], batch: Batch, seed: int, *, cuda_graphs: bool = True
) -> CompiledLoss:
    """Return the loss of a task, compiled for batches like this one.

    Raises CompileError if that fails or gives other numbers. Noise, parameters and running state stay as they were.
    """
    name = next(iter(estimators.values())).name
    if any(next(estimator.parameters(), None) is not None for estimator in estimators.values()):
        raise CompileError(f"training.compile: expected an estimator without parameters of its own, got {name}.")
    plain = partial(_loss, task, estimators)
    try:
        on_cuda = next(task.parameters()).device.type == "cuda"
        compiled = CompiledLoss(plain, cuda_graphs=on_cuda and cuda_graphs)
        expected, own = (_trial(each, task, estimators, batch, seed) for each in (plain, compiled))
    except Exception as error:
        raise CompileError(
            f"training.compile: expected a step of {name} that compiles, got: {first_line(error)}"
        ) from error
    off_by = [
        ((ours - theirs).norm() / (theirs.norm() + 1e-12)).item() for ours, theirs in zip(own, expected, strict=True)
    ]
    if not all(each <= TOLERANCE for each in off_by):  # written so that NaN is refused
        raise CompileError(
            f"training.compile: expected a step of {name} with the numbers of plain torch within {TOLERANCE:g}, got"
            f" off by {max(off_by, key=lambda each: (each != each, each)):.2g}. Use compile: off."
        )
    return compiled


def _loss(task: Task, estimators: Mapping[str, Estimator], batch: Batch) -> Loss:
    """Return the loss with the means of its terms, so that they are compiled too."""
    loss = task.loss(batch, estimators)
    return Loss({name: term.mean() for name, term in loss.terms.items()}, loss.control_loss)


def _trial(
    loss: Callable[[Batch], Loss], task: Task, estimators: Mapping[str, Estimator], batch: Batch, seed: int
) -> list[Tensor]:
    """Return losses, gradients and running state of TRIAL_STEPS steps on one batch, with noise of their own."""
    before = copy.deepcopy({name: estimator.state_dict() for name, estimator in estimators.items()})
    buffers = [(one, one.clone()) for one in task.buffers()]  # such as running means
    found = []
    try:
        for step in range(TRIAL_STEPS):
            with seeding.seeded(seed, "noise", -1 - step, device=next(task.parameters()).device):
                terms = [term.mean() for term in loss(batch).terms.values()]
                slopes = torch.autograd.grad(total(terms), task.trained_parameters(), materialize_grads=True)
            states = [value for estimator in estimators.values() for value in estimator.state_dict().values()]
            found += [value.detach().double().clone() for value in (*terms, *slopes, *states)]
    finally:
        for name, estimator in estimators.items():
            estimator.load_state_dict(before[name])
        for one, value in buffers:
            one.copy_(value)
    return found
