"""Unbiased where it counts: on the logits of a trained encoder, with its decoder's reconstruction cost.

Two small VAEs are trained on the embedded digits. The logits of the image whose codes are least certain, and its cost,
are the problem, in float64. The mean of many draws is held against enumeration: |z| < 5 for every entry.
"""

from collections.abc import Callable

import pytest
import torch
from estimator_cases import UNBIASED, make
from torch import Tensor

from estimators.base import Cost
from estimators.reference_problem import MAX_Z, accepts, run, truth, z_scores
from harness import train
from harness.config import DataConfig, EstimatorConfig, ModelConfig, RunConfig, TrainingConfig
from harness.schedules import NoSchedule
from harness.training.state import start

SHAPES = ((3, 4), (5, 2))
N_DRAWS = 4_000
Problem = tuple[Tensor, Cost]


@pytest.fixture(scope="module")
def trained() -> Callable[[tuple[int, int]], Problem]:
    problems = {shape: _train(*shape) for shape in SHAPES}
    return problems.__getitem__


def _train(n_latents: int, n_categories: int) -> Problem:
    config = RunConfig(
        estimator=EstimatorConfig(name="rloo"),
        schedule=NoSchedule(),
        data=DataConfig(train_size=1000),
        model=ModelConfig(n_latents=n_latents, n_categories=n_categories, hidden=(32,)),
        training=TrainingConfig(epochs=2, batch_size=20),
    )
    from estimators import REGISTRY

    state = start(config, REGISTRY, torch.device("cpu"))
    torch.manual_seed(0)
    for epoch in range(1, config.training.epochs + 1):
        assert train.train_epoch(config, state, epoch).divergence(state) is None
    vae = state.task.network().double().eval()
    for parameter in vae.parameters():
        parameter.requires_grad_(requires_grad=False)
    x_ND = state.splits.test.double()
    logits_NLK = vae.encode(x_ND)
    entropy_NL = torch.distributions.Categorical(logits=logits_NLK).entropy()
    chosen = int(entropy_NL.amin(-1).argmax())
    assert entropy_NL[chosen].min() > 0.1  # not collapsed to one code, where every gradient is 0
    assert (logits_NLK.amax(-1) - logits_NLK.amin(-1)).max() > 3  # nor untrained
    logits_LK, x_BD = logits_NLK[chosen], x_ND[chosen : chosen + 1]
    return logits_LK, vae.reconstruction_cost(x_BD)


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_on_the_logits_of_a_trained_encoder(name, trained):
    estimator = make(name)
    shape = next(shape for shape in SHAPES if accepts(estimator, *shape))
    logits_LK, cost = trained(shape)
    if estimator.objective == "bound":
        estimator = make(name, n_samples=2)  # 64² pairs of codes are enumerated
    enumerates = estimator.n_cost_evals(*shape) == shape[1] ** shape[0]
    cost_N, gradient_NLK = run(estimator, logits_LK.expand(2 if enumerates else N_DRAWS, -1, -1), cost)
    expected, gradient_LK = truth(estimator, logits_LK, cost)
    assert z_scores(cost_N, expected).abs() < MAX_Z
    assert z_scores(gradient_NLK, gradient_LK).abs().max() < MAX_Z


def test_straight_through_is_found_biased_on_trained_logits(trained):
    """The positive control."""
    logits_LK, cost = trained(SHAPES[0])
    _, gradient_NLK = run(make("straight_through"), logits_LK.expand(N_DRAWS, -1, -1), cost)
    _, gradient_LK = truth(make("straight_through"), logits_LK, cost)
    assert z_scores(gradient_NLK, gradient_LK).abs().max() > 2 * MAX_Z
