"""RAdam with torch's fused Adam kernel.

With m and v the moments, c₁ = 1 − β₁ᵗ and c₂ = 1 − β₂ᵗ, torch's RAdam changes a parameter from the sixth update on by

    −lr · r · (m / c₁) · √c₂ / (√v + ε),        r the rectification of that update,

and its fused Adam by −lr* · (m / c₁) / (√v / √c₂ + ε*). They are equal for lr* = lr · r and ε* = ε / √c₂. Before, RAdam
is −lr · m / c₁, which torch's own function does.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.radam import radam


class _Moments(NamedTuple):
    """Parameters that were updated equally often, and what belongs to them."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]


@final
class FusedRAdam(torch.optim.Optimizer):
    """`torch.optim.RAdam` to rounding, at the cost of `torch.optim.Adam(fused=True)`.

    Liu, Jiang, He, Chen, Liu, Gao and Han (2020), "On the Variance of the Adaptive Learning Rate and Beyond",
    arXiv:1908.03265, algorithm 2, where the limit of the length that torch compares with 5 is 4. Weight decay is added
    to the gradient, as in torch's.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. Raises ValueError for a closure, which nothing here uses."""
        if closure is not None:
            raise ValueError("FusedRAdam.step: expected no closure, got one.")
        for group in self.param_groups:
            for n_updates, moments in self._by_updates(group["params"]).items():
                _update(moments, n_updates, group)

    def _by_updates(self, parameters: Iterable[Tensor]) -> dict[int, _Moments]:
        """Count an update of each parameter with a gradient. Return them by how often they were updated before."""
        found: dict[int, _Moments] = defaultdict(lambda: _Moments([], [], [], []))
        for parameter in parameters:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state |= {"n_updates": 0, "exp_avg": torch.zeros_like(parameter)}
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            entry = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
            for values, value in zip(found[state["n_updates"]], entry, strict=True):
                values.append(value)
            state["n_updates"] += 1
        return found


def rectification(n_updates: int, beta2: float) -> float | None:
    """Return r of the update after `n_updates` others; None where RAdam does not divide by the second moment."""
    t = n_updates + 1
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * t * beta2**t / (1 - beta2**t)
    if length <= 5:
        return None
    return math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))


def _update(moments: _Moments, n_updates: int, group: dict[str, Any]) -> None:
    """Do one update of parameters that were updated `n_updates` times before."""
    beta1, beta2 = group["betas"]
    settings = {"beta1": beta1, "beta2": beta2, "weight_decay": group["weight_decay"], "maximize": False}
    r = rectification(n_updates, beta2)
    steps_device = moments.parameters[0].device if r else "cpu"
    steps = list(torch.full((len(moments.parameters),), float(n_updates), device=steps_device).unbind())
    if r is None:
        radam(*moments, steps, lr=group["lr"], eps=group["eps"], **settings)
        return
    eps = group["eps"] / math.sqrt(1 - beta2 ** (n_updates + 1))
    adam(*moments, [], steps, fused=True, amsgrad=False, lr=group["lr"] * r, eps=eps, **settings)
