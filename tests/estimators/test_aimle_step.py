"""AIMLE: how λ adapts, what does not move its state, batches that are out of the ordinary.

L=2, K=3 and a cubic cost in which the latents interact, unless stated otherwise.
"""

import copy
import math

import pytest
import torch
from families import NAIVE
from families.adaptive_imle import centred, step_state
from naive_formulas import same_noise, sampled_code, value_and_slope

from estimators import build
from estimators.aimle import LARGEST_STEP, StepLength
from estimators.reference_problem import call, cubic_cost, example_logits, example_weights

COST = cubic_cost(example_weights())


# How λ adapts.


class Loop:
    """The state as lists of what the batches had, and the rule from its definition."""

    def __init__(self, target, rate, decay):
        self.target, self.rate, self.decay = target, rate, decay
        self.beta, self.logs, self.entries = 1.0, [], []

    def average(self, values):
        weights = [self.decay ** (len(values) - 1 - i) for i in range(len(values))]
        return sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)

    def see(self, logits_BLK, cost, seed, n_samples):
        squares, entries = [], []
        rows = []
        for noise_BLK in same_noise(n_samples, logits_BLK, seed):
            for theta_LK, noise_LK in zip(logits_BLK, noise_BLK, strict=True):
                slope_LK = centred(value_and_slope(cost, sampled_code(theta_LK, noise_LK))[1])
                rows += list(zip(theta_LK + noise_LK, slope_LK, strict=True))
        squares = [(slope_K**2).mean().item() for _, slope_K in rows]
        present = sum(squares) / len(squares)
        lam = self.beta / math.exp((self.average(self.logs) if self.logs else math.log(present)) / 2)
        entries = [2 * int((x_K + lam * g_K).argmax() != (x_K - lam * g_K).argmax()) for x_K, g_K in rows]
        self.logs.append(math.log(present))
        self.entries.append(sum(entries) / len(entries))
        self.beta *= math.exp(self.rate if self.average(self.entries) < self.target else -self.rate)


def follows_the_loop(kind=StepLength, target=0.9, rate=0.3, decay=0.7, n_samples=2):
    """Return whether the state and the gradients of ten batches are those of the loop; the cost has other scales."""
    estimator, loop = build("aimle", n_samples=n_samples), Loop(target, rate, decay)
    estimator.step = kind(target, rate, decay)
    estimator.double()
    for seed in range(10):
        logits_BLK = example_logits(5) * (1 + seed % 3)
        expected_BLK = NAIVE["aimle"](estimator, logits_BLK, scale(seed), seed=seed)
        found_BLK = call(estimator, logits_BLK, scale(seed), seed)[1]
        loop.see(logits_BLK, scale(seed), seed, n_samples)
        pairs = [(found_BLK, expected_BLK)]
        pairs += [tuple(torch.tensor([found, wanted], dtype=torch.float64)) for found, wanted in (
            (step_state(estimator)["beta"], loop.beta),
            (step_state(estimator)["log_square"] / step_state(estimator)["weight"], loop.average(loop.logs)),
            (step_state(estimator)["nonzero"] / step_state(estimator)["weight"], loop.average(loop.entries)),
        )]  # fmt: skip
        if not all(torch.allclose(found, wanted, rtol=1e-9, atol=1e-12) for found, wanted in pairs):
            return False
    return True


def scale(seed):
    return lambda z: (1 + seed) ** 2 * COST(z)


@pytest.mark.parametrize("settings", [{}, {"target": 0.25, "decay": 0.0, "n_samples": 1}, {"rate": 1.5, "decay": 0.99}])
def test_the_state_follows_the_loop(settings):
    assert follows_the_loop(**settings)


class WrongDirection(StepLength):
    def update(self, square, nonzero, count):
        super().update(square, nonzero, count)
        self.beta.copy_(1 / self.beta)


class BetaByAddition(StepLength):
    """As in the authors' code."""

    def update(self, square, nonzero, count):
        before = self.beta.clone()
        super().update(square, nonzero, count)
        self.beta.copy_(before + self.rate * (self.beta - before).sign())


class EachLatentOnce(StepLength):
    """One entry for each pair that differs, where it has two."""

    def update(self, square, nonzero, count):
        super().update(square, nonzero / 2, count)


class PresentBatch(StepLength):
    """λ from the present batch always: its examples change each other's λ."""

    def lam(self, square):
        return self.beta / square.sqrt()


class UpdatedBeforeUse(StepLength):
    def lam(self, square):
        mixed = self.decay * self.log_square + (1 - self.decay) * square.log()
        return self.beta / (mixed / (self.decay * self.weight + 1 - self.decay) / 2).exp()


class MeanOfSquares(StepLength):
    """Not of their logarithms: one batch with a larger slope decides for long."""

    def update(self, square, nonzero, count):
        mixed = self.decay * self.log_square.exp() + (1 - self.decay) * square
        super().update(square, nonzero, count)
        self.log_square.copy_(mixed.log())


class NotCorrectedForItsStart(StepLength):
    def lam(self, square):
        return self.beta / torch.where(self.weight > 0, self.log_square, square.log()).div(2).exp()


class PresentEntries(StepLength):
    """β follows the entries of the present batch alone."""

    def update(self, square, nonzero, count):
        self.nonzero.copy_(torch.where(nonzero < self.target, -1e9, 1e9))
        super().update(square, nonzero, count)


