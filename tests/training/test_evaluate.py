"""Evaluation against enumeration: the discrete ELBO, the importance-weighted bound, the soft/hard gap."""

import itertools
import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from estimators import REGISTRY, Estimator, build
from harness.config import EvaluationConfig, RunConfig
from harness.datasets.load import load
from harness.tasks.vae import CategoricalVAE
from harness.training import evaluate, seeding
from harness.training.state import start

Make = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def tiny() -> tuple[CategoricalVAE, Tensor]:
    """A model with 9 codes, sharp enough that bounds differ, and images for it."""
    torch.manual_seed(3)
    vae = CategoricalVAE(n_pixels=6, n_latents=2, n_categories=3, hidden=(5,))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(3)
    return vae, (torch.rand(40, 6) > 0.5).float()


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


def losses(
    evaluation: Callable[..., tuple[float, float]],
    vae: CategoricalVAE,
    estimator: Estimator,
    x: Tensor,
    batch_size: int = 40,
    **more: int,
) -> tuple[float, float]:
    return evaluation(vae, estimator, evaluate.encoded(vae, estimator, x, batch_size), **more)


def test_one_hot_elbo_agrees_with_enumeration(tiny: tuple[CategoricalVAE, Tensor]) -> None:
    vae, x = tiny
    torch.manual_seed(0)
    with torch.no_grad():
        bce, kl = losses(evaluate.discrete_losses, vae, build("straight_through"), x, batch_size=7, n_samples=20_000)
    assert bce + kl == pytest.approx(exact(vae, x)[0], abs=0.01)


def test_bound_is_the_elbo_at_one_and_log_likelihood_in_the_limit(tiny: tuple[CategoricalVAE, Tensor]) -> None:
    vae, x = tiny
    neg_elbo, neg_log_p = exact(vae, x)
    assert neg_elbo > neg_log_p + 0.2
    torch.manual_seed(0)
    with torch.no_grad():
        at_one = sum(evaluate.neg_bound(vae, build("straight_through"), x, 1) for _ in range(2000)) / 2000
        at_many = evaluate.neg_bound(vae, build("straight_through"), x, 20_000)
        between = evaluate.neg_bound(vae, build("straight_through"), x, 10)
    assert at_one == pytest.approx(neg_elbo, abs=0.03)
    assert at_many == pytest.approx(neg_log_p, abs=0.01)
    assert neg_log_p < between < neg_elbo


def test_chunks_change_nothing(tiny: tuple[CategoricalVAE, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    vae, x = tiny
    neg_log_p = exact(vae, x)[1]
    monkeypatch.setattr(evaluate, "MAX_DECODED", 300)
    torch.manual_seed(0)
    with torch.no_grad():
        assert evaluate.neg_bound(vae, build("straight_through"), x, 5000) == pytest.approx(neg_log_p, abs=0.02)


def test_relaxed_loss_is_what_the_estimator_sees_and_differs_from_the_discrete_one(
    tiny: tuple[CategoricalVAE, Tensor],
) -> None:
    vae, x = tiny
    with torch.no_grad():
        hard = sum(losses(evaluate.discrete_losses, vae, build("straight_through"), x, n_samples=2000))
        seen = {}
        for name in ("gumbel_softmax", "straight_through"):
            torch.manual_seed(1)
            params = {"tau": 5.0, "n_samples": 2000}
            seen[name] = sum(losses(evaluate.training_losses, vae, build(name, **params), x))
    assert seen["straight_through"] == pytest.approx(hard, abs=0.03)
    assert abs(seen["gumbel_softmax"] - hard) > 0.05


def test_evaluation_noise_belongs_to_the_seed_and_leaves_the_generator_alone(tiny_run: Make) -> None:
    run = tiny_run(evaluation=EvaluationConfig(bound_samples=3, n_images=2, test_samples=2))
    dataset = load(run.data)
    vae = start(run, REGISTRY, dataset.n_pixels, torch.device("cpu")).vae
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = [evaluate.test_metrics(run, vae, build(name), dataset)[0] for name in ("straight_through", "reinforce")]
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("test/neg_elbo", "test/neg_bound"):
        assert found[0][name] == found[1][name]


def test_streams_differ_by_seed_purpose_and_index() -> None:
    streams = get_args(seeding.Stream)
    seeds = {seeding.stream_seed(s, stream, i) for s in range(5) for stream in streams for i in range(5)}
    assert len(seeds) == 5 * len(streams) * 5
