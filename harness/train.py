"""Train one run. Read this file first: it is the whole main path.

`train(run, registry)` yields plain events; it knows nothing of MLflow, processes or files. The estimators differ in
one line, marked below; everything else is the same for all of them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from torch import Tensor

from estimators import Estimator
from harness import checkpoint as checkpoints
from harness import data, models, process_state, seeding, timing
from harness.compiled import CompiledLosses, Losses, compile_step
from harness.config import RunConfig, TrainingConfig
from harness.devices import flushed_denormals, peak_memory_mb, reset_peak_memory
from harness.diagnostics import Diagnostics
from harness.evaluate import kl_divergence, test_metrics, validation_metrics
from harness.events import Diverged, EpochDone, Event, Finished, Image, Interrupted, Note, Started
from harness.learned_tau import LearnedTau
from harness.pictures import final_pictures, is_pictured, present_pictures
from harness.provenance import provenance
from harness.schedules import Learned
from harness.vae import CategoricalVAE


@dataclass
class State:
    """All that changes during training, besides torch's generators."""

    vae: CategoricalVAE
    estimator: Estimator
    optimizers: list[torch.optim.Optimizer]  # of the backbone, of the estimator's own parameters, of a learned tau
    by_loss: list[torch.nn.Parameter]  # what the loss trains
    by_control: list[torch.nn.Parameter]  # what the estimator's control_loss trains
    losses: Losses  # of a batch; compiled where that pays
    changed: list[str] = field(default_factory=list)  # what building the estimator changed of the process; put back
    taus: dict[str, Tensor] = field(default_factory=dict)  # where they are compiled: the temperatures, as tensors
    learned_tau: LearnedTau | None = None
    epoch: int = 0
    step: int = 0
    step_s: list[float] = field(default_factory=list)  # seconds of each step so far
    elapsed_s: float = 0.0
    peak_mb: float = 0.0  # of what came before a checkpoint


load = lru_cache(maxsize=1)(data.load)
"""A worker's runs mostly want the same data: they are cut once."""


def train(
    run: RunConfig,
    registry: Mapping[str, type[Estimator]],
    checkpoint: bytes | None = None,
    pace: checkpoints.Pace | None = None,
) -> Iterator[Event]:
    """Train one run to its end, from its beginning or from a checkpoint, and yield what happens.

    The same run gives the same numbers, to the last bit, on the same machine, however often it was cut short.
    """
    yield Started({**provenance(), "process": process_state.in_force()})
    pace = pace or checkpoints.Pace()
    device = torch.device(run.device)
    dataset = load(run.data).to(device)
    state = start(run, registry, dataset.n_pixels, device)
    state.elapsed_s = compile_s = compile_step(run, state, dataset)
    in_force = process_state.snapshot()
    diagnostics = Diagnostics(run, run.diagnostics, registry) if run.diagnostics else None
    batch_size = min(run.training.batch_size, len(dataset.train_ND))
    reset_peak_memory(device)
    if checkpoint is None or not checkpoints.restore(run, state, checkpoint):
        torch.manual_seed(seeding.stream_seed(run.seed, "noise"))

    for epoch in range(state.epoch + 1, run.training.epochs + 1):
        with flushed_denormals():
            losses, epoch_step_s, epoch_s = train_epoch(run, state, dataset, epoch)
        if changed := [*state.changed, *process_state.put_back(in_force)]:
            yield Note(process_state.note(state.estimator.name, changed))
            state.changed.clear()
        state.epoch = epoch
        state.elapsed_s += epoch_s
        state.step_s += epoch_step_s
        if (divergence := first_non_finite(losses)) is not None:
            row, what = divergence
            step = state.step - len(losses) + row + 1
            yield Diverged(step, f"{state.estimator.name}: {what} at step {step} (epoch {epoch})")
            return
        metrics = epoch_means(losses) | timing.summary(epoch_step_s, batch_size)
        metrics |= {key: float(getattr(state.estimator, key)) for key in state.estimator.temperatures}
        if epoch % run.evaluation.validation_every == 0 or epoch == run.training.epochs:
            metrics |= validation_metrics(run, state.vae, state.estimator, dataset, epoch)
        if (name := non_finite_name(metrics)) is not None:
            yield Diverged(state.step, f"{name} is {metrics[name]} after epoch {epoch}")
            return
        if diagnostics and diagnostics.due(epoch):
            metrics |= diagnostics.metrics(state.vae, state.estimator, dataset)
        if is_pictured(epoch, run.training.epochs):
            for name, png in present_pictures(run, state.vae, state.estimator, dataset):
                yield Image(name, state.step, png, final=False)
        yield EpochDone(epoch, state.step, state.elapsed_s, metrics)
        is_stopping = pace.is_stopping()
        if pace.is_due(epoch) or is_stopping:
            yield checkpoints.save(run, state)
        if is_stopping:
            yield Interrupted(f"stopped after epoch {epoch}")
            return

    final, use = test_metrics(run, state.vae, state.estimator, dataset)
    if (name := non_finite_name(final)) is not None:
        yield Diverged(state.step, f"{name} is {final[name]} at the end of training")
        return
    for name, png in final_pictures(run, state.vae, state.estimator, dataset, use):
        yield Image(name, state.step, png)
    yield use.event()
    if pace.keeps_model:
        yield models.save(run, state)
    final |= timing.summary(state.step_s, batch_size)
    if compile_s:
        final |= {"time/compile_s": compile_s, "compiled": float(isinstance(state.losses, CompiledLosses))}
    final["cost/n_cost_evals"] = float(state.estimator.n_cost_evals(run.model.n_latents, run.model.n_categories))
    peak_mb = max(state.peak_mb, peak_memory_mb(device))
    yield Finished(state.step, final | {"time/total_s": state.elapsed_s, "memory/peak_mb": peak_mb})


