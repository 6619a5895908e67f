"""Train one run. Read this file first: it is the whole main path.

`train(run, registry)` yields plain events. It uses no MLflow, no worker processes and no files of a sweep. What is
trained is a task (`harness.tasks.task`): its data, and its loss, in which one line calls the estimator. Everything
else is the same for all estimators and tasks.
"""

from collections.abc import Iterator, Mapping

import torch

from estimators import Estimator
from harness import process_state
from harness.config import RunConfig
from harness.devices import flushed_denormals, reset_peak_memory
from harness.events import EpochDone, Event, Interrupted, Note, Skipped, Started
from harness.gradients.during_training import Diagnostics
from harness.provenance import provenance
from harness.tasks.fit import reason_to_skip
from harness.tasks.splits import Batch
from harness.tasks.task import total
from harness.training import checkpoint as checkpoints
from harness.training import seeding, timing
from harness.training.best import keep_best
from harness.training.compiled import compile_if_wanted
from harness.training.epoch_result import EpochResult, StepResult, epoch_metrics, gradient_sum, non_finite
from harness.training.finish import finish
from harness.training.optimizers import set_learning_rate
from harness.training.pictures import training_pictures
from harness.training.run_controls import RunControls
from harness.training.state import State, set_temperatures, start, temperatures_as_numbers


def train(
    run: RunConfig,
    registry: Mapping[str, type[Estimator]],
    checkpoint: bytes | None = None,
    controls: RunControls | None = None,
) -> Iterator[Event]:
    """Train one run to its end, from its beginning or from a checkpoint, and yield what happens.

    The same run gives the same numbers, to the last bit, on the same machine, however often it is interrupted.
    """
    yield Started({**provenance(), "process": process_state.current_settings()})
    controls = controls or RunControls()
    device = torch.device(run.device)
    state = start(run, registry, device)
    if reason := reason_to_skip(type(state.task), state.estimator, run.layers.values()):
        yield Skipped(reason)
        return
    compile_if_wanted(run, state)
    settings = process_state.snapshot()
    diagnostics = Diagnostics(run, run.diagnostics, registry) if run.diagnostics else None
    reset_peak_memory(device)
    if checkpoint is None or not checkpoints.restore(run, state, checkpoint):
        torch.manual_seed(seeding.stream_seed(run.seed, "noise"))

    for epoch in range(state.epoch + 1, run.training.epochs + 1):
        result = train_epoch(run, state, epoch)
        state.process_changes.setdefault(state.estimator.name, []).extend(process_state.restore(settings))
        for name, changes in state.process_changes.items():
            if changes:
                yield Note(process_state.change_note(name, changes))
        state.process_changes.clear()
        if diverged := result.divergence(state):
            yield diverged
            return
        metrics = epoch_metrics(run, state, result)
        if diverged := non_finite(metrics, state.step, f"after epoch {epoch}"):
            yield diverged
            return
        keep_best(run, state, metrics)
        if diagnostics and diagnostics.due(epoch):
            metrics |= diagnostics.metrics(state)
        yield from training_pictures(run, state)
        yield EpochDone(epoch, state.step, state.elapsed_s, metrics)
        is_stopping = controls.is_stopping()
        if controls.is_due(epoch) or is_stopping:
            yield checkpoints.save(run, state)
            controls.note_save()
        if is_stopping:
            yield Interrupted(f"stopped after epoch {epoch}")
            return

    yield from finish(run, state, keeps_model=controls.keeps_model)


@flushed_denormals()
def train_epoch(run: RunConfig, state: State, epoch: int) -> EpochResult:
    """Pass once over the training examples, in an order set by seed and epoch.

    Raises ValueError if an estimator or its cost rejects its input. The message names step and epoch.
    """
    training, splits, device = run.training, state.splits, torch.device(run.device)
    order_N = torch.randperm(splits.n_train, generator=seeding.generator(run.seed, "data", epoch)).to(device)
    resample = seeding.generator(run.seed, "binarization", epoch, device)
    batches = torch.split(order_N, training.batch_size)
    n_steps = len(batches) * training.epochs
    state.task.train()
    for estimator in state.estimators.values():
        estimator.train()
    steps: list[StepResult] = []
    timer = timing.StepTimer(device)
    for index_B in batches:
        set_temperatures(run, state, len(batches), n_steps)
        set_learning_rate(state.optimizers, training, state.step, n_steps)
        try:
            steps.append(train_step(state, splits.train_batch(index_B, resample), training.grad_clip))
        except ValueError as error:
            raise ValueError(f"{error} (step {state.step + 1}, epoch {epoch})") from error
        state.step += 1
        timer.lap()
    result = EpochResult.of(steps, [len(index_B) for index_B in batches], timer)
    temperatures_as_numbers(state)
    state.epoch = epoch
    state.elapsed_s += result.seconds
    state.step_s += result.step_s
    return result


def train_step(state: State, batch: Batch, grad_clip: float | None) -> StepResult:
    """Do one optimiser step. Return the terms of the loss before it."""
    loss = state.compiled(batch) if state.compiled else state.task.loss(batch, state.estimators)
    terms = [term.mean() for term in loss.terms.values()]
    control = loss.control_loss if state.trained_by_control else None
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total(terms), inputs=state.trained_by_loss, retain_graph=control is not None)
    if control is not None:
        torch.autograd.backward(control, inputs=state.trained_by_control)
    gradient = gradient_sum(state)
    if grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(state.task.parameters(), grad_clip)
    for optimizer in state.optimizers:
        optimizer.step()
    return StepResult(tuple(term.detach().clone() for term in terms), gradient)  # CUDA graphs reuse their memory
