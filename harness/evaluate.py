"""What a trained model is worth: validation losses, the discrete test bounds, the soft/hard gap, pictures.

Every evaluation draws its noise from the run's own evaluation stream, so it is the same for every estimator of one
seed and leaves the training noise untouched. All values are means over images, in nats per example.
"""

import io
import math
from collections.abc import Callable, Iterator

import torch
from PIL import Image as PILImage
from torch import Tensor

from estimators import Estimator
from harness import seeding
from harness.config import RunConfig
from harness.data import Dataset
from harness.vae import CategoricalVAE, kl_to_uniform, one_hot_samples

MAX_DECODED = 2_048
"""Codes decoded at once for bounds: it limits the memory, and keeps the pixels of a chunk in the cache."""

ELBO_NOISE, RELAXED_NOISE, BOUND_NOISE, PICTURE_NOISE = -1, -2, -3, -4
"""Noise streams of the final evaluation, beside those of the epochs (1, 2, …): drawing more in one shifts no other."""


@torch.no_grad()
def validation_metrics(
    run: RunConfig, vae: CategoricalVAE, estimator: Estimator, dataset: Dataset, epoch: int
) -> dict[str, float]:
    """Return `val/loss`, `val/bce`, `val/kl` on the split and with the kind of codes that the run asks for."""
    x_ND = dataset.split(run.evaluation.validation_split)
    relaxed = run.evaluation.validation_codes == "relaxed"
    with seeding.seeded(run.seed, "evaluation", epoch, device=x_ND.device):
        evaluate = training_losses if relaxed else discrete_losses
        bce, kl = evaluate(vae, estimator, x_ND, run.evaluation.batch_size)
    return {"val/loss": bce + kl, "val/bce": bce, "val/kl": kl}


@torch.no_grad()
def test_metrics(run: RunConfig, vae: CategoricalVAE, estimator: Estimator, dataset: Dataset) -> dict[str, float]:
    """Return the final metrics on the test split.

    `test/neg_elbo` with one-hot samples is the bound on the discrete model; `test/relaxed_loss` is the loss that the
    estimator itself sees (its own codes, at its last τ), and no bound if it relaxes; `test/neg_bound` is importance-
    weighted with k = `evaluation.bound_samples`.
    """
    settings, x_ND = run.evaluation, dataset.test_ND
    with seeding.seeded(run.seed, "evaluation", ELBO_NOISE, device=x_ND.device):
        bce, kl = discrete_losses(vae, estimator, x_ND, settings.batch_size, settings.test_samples)
    metrics = {"test/neg_elbo": bce + kl, "test/bce": bce, "test/kl": kl}
    with seeding.seeded(run.seed, "evaluation", RELAXED_NOISE, device=x_ND.device):
        metrics["test/relaxed_loss"] = sum(training_losses(vae, estimator, x_ND, settings.batch_size))
    if settings.bound_samples:
        with seeding.seeded(run.seed, "evaluation", BOUND_NOISE, device=x_ND.device):
            metrics["test/neg_bound"] = neg_bound(vae, estimator, x_ND, settings.bound_samples)
    return metrics


def training_losses(vae: CategoricalVAE, estimator: Estimator, x_ND: Tensor, batch_size: int) -> tuple[float, float]:
    """Return mean (reconstruction cost, KL) as the estimator sees them in training: its own codes, its own KL."""

    def batch(x_BD: Tensor) -> tuple[Tensor, Tensor]:
        logits_BLK = vae.encode(x_BD)
        return estimator(logits_BLK, vae.reconstruction_cost(x_BD), x_BD).cost_B, kl_divergence(estimator, logits_BLK)

    estimator.eval()  # its running state is what training made it
    return _means(vae, batch, x_ND, batch_size)


def discrete_losses(
    vae: CategoricalVAE, estimator: Estimator, x_ND: Tensor, batch_size: int, n_samples: int = 1
) -> tuple[float, float]:
    """Return mean (reconstruction cost, KL) with one-hot codes from the estimator's law: the bound of the model."""

    def batch(x_BD: Tensor) -> tuple[Tensor, Tensor]:
        logits_BLK = estimator.class_logits(vae.encode(x_BD))
        cost_B = vae.reconstruction_cost(x_BD)(one_hot_samples(logits_BLK, n_samples)).mean(0)
        return cost_B, kl_to_uniform(logits_BLK)

    return _means(vae, batch, x_ND, batch_size)


def kl_divergence(estimator: Estimator, logits_BLK: Tensor) -> Tensor:
    """Return the KL (B,) that is trained on: the estimator's own, or else that of its law to the uniform one."""
    own = estimator.kl(logits_BLK)
    return kl_to_uniform(estimator.class_logits(logits_BLK)) if own is None else own


def _means(
    vae: CategoricalVAE, batch: Callable[[Tensor], tuple[Tensor, Tensor]], x_ND: Tensor, batch_size: int
) -> tuple[float, float]:
    vae.eval()
    total = torch.zeros(2, dtype=torch.float64)
    for x_BD in torch.split(x_ND, batch_size):
        total += torch.stack([term_B.sum() for term_B in batch(x_BD)]).cpu().double()
    bce, kl = (total / len(x_ND)).tolist()
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


@torch.no_grad()
def pictures(
    run: RunConfig, vae: CategoricalVAE, estimator: Estimator, dataset: Dataset
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, PNG): the first test images, their reconstructions from one-hot samples, samples of the prior."""
    n = run.evaluation.n_images
    if n == 0:
        return
    x_BD = dataset.test_ND[:n]
    with seeding.seeded(run.seed, "evaluation", PICTURE_NOISE, device=x_BD.device):
        codes = one_hot_samples(estimator.class_logits(vae.encode(x_BD)), 1)[0]
        prior = one_hot_samples(codes.new_zeros(n, vae.n_latents, vae.n_categories), 1)[0]
    yield "originals", png_row(x_BD, dataset.image_shape)
    yield "reconstructions", png_row(torch.sigmoid(vae.decode(codes)), dataset.image_shape)
    yield "prior_samples", png_row(torch.sigmoid(vae.decode(prior)), dataset.image_shape)


def png_row(x_BD: Tensor, image_shape: tuple[int, int]) -> bytes:
    """Return the images side by side as one greyscale PNG, 2 pixels apart."""
    height, width = image_shape
    tiles = torch.nn.functional.pad(x_BD.float().cpu().reshape(-1, height, width), (0, 2))
    row = (tiles.transpose(0, 1).flatten(1)[:, :-2] * 255).round().to(torch.uint8).numpy()
    out = io.BytesIO()
    PILImage.fromarray(row).save(out, format="PNG", optimize=True)
    return out.getvalue()
