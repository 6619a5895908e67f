"""Evaluation of a run: validation and test losses, measures, the soft/hard gap, the use of the latents.

Every evaluation draws its noise from the run's own evaluation stream, so it is the same for every estimator of one
seed and leaves the training noise untouched. All values are means over examples.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from harness.config import RunConfig
from harness.tasks.draws import CodeDraws
from harness.tasks.latents import LatentUse
from harness.tasks.splits import Batch, n_examples, parts, split_batch
from harness.training import seeding
from harness.training.state import State

LOSS_NOISE, RELAXED_NOISE, MEASURE_NOISE = -1, -2, -3
"""Noise streams of the final evaluation, besides those of the epochs (1, 2, …) and of the pictures (−4). Drawing more
from one changes no other."""


@torch.no_grad()
def validation_metrics(run: RunConfig, state: State) -> dict[str, float]:
    """Return `val/loss`, its terms and the measures, on the split and with the kind of codes that the run asks for.

    Measures are always of one-hot codes. Also returns `latent/…` and, if the estimator relaxes, `val/soft_hard_gap`:
    the loss with one-hot codes less that with the estimator's own. One of the two is `val/loss`; the other has noise of
    its own.
    """
    batches = split_batch(state.splits.split(run.evaluation.validation_split), run.evaluation.batch_size)
    device, draw = torch.device(run.device), _evaluating(state)
    is_relaxed = run.evaluation.validation_codes == "relaxed"
    with seeding.seeded(run.seed, "gap" if is_relaxed else "evaluation", state.epoch, device=device):
        found = _means(batches, lambda batch: state.task.evaluate(batch, draw))
    terms = {name: found.pop(name) for name in state.task.term_names()}
    relaxed = {}
    if is_relaxed or state.estimator.relaxes:
        with seeding.seeded(run.seed, "evaluation" if is_relaxed else "gap", state.epoch, device=device):
            relaxed = own_terms(state, batches)
    shown = relaxed if is_relaxed else terms
    metrics = {"val/loss": sum(shown.values())}
    metrics |= {f"val/{name}": value for name, value in {**shown, **found}.items()} | _latents(draw)
    if state.estimator.relaxes:
        metrics["val/soft_hard_gap"] = sum(terms.values()) - sum(relaxed.values())
    return metrics


@torch.no_grad()
def test_metrics(run: RunConfig, state: State) -> tuple[dict[str, float], LatentUse | None]:
    """Return the final metrics on the test split, and how the latents are used there.

    `test/loss` (`test/neg_elbo` of the VAE), its terms and the measures are of one-hot codes, of the discrete model;
    `test/relaxed_loss` is the loss that the estimator itself sees (its own codes, at its last τ), which is something
    else if it relaxes; `latent/…` are of the test examples.
    """
    settings, test, device = run.evaluation, state.splits.test, torch.device(run.device)
    draw = _evaluating(state, settings.test_samples, settings.bound_samples)
    batches = split_batch(test, settings.batch_size)
    with seeding.seeded(run.seed, "evaluation", LOSS_NOISE, device=device):
        found = _means(batches, lambda batch: state.task.evaluate(batch, draw))
    loss = sum(found[name] for name in state.task.term_names())
    use = draw.use()
    metrics = {f"test/{state.task.loss_name}": loss} | {f"test/{name}": value for name, value in found.items()}
    with seeding.seeded(run.seed, "evaluation", RELAXED_NOISE, device=device):
        metrics["test/relaxed_loss"] = sum(own_terms(state, batches).values())
    with seeding.seeded(run.seed, "evaluation", MEASURE_NOISE, device=device):
        metrics |= {f"test/{name}": value for name, value in state.task.test_measures(test, draw).items()}
    return metrics | (use.metrics() if use else {}), use


def own_terms(state: State, batches: Iterable[Batch]) -> dict[str, float]:
    """Return the mean terms of the loss as the estimators see it in training: their own codes, their own penalty."""
    return _means(batches, lambda batch: state.task.loss(batch, state.estimators).terms)


def _evaluating(state: State, n_samples: int = 1, bound_samples: int = 1) -> CodeDraws:
    """Put task and estimators into evaluation mode: the running state of these stays as training left it."""
    state.task.eval()
    for estimator in state.estimators.values():
        estimator.eval()
    return CodeDraws(state.estimators, n_samples, bound_samples)


def _latents(draw: CodeDraws) -> dict[str, float]:
    use = draw.use()
    return use.metrics() if use else {}


def _means(batches: Iterable[Batch], terms: Callable[[Batch], Mapping[str, Tensor]]) -> dict[str, float]:
    """Return the means over examples of numbers (B,); a scalar counts for every example of its batch.

    Raises ValueError if a batch was changed: its numbers are those of the data, which later runs use too.
    """
    total, n_seen, names = torch.zeros((), dtype=torch.float64), 0, list[str]()
    for batch in batches:
        versions = _versions(batch)
        found = terms(batch)
        if _versions(batch) != versions:
            raise ValueError("expected an evaluation that leaves its batch as it is, got changed numbers. Copy it.")
        names = list(found)
        n = n_examples(batch)
        sums = [value.sum() if value.ndim else value * n for value in found.values()]
        total = total + torch.stack(sums).cpu().double()
        n_seen += n
    return dict(zip(names, (total / n_seen).tolist(), strict=True))


def _versions(batch: Batch) -> list[int]:
    """Return how often the tensors of a batch were changed in place."""
    return [one._version for one in parts(batch)]
