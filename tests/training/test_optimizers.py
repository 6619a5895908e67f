"""Optimisers: RAdam by the fused kernel of Adam equals torch's own, and every optimiser of a run is fused."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from harness.config import TrainingConfig
from harness.training.optimizers import learning_rate_factor, make_optimizer, set_learning_rate
from harness.training.radam import FusedRAdam, rectification

SHAPES = ((5, 4), (7,), (3, 3))
N_STEPS = 200


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    source = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, dtype=dtype, generator=source)) for shape in SHAPES]


def gradients(step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    source = torch.Generator().manual_seed(100 + step)
    return [10.0 ** -(step % 4) * torch.randn(shape, dtype=dtype, generator=source) for shape in SHAPES]


def advance(optimizer: torch.optim.Optimizer, step: int, *, grad_clip: float | None = None) -> list[Tensor]:
    """Do one update with a learning rate that changes in every step. Return copies of the parameters."""
    (group,) = optimizer.param_groups
    group["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / N_STEPS))
    for parameter, gradient in zip(group["params"], gradients(step, group["params"][0].dtype), strict=True):
        parameter.grad = gradient
    if grad_clip is not None:
        nn.utils.clip_grad_norm_(group["params"], grad_clip)
    optimizer.step()
    return [parameter.detach().clone() for parameter in group["params"]]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("grad_clip", [None, 0.5])
def test_radam_equals_that_of_torch_in_every_step(weight_decay: float, grad_clip: float | None) -> None:
    theirs = torch.optim.RAdam(parameters(), weight_decay=weight_decay)
    ours = FusedRAdam(parameters(), lr=1e-3, weight_decay=weight_decay)
    for step in range(N_STEPS):
        expected, got = (advance(optimizer, step, grad_clip=grad_clip) for optimizer in (theirs, ours))
        for own, other in zip(got, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-13, msg=f"step {step}")


def test_radam_equals_that_of_torch_with_other_constants() -> None:
    constants = {"betas": (0.8, 0.99), "eps": 1e-2}
    theirs, ours = torch.optim.RAdam(parameters(), **constants), FusedRAdam(parameters(), lr=1e-3, **constants)
    for step in range(50):
        for own, other in zip(advance(ours, step), advance(theirs, step), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-13)


def test_radam_in_single_precision_differs_by_rounding() -> None:
    theirs, ours = torch.optim.RAdam(parameters(torch.float32)), FusedRAdam(parameters(torch.float32), lr=1e-3)
    for step in range(N_STEPS):
        for own, other in zip(advance(ours, step), advance(theirs, step), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_radam_counts_the_updates_of_each_parameter() -> None:
    """A parameter without a gradient is left out, and starts with its own first update."""
    theirs, ours = torch.optim.RAdam(parameters()), FusedRAdam(parameters(), lr=1e-3)
    for optimizer in (theirs, ours):
        for step in range(12):
            (group,) = optimizer.param_groups
            for parameter, gradient in zip(group["params"], gradients(step), strict=True):
                parameter.grad = gradient
            if step < 4 or step == 8:
                group["params"][1].grad = None
            optimizer.step()
    for own, other in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cut", [1, 5, 6, 40])
def test_radam_goes_on_from_its_state_with_the_same_bits(cut: int) -> None:
    whole = FusedRAdam(parameters(), lr=1e-3)
    for step in range(cut):
        advance(whole, step)
    resumed = FusedRAdam(parameters(), lr=1.0)
    state = copy.deepcopy(whole.state_dict())
    with torch.no_grad():
        for own, other in zip(resumed.param_groups[0]["params"], whole.param_groups[0]["params"], strict=True):
            own.copy_(other)
    resumed.load_state_dict(state)
    for step in range(cut, cut + 10):
        expected, got = advance(whole, step), advance(resumed, step)
        assert all(torch.equal(own, other) for own, other in zip(got, expected, strict=True))


def test_radam_divides_by_the_second_moment_from_the_sixth_update_on() -> None:
    assert [rectification(n_updates, 0.999) is None for n_updates in range(8)] == [True] * 5 + [False] * 3
    assert rectification(100_000, 0.999) == pytest.approx(1.0)


def test_radam_takes_no_closure() -> None:
    with pytest.raises(ValueError, match="expected no closure"):
        FusedRAdam(parameters(), lr=1e-3).step(lambda: 0.0)


@pytest.mark.parametrize("name", ["adam", "adamw", "radam", "sgd"])
def test_every_optimizer_of_a_run_is_fused(name: str) -> None:
    optimizer = make_optimizer(TrainingConfig(optimizer=name), parameters())
    assert isinstance(optimizer, FusedRAdam) or optimizer.defaults["fused"] is True


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_a_warm_up_rises_to_the_whole_rate_and_leaves_the_rest_to_the_schedule(kind: str) -> None:
    training = TrainingConfig(epochs=5, lr_schedule=kind, lr_warmup=2)  # of 20 updates, 8
    factors = [learning_rate_factor(training, step, 20) for step in range(20)]
    assert factors[:8] == [(step + 1) / 8 for step in range(8)]
    rest = TrainingConfig(epochs=3, lr_schedule=kind)
    assert factors[8:] == [learning_rate_factor(rest, step, 12) for step in range(12)]
    assert factors[8] == 1.0
    assert factors[19] == pytest.approx(
        {"constant": 1.0, "linear": 1 / 12, "cosine": 0.5 * (1 + math.cos(math.pi * 11 / 12))}[kind]
    )


def test_a_warm_up_scales_the_initial_rate_of_every_optimizer() -> None:
    training = TrainingConfig(epochs=2, lr=0.5, lr_warmup=1)
    optimizers = [make_optimizer(training, parameters()), FusedRAdam(parameters(), lr=0.1)]
    rates = []
    for step in range(8):
        set_learning_rate(optimizers, training, step, 8)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
    assert [own for own, _ in rates] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert [other for _, other in rates] == pytest.approx([own / 5 for own, _ in rates])
