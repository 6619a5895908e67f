"""Evaluation of a model: validation losses, discrete test bounds, the soft/hard gap, the use of latents.

Every evaluation draws its noise from the run's own evaluation stream, so it is the same for every estimator of one
seed and leaves the training noise untouched. All values are means over images, in nats per example.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from estimators import Estimator
from harness.config import RunConfig
from harness.datasets.load import Dataset
from harness.training import seeding
from harness.training.latents import LatentUse, latent_use
from harness.training.vae import CategoricalVAE, kl_to_uniform, one_hot_samples

MAX_DECODED = 2_048
"""Codes decoded at once for bounds: this limits memory, and keeps the pixels of a chunk in the cache."""

ELBO_NOISE, RELAXED_NOISE, BOUND_NOISE = -1, -2, -3
"""Noise streams of the final evaluation, besides those of the epochs (1, 2, …) and of the pictures (−4). Drawing more
from one changes no other."""


class Encoded(NamedTuple):
    """Images, the output of the encoder, and the logits of the law of their one-hot codes (`class_logits`)."""

    x_BD: Tensor
    outputs_BLH: Tensor
    logits_BLK: Tensor


@torch.no_grad()
def validation_metrics(
    run: RunConfig, vae: CategoricalVAE, estimator: Estimator, dataset: Dataset, epoch: int
) -> dict[str, float]:
    """Return `val/loss`, `val/bce`, `val/kl` on the split and with the kind of codes that the run asks for.

    From the same encodings it also returns `latent/…` and, if the estimator relaxes, `val/soft_hard_gap`: the loss with
    one-hot codes less that with the estimator's own. One of the two is `val/loss`; the other has noise of its own.
    """
    x_ND = dataset.split(run.evaluation.validation_split)
    relaxed = run.evaluation.validation_codes == "relaxed"
    batches = encoded(vae, estimator, x_ND, run.evaluation.batch_size)
    chosen, other = (training_losses, discrete_losses) if relaxed else (discrete_losses, training_losses)
    with seeding.seeded(run.seed, "evaluation", epoch, device=x_ND.device):
        bce, kl = chosen(vae, estimator, batches)
    metrics = {"val/loss": bce + kl, "val/bce": bce, "val/kl": kl} | use_on_images(batches).metrics()
    if estimator.relaxes:
        with seeding.seeded(run.seed, "gap", epoch, device=x_ND.device):
            gap = bce + kl - sum(other(vae, estimator, batches))
        metrics["val/soft_hard_gap"] = -gap if relaxed else gap
    return metrics


@torch.no_grad()
def test_metrics(
    run: RunConfig, vae: CategoricalVAE, estimator: Estimator, dataset: Dataset
) -> tuple[dict[str, float], LatentUse]:
    """Return the final metrics on the test split, and how the latents are used there.

    `test/neg_elbo` with one-hot samples is the bound on the discrete model; `test/relaxed_loss` is the loss that the
    estimator itself sees (its own codes, at its last τ), and no bound if it relaxes; `test/neg_bound` is importance-
    weighted with k = `evaluation.bound_samples`; `latent/…` are of the test images.
    """
    settings, x_ND = run.evaluation, dataset.test_ND
    batches = encoded(vae, estimator, x_ND, settings.batch_size)
    with seeding.seeded(run.seed, "evaluation", ELBO_NOISE, device=x_ND.device):
        bce, kl = discrete_losses(vae, estimator, batches, settings.test_samples)
    metrics = {"test/neg_elbo": bce + kl, "test/bce": bce, "test/kl": kl}
    with seeding.seeded(run.seed, "evaluation", RELAXED_NOISE, device=x_ND.device):
        metrics["test/relaxed_loss"] = sum(training_losses(vae, estimator, batches))
    if settings.bound_samples:
        with seeding.seeded(run.seed, "evaluation", BOUND_NOISE, device=x_ND.device):
            metrics["test/neg_bound"] = neg_bound(vae, estimator, x_ND, settings.bound_samples)
    use = use_on_images(batches)
    return metrics | use.metrics(), use


def encoded(vae: CategoricalVAE, estimator: Estimator, x_ND: Tensor, batch_size: int) -> list[Encoded]:
    """Encode images once for every evaluation, in batches. All N·L·K logits are kept in memory."""
    vae.eval()
    outputs = ((x_BD, vae.encode(x_BD)) for x_BD in torch.split(x_ND, batch_size))
    return [Encoded(x_BD, outputs_BLH, estimator.class_logits(outputs_BLH)) for x_BD, outputs_BLH in outputs]


def use_on_images(batches: Sequence[Encoded]) -> LatentUse:
    """Return how the latents are used on these images."""
    return latent_use(batch.logits_BLK for batch in batches)


def training_losses(vae: CategoricalVAE, estimator: Estimator, batches: Sequence[Encoded]) -> tuple[float, float]:
    """Return mean (reconstruction cost, KL) as the estimator sees them in training: its own codes, its own KL."""

    def terms(batch: Encoded) -> tuple[Tensor, Tensor]:
        cost_B = estimator(batch.outputs_BLH, vae.reconstruction_cost(batch.x_BD), batch.x_BD).cost_B
        own_B = estimator.kl(batch.outputs_BLH)
        return cost_B, kl_to_uniform(batch.logits_BLK) if own_B is None else own_B

    estimator.eval()  # its running state stays as training left it
    return _means(terms, batches)


def discrete_losses(
    vae: CategoricalVAE, estimator: Estimator, batches: Sequence[Encoded], n_samples: int = 1
) -> tuple[float, float]:
    """Return mean (reconstruction cost, KL) with one-hot codes from the estimator's law: the bound of the model."""

    def terms(batch: Encoded) -> tuple[Tensor, Tensor]:
        cost_B = vae.reconstruction_cost(batch.x_BD)(one_hot_samples(batch.logits_BLK, n_samples)).mean(0)
        return cost_B, kl_to_uniform(batch.logits_BLK)

    return _means(terms, batches)


