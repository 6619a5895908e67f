"""A VAE with 9 codes, sharp enough that its bounds differ, and its exact values by enumeration."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from estimators import REGISTRY
from harness.config import EstimatorConfig, EvaluationConfig, ModelConfig, RunConfig
from harness.schedules import Constant, NoSchedule
from harness.tasks import Splits
from harness.tasks.vae import CategoricalVAE
from harness.training.state import State, start


def small_vae(
    name: str = "straight_through",
    params: dict[str, Any] | None = None,
    tau: float = 1.0,
    evaluation: EvaluationConfig | None = None,
) -> tuple[RunConfig, State]:
    """A run and its state, on 40 images of 6 black or white pixels."""
    run = RunConfig(
        estimator=EstimatorConfig(name=name, params=params or {}),
        schedule=Constant(tau=tau) if REGISTRY[name].uses_tau else NoSchedule(),
        model=ModelConfig(n_latents=2, n_categories=3, hidden=(5,)),
        evaluation=evaluation or EvaluationConfig(),
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vae = CategoricalVAE(n_pixels=6, n_latents=2, n_categories=3, hidden=(5,))
        x_BD = (torch.rand(40, 6) > 0.5).float()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(3)
    state = start(run, REGISTRY, torch.device("cpu"), Splits(train=x_BD, test=x_BD))
    state.task.network().load_state_dict(vae.state_dict())
    return run, state


def enumerate_codes() -> Tensor:
    """All 9 codes, shape (9, 1, 2, 3)."""
    index = torch.tensor(list(itertools.product(range(3), repeat=2)))
    return F.one_hot(index, 3).float().unsqueeze(1)


@torch.no_grad()
def exact(vae: CategoricalVAE, x: Tensor) -> tuple[float, float]:
    """(−ELBO, −log p(x)) by summing over every code, with distributions from torch rather than our own code."""
    log_q, log_p = [], []
    posterior = torch.distributions.OneHotCategorical(logits=vae.encode(x))
    for z in enumerate_codes():
        codes = z.expand(len(x), 2, 3)
        pixels = torch.distributions.Bernoulli(logits=vae.decode(codes))
        log_q.append(posterior.log_prob(codes).sum(-1))
        log_p.append(pixels.log_prob(x).sum(-1) - 2 * math.log(3))
    q, joint = torch.stack(log_q), torch.stack(log_p)
    return (q.exp() * (q - joint)).sum(0).mean().item(), -joint.logsumexp(0).mean().item()
