"""A temperature that is trained: τ = exp(log τ), with an optimiser of its own.

It learns through the loss, as Jang, Gu, Poole (2017), arXiv:1611.01144, section 2.1, propose; or through the variance
of the gradient, by an estimator's `control_loss`, as REBAR does (Tucker et al. 2017, arXiv:1703.07370, section 3.2).
"""

import math
from typing import final

import torch
from torch import Tensor

from estimators import Estimator
from estimators.reference_problem import cost_for, logits_for
from harness.schedules import Learned


@final
class LearnedTau:
    """log τ as a parameter on a device, and Adam over it."""

    def __init__(self, schedule: Learned, device: torch.device) -> None:
        self.log_tau = torch.nn.Parameter(torch.tensor(math.log(schedule.initial), device=device))
        self.optimizer = torch.optim.Adam([self.log_tau], lr=schedule.lr)

    def tau(self) -> Tensor:
        """Return τ as a tensor that the gradient flows through."""
        return self.log_tau.exp()

    @property
    def value(self) -> float:
        """τ as a number. Reading it waits for the device, so read it once an epoch."""
        return math.exp(self.log_tau.item())


def check_learns(estimator: Estimator, schedule: Learned) -> None:
    """Raise ValueError unless τ receives the gradient that the schedule learns from, in one trial step."""
    log_tau = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    estimator.tau = log_tau.exp()
    estimate = estimator.train()(logits_for(estimator).requires_grad_(), cost_for(estimator))
    target = estimate.cost_B.sum() if schedule.through == "loss" else estimate.control_loss
    reached = target is not None and torch.autograd.grad(target, log_tau, allow_unused=True)[0] is not None
    if not reached:
        source = "reported cost" if schedule.through == "loss" else "control_loss"
        raise ValueError(
            f"{estimator.name}: expected a {source} with a gradient for tau, for a schedule learned through"
            f" {schedule.through}, got none. Use another kind of schedule."
        )