def kl_divergence(estimator: Estimator, logits_BLK: Tensor) -> Tensor:
    """Return the KL (B,) that is trained on: the estimator's own, or else that of its law to the uniform one."""
    own = estimator.kl(logits_BLK)
    return kl_to_uniform(estimator.class_logits(logits_BLK)) if own is None else own


def _means(terms: Callable[[Encoded], tuple[Tensor, Tensor]], batches: Sequence[Encoded]) -> tuple[float, float]:
    total = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        total += torch.stack([term_B.sum() for term_B in terms(batch)]).cpu().double()
    bce, kl = (total / sum(len(batch.x_BD) for batch in batches)).tolist()
    return bce, kl


def neg_bound(vae: CategoricalVAE, estimator: Estimator, x_ND: Tensor, k: int) -> float:
    """Return the importance-weighted bound −E log (1/k) Σ p(x, z)/q(z|x) over k codes.

    k = 1 is the negative ELBO with a sampled KL; the bound falls towards −log p(x) as k grows. Burda, Grosse and
    Salakhutdinov (2016), "Importance weighted autoencoders", arXiv:1509.00519, eq. (8).
    """
    total = 0.0
    for x_BD in torch.split(x_ND, max(1, MAX_DECODED // k)):
        logits_BLK = estimator.class_logits(vae.encode(x_BD))
        chunks = [min(MAX_DECODED, k - done) for done in range(0, k, MAX_DECODED)]
        log_weights = torch.cat([log_weight(vae, x_BD, logits_BLK, n) for n in chunks])
        total -= (log_weights.cpu().double().logsumexp(0) - math.log(k)).sum().item()
    return total / len(x_ND)


def log_weight(vae: CategoricalVAE, x_BD: Tensor, logits_BLK: Tensor, n_samples: int) -> Tensor:
    """Return log p(x|z) + log p(z) − log q(z|x) of codes drawn from q, shape (S, B)."""
    z_SBLK = one_hot_samples(logits_BLK, n_samples)
    log_q_SB = (z_SBLK * (logits_BLK - logits_BLK.logsumexp(-1, keepdim=True))).sum((-2, -1))
    log_prior = -vae.n_latents * math.log(vae.n_categories)
    return -vae.reconstruction_cost(x_BD)(z_SBLK) + log_prior - log_q_SB