def start(run: RunConfig, registry: Mapping[str, type[Estimator]], n_pixels: int, device: torch.device) -> State:
    """Build backbone, estimator and optimisers. The seed alone decides the initial weights, whatever the estimator."""
    with process_state.kept() as changed, seeding.seeded(run.seed, "estimator", device=device):
        estimator = run.build_estimator(registry)
        estimator.prepare(run.model.n_latents, run.model.n_categories, n_context=n_pixels)
    n_outputs = estimator.n_outputs(run.model.n_categories)
    with seeding.seeded(run.seed, "initialisation", device=device):
        vae = CategoricalVAE(n_pixels=n_pixels, n_outputs=n_outputs, **run.model.model_dump()).to(device)
    estimator.to(device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = run.model.precision == "tf32"
    losses = partial(plain_losses, vae, estimator)
    state = State(vae, estimator, [], list(vae.parameters()), list(estimator.parameters()), losses, changed)
    control = estimator.control_optimizer()
    state.optimizers = [make_optimizer(run.training, list(vae.parameters())), *([control] if control else [])]
    if isinstance(run.schedule, Learned):
        state.learned_tau = LearnedTau(run.schedule, device)
        state.optimizers.append(state.learned_tau.optimizer)
        (state.by_loss if run.schedule.through == "loss" else state.by_control).append(state.learned_tau.log_tau)
    return state


def train_epoch(run: RunConfig, state: State, dataset: data.Dataset, epoch: int) -> tuple[Tensor, list[float], float]:
    """Pass once over the training images.

    Return losses (steps × [bce, kl, gradient, batch size]), seconds per step, seconds.
    """
    device, batch_size = dataset.train_ND.device, run.training.batch_size
    n_images = len(dataset.train_ND)
    steps_per_epoch = math.ceil(n_images / batch_size)
    n_steps = steps_per_epoch * run.training.epochs
    order_N = torch.randperm(n_images, generator=seeding.generator(run.seed, "data", epoch)).to(device)
    binarize = seeding.generator(run.seed, "binarization", epoch, device)
    terms: list[Tensor] = []
    state.vae.train()
    state.estimator.train()
    timer = timing.StepTimer(device)
    batches = torch.split(order_N, batch_size)
    for index_B in batches:
        set_temperatures(run, state, steps_per_epoch, n_steps)
        set_learning_rate(state, run.training, n_steps)
        try:
            terms += train_step(state, dataset.train_batch(index_B, binarize), run.training.grad_clip)
        except ValueError as error:
            raise ValueError(f"{error} (step {state.step + 1}, epoch {epoch})") from error
        state.step += 1
        timer.lap()
    step_s, epoch_s = timer.seconds()
    temperatures = {"tau": state.learned_tau.value} if state.learned_tau else state.taus
    for key, tau in temperatures.items():
        setattr(state.estimator, key, float(tau))  # whoever evaluates it needs no tensor
    sizes = torch.tensor([[len(index_B)] for index_B in batches])
    return torch.cat([torch.stack(terms).view(-1, 3).cpu(), sizes], 1), step_s, epoch_s


def set_temperatures(run: RunConfig, state: State, steps_per_epoch: int, n_steps: int) -> None:
    """Give the estimator the temperatures of the next update: the schedule's, or the one that is being learned."""
    if state.learned_tau is not None:
        state.estimator.tau = state.learned_tau.tau()
        return
    values = run.schedule.temperatures(state.step, steps_per_epoch=steps_per_epoch, n_steps=n_steps)
    for key, value in values.items():
        setattr(state.estimator, key, state.taus[key].fill_(value) if key in state.taus else value)


def plain_losses(vae: CategoricalVAE, estimator: Estimator, x_BD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return reconstruction cost and KL of the batch, in nats per example, and the estimator's control loss."""
    logits_BLK = vae.encode(x_BD)
    estimate = estimator(logits_BLK, vae.reconstruction_cost(x_BD), x_BD)  # where estimators differ
    return estimate.cost_B.mean(), kl_divergence(estimator, logits_BLK).mean(), estimate.control_loss


def train_step(state: State, x_BD: Tensor, grad_clip: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Make one update; return reconstruction cost and KL of the batch, in nats per example, and `pulse(…)`."""
    bce, kl, control = state.losses(x_BD)
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    control = control if state.by_control else None
    torch.autograd.backward(bce + kl, inputs=state.by_loss, retain_graph=control is not None)
    if control is not None:
        torch.autograd.backward(control, inputs=state.by_control)
    gradient = pulse(state)
    if grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(state.vae.parameters(), grad_clip)
    for optimizer in state.optimizers:
        optimizer.step()
    return bce.detach().clone(), kl.detach().clone(), gradient  # CUDA graphs write the next losses in the same place


def pulse(state: State) -> Tensor:
    """Return the sum of the gradients of all vectors that are trained: finite exactly as long as they are.

    The biases get every gradient that flows, and are so few that the look costs 0.2 % of a step.
    """
    vectors = [p.grad for p in (*state.by_loss, *state.by_control) if p.ndim < 2 and p.grad is not None]
    return torch.cat([vector.flatten() for vector in vectors]).sum()


def make_optimizer(training: TrainingConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimiser of a run, in its fused form where torch has one."""
    lr, weight_decay = training.lr, training.weight_decay
    match training.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        case "radam":
            return torch.optim.RAdam(parameters, lr=lr, weight_decay=weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=training.momentum, fused=True)


def set_learning_rate(state: State, training: TrainingConfig, n_steps: int) -> None:
    """Set the learning rates of the next update, each a fraction of its first value: a pure function of the step."""
    if training.lr_schedule == "constant":
        return
    progress = state.step / n_steps
    factor = 1 - progress if training.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def epoch_means(losses: Tensor) -> dict[str, float]:
    """Return the means over the examples of an epoch, each batch taken at the weights it was trained on."""
    weight = losses[:, -1].double() / losses[:, -1].sum()
    bce, kl = (losses[:, :2].double() * weight[:, None]).sum(0).tolist()
    return {"train/loss": bce + kl, "train/bce": bce, "train/kl": kl}


def first_non_finite(losses: Tensor) -> tuple[int, str] | None:
    """Return the row of the first loss or gradient that is not finite, and what it is; None if there is none."""
    bad = (~losses.isfinite().all(1)).nonzero()
    if not len(bad):
        return None
    bce, kl, gradient, _ = losses[int(bad[0])].tolist()
    return int(bad[0]), f"loss is {bce + kl}" if not math.isfinite(bce + kl) else f"gradient is {gradient}"


def non_finite_name(metrics: Mapping[str, float]) -> str | None:
    """Return the name of a metric that is not finite, or None."""
    return next((name for name, value in metrics.items() if not math.isfinite(value)), None)
