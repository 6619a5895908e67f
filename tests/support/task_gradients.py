"""The gradient of a task's loss by enumeration of all codes, and how far an estimator's mean is from it."""

import itertools

import torch
from torch import Tensor

from estimators import Estimator
from harness.tasks.splits import Batch
from harness.tasks.task import LAYER, OneLayerTask, total


def enumerated_loss(task: OneLayerTask, batch: Batch, codes_CLK: Tensor | None = None) -> Tensor:
    """Return Σ p(z) cost(z) over codes, by default all, mean over the examples; autograd knows its gradient."""
    probs_BLK = task.logits(batch).softmax(-1)
    if codes_CLK is None:
        codes_CLK = all_codes(task.n_latents, task.n_categories).to(probs_BLK)
    p_CB = (probs_BLK * codes_CLK.unsqueeze(1)).sum(-1).prod(-1)
    cost_CB = task.cost(batch)(codes_CLK.unsqueeze(1).expand(-1, len(probs_BLK), -1, -1))
    return (p_CB * cost_CB).sum(0).mean()


def all_codes(n_latents: int, n_categories: int) -> Tensor:
    """Return all K^L codes (C, L, K)."""
    classes = torch.tensor(list(itertools.product(range(n_categories), repeat=n_latents)))
    return torch.nn.functional.one_hot(classes, n_categories).double()


def gradient(task: OneLayerTask, loss: Tensor) -> Tensor:
    """Return the gradient with respect to all parameters, in one row."""
    found = torch.autograd.grad(loss, list(task.parameters()))
    return torch.cat([one.flatten() for one in found])


def estimated(task: OneLayerTask, batch: Batch, estimator: Estimator) -> Tensor:
    """Return one draw of the gradient of a task's loss, in one row."""
    terms = task.loss(batch, {LAYER: estimator}).terms
    return gradient(task, total([term.mean() for term in terms.values()]))


def largest_z(task: OneLayerTask, batch: Batch, estimator: Estimator, truth: Tensor, n_draws: int = 100) -> float:
    """Return the largest |z| of the mean of draws, each of a whole batch, against the truth, over what varies."""
    torch.manual_seed(0)
    draws = torch.stack([estimated(task, batch, estimator) for _ in range(n_draws)])
    error = draws.std(0) / n_draws**0.5
    varies = error > 1e-9
    torch.testing.assert_close(draws.mean(0)[~varies], truth[~varies], atol=1e-9, rtol=0)
    return float(((draws.mean(0) - truth) / error)[varies].abs().max())
