"""Evaluation against enumeration: the discrete ELBO, the loss of the estimator's own codes, the noise."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from small_vae import exact, small_vae

from estimators import REGISTRY
from harness.config import EvaluationConfig, RunConfig
from harness.training import evaluate, seeding
from harness.training.state import start

Make = Callable[..., RunConfig]


def test_one_hot_elbo_agrees_with_enumeration() -> None:
    run, state = small_vae(evaluation=EvaluationConfig(test_samples=20_000, batch_size=7, bound_samples=0))
    metrics, _ = evaluate.test_metrics(run, state)
    neg_elbo = exact(state.task.network(), state.splits.test)[0]
    assert metrics["test/neg_elbo"] == pytest.approx(neg_elbo, abs=0.01)
    assert metrics["test/bce"] + metrics["test/kl"] == pytest.approx(metrics["test/neg_elbo"])


def test_relaxed_loss_is_what_the_estimator_sees_and_differs_from_the_discrete_one() -> None:
    seen = {}
    for name in ("gumbel_softmax", "straight_through"):
        evaluation = EvaluationConfig(test_samples=2000, bound_samples=0)
        run, state = small_vae(name, params={"n_samples": 2000}, tau=5.0, evaluation=evaluation)
        metrics, _ = evaluate.test_metrics(run, state)
        hard, seen[name] = metrics["test/neg_elbo"], metrics["test/relaxed_loss"]
        assert sum(evaluate.own_terms(state, [state.splits.test]).values()) == pytest.approx(seen[name], abs=0.03)
    assert seen["straight_through"] == pytest.approx(hard, abs=0.03)
    assert abs(seen["gumbel_softmax"] - hard) > 0.05


def test_evaluation_noise_belongs_to_the_seed_and_leaves_the_generator_alone(tiny_run: Make) -> None:
    runs = [
        tiny_run(name, evaluation=EvaluationConfig(bound_samples=3, n_images=2, test_samples=2))
        for name in ("straight_through", "reinforce")
    ]
    states = [start(run, REGISTRY, torch.device("cpu")) for run in runs]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = [evaluate.test_metrics(run, state)[0] for run, state in zip(runs, states, strict=True)]
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("test/neg_elbo", "test/neg_bound"):
        assert found[0][name] == found[1][name]


def test_streams_differ_by_seed_purpose_and_index() -> None:
    streams = get_args(seeding.Stream)
    seeds = {seeding.stream_seed(s, stream, i) for s in range(5) for stream in streams for i in range(5)}
    assert len(seeds) == 5 * len(streams) * 5