@pytest.mark.parametrize("wrong", StepLength.__subclasses__())
def test_a_wrong_rule_does_not_follow_the_loop(wrong):
    assert not follows_the_loop(wrong)


@pytest.mark.parametrize("target", [0.2, 1.0, 1.8])
def test_the_entries_of_the_difference_come_to_their_target(target):
    estimator, logits_BLK = build("aimle", target=target, rate=0.05), example_logits(500).float()
    cost, found = cubic_cost(example_weights().float()), []
    for seed in range(200):
        gradient_BLK = call(estimator, logits_BLK, cost, seed)[1]
        found.append((gradient_BLK != 0).float().sum(-1).mean().item())
    assert abs(sum(found[-100:]) / 100 - target) < 0.05
    assert abs(found[0] - target) > 0.1


def test_a_step_that_is_never_enough_stays_finite():
    """One class has next to all of the probability: no step that leads to another would say anything."""
    estimator, logits_BLK = build("aimle", rate=10.0), torch.tensor([[[1e9, 0.0, 0.0]] * 2])
    gradients = [call(estimator, logits_BLK, cubic_cost(example_weights().float()), seed)[1] for seed in range(9)]
    assert estimator.step.beta == LARGEST_STEP
    assert all((gradient_BLK == 0).all() for gradient_BLK in gradients)


# What does not move the state.


def moved():
    """An estimator that has learned, and a copy of its state."""
    estimator = build("aimle")
    for seed in range(5):
        call(estimator, example_logits(), COST, seed)
    return estimator, step_state(estimator)


def test_the_state_moves_in_the_backward_pass_in_training_alone():
    estimator, before = moved()
    with torch.no_grad():
        estimator(example_logits(), COST)
    estimator(example_logits().requires_grad_(), COST)
    call(estimator.eval(), example_logits(), COST)
    assert step_state(estimator) == before
    call(estimator.train(), example_logits(), COST)
    assert all(value != before[key] for key, value in step_state(estimator).items())


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_slopes_of_zero_and_of_no_number_do_not_move_it(bad):
    estimator, before = moved()
    call(estimator, example_logits(), lambda z: (z * torch.tensor([bad, 0.0, 0.0])).sum((-1, -2)))
    call(estimator, example_logits(0), COST)
    assert step_state(estimator) == before


def test_latents_and_examples_without_a_slope_do_not_count():
    """Two more examples with weight 0, and a third latent of which the cost does not depend."""
    few, many = build("aimle").double(), build("aimle").double()
    logits_BLK = example_logits(6, 3)
    for seed in range(5):
        torch.manual_seed(seed)
        noise_state = torch.get_rng_state()
        for estimator, n_examples in ((few, 4), (many, 6)):
            torch.set_rng_state(noise_state)
            leaf_BLK = logits_BLK[:n_examples].clone().requires_grad_()
            cost_B = estimator(leaf_BLK, lambda z: COST(z[..., :2, :])).cost_B
            torch.autograd.grad((cost_B * torch.tensor([1.0] * 4 + [0.0] * (n_examples - 4))).sum(), leaf_BLK)
    assert step_state(few) == pytest.approx(step_state(many))
    assert step_state(few)["weight"] > 0


def test_a_copy_goes_on_alone():
    estimator, before = moved()
    twin = copy.deepcopy(estimator)
    call(twin, example_logits(), COST)
    assert step_state(estimator) == before
    call(estimator, example_logits(), COST)
    assert step_state(estimator) == step_state(twin)


def test_the_state_is_in_the_state_dict_and_not_trained():
    estimator, before = moved()
    assert list(estimator.parameters()) == []
    assert estimator.control_optimizer() is None
    other = build("aimle")
    other.load_state_dict(estimator.state_dict())
    assert step_state(other) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_state_stays_in_float32(dtype):
    """Squares of slopes below 2e-4 are 0 in float16."""
    estimator, before = moved()
    estimator.to(dtype)
    assert {buffer.dtype for buffer in estimator.buffers()} == {torch.float32}
    assert step_state(estimator) == before
    assert estimator.double().step.beta.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_its_state_is_float32_whatever_the_default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        estimator = build("aimle")
    finally:
        torch.set_default_dtype(before)
    assert {buffer.dtype for buffer in estimator.step.buffers()} == {torch.float32}


# Batches that are out of the ordinary.


@pytest.mark.parametrize("size", [1e4, 1e12, 1e19, 1e30])
def test_one_batch_of_another_size_is_forgotten_soon_even_if_it_overflows(size):
    estimator, logits_BLK, cost = build("aimle"), example_logits(200).float(), cubic_cost(example_weights().float())
    for seed in range(20):
        call(estimator, logits_BLK, cost, seed)
    usual = call(estimator, logits_BLK, cost, 20)[1].abs().sum()
    call(estimator, logits_BLK, lambda z: size * cost(z), 21)
    after = [call(estimator, logits_BLK, cost, seed)[1] for seed in range(22, 52)]
    assert all(gradient_BLK.isfinite().all() for gradient_BLK in after)
    assert after[0].abs().sum() > 0
    assert 0.8 < after[-1].abs().sum() / usual < 1.25
