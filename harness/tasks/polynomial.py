"""Polynomial programming: the smallest problem whose optimum is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from estimators.arguments import check_count, check_number
from harness.measures import Measure
from harness.tasks.splits import Batch, NoData, n_examples
from harness.tasks.task import Cost, Draw, OneLayerTask

if TYPE_CHECKING:
    from harness.config import DataConfig


class Polynomial(OneLayerTask):
    """Polynomial programming: many independent variables, each to be set to its better value.

    Minimises  E ‖v(z) − c‖ₚᵖ / L  over the logits of L variables, v_k = k/(K−1) the number that class k stands for.
    Optimum     min_k |v_k − c|ᵖ, every variable at its nearest value; 0.45ᵖ with the defaults.
    Measures    what is left to the optimum, exactly: of the expectation, and of the most probable code. The second is
                0 as soon as every variable prefers its better value.
    Reference   Liu, Dong, Liu, Yu, Gao (2023), "Bridging Discrete and Backpropagation: Straight-Through and Beyond",
                arXiv:2304.08612, section on polynomial programming; one variable and p = 2 is the toy problem of Tucker
                et al. (2017), "REBAR", arXiv:1703.07370.
    Departures  the initial logits are uniform on ±0.01, so that no class is tied with another; K > 2 is ours.

    p              the power, at least 1
    target         c
    n_latents      L
    n_categories   K

    Raises ValueError for others.
    """

    name = "polynomial"
    reference = 'Liu, Dong, Liu, Yu, Gao (2023), "Bridging Discrete and Backpropagation", arXiv:2304.08612'
    measures = (
        Measure("gap", "expected cost above the optimum", band=0.001),
        Measure("mode_gap", "cost of the most probable code above the optimum", band=0.001),
    )

    def __init__(self, *, p: float = 2.0, target: float = 0.45, n_latents: int = 128, n_categories: int = 2) -> None:
        super().__init__()
        p = check_number(self.name, "p", p, above=0)
        if p < 1:
            raise ValueError(f"{self.name}: expected p >= 1, got {p:g}. Below 1 the slope at c is infinite.")
        target = check_number(self.name, "target", target, above=float("-inf"))
        self.n_latents = check_count(self.name, "n_latents", n_latents)
        self.n_categories = check_count(self.name, "n_categories", n_categories, at_least=2)
        self.p, self.target = p, target
        self.logits_LK = nn.Parameter(torch.empty(n_latents, n_categories).uniform_(-0.01, 0.01))
        self.values_K: Tensor
        self.register_buffer("values_K", torch.linspace(0.0, 1.0, n_categories))

    @property
    def optimum(self) -> float:
        """The smallest cost of any code."""
        return float(self._distance(self.values_K).min())

    def data(self, config: DataConfig | None) -> NoData:
        """Return epochs of 200 updates, as the paper."""
        return NoData(steps_per_epoch=200)

    def logits(self, batch: Batch) -> Tensor:
        """Return the same logits for every draw of a batch."""
        return self.logits_LK.expand(n_examples(batch), -1, -1)

    def cost(self, batch: Batch) -> Cost:
        """Return the mean of |v − c|ᵖ over the variables. The value v of a soft code is the mean of its values."""
        return lambda z_SBLK: self._distance(z_SBLK @ self.values_K).mean(-1)

    def evaluate(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Return the exact expectation under the law of the codes as `cost`, and the measures."""
        logits_BLK, cost_K = self.logits(batch), self._distance(self.values_K)
        draw(logits_BLK)  # counts how the latents are used
        cost_B = (draw.law(logits_BLK).softmax(-1) @ cost_K).mean(-1)
        mode_B = (draw.mode(logits_BLK)[0] @ cost_K).mean(-1)
        return {"cost": cost_B, "gap": cost_B - cost_K.min(), "mode_gap": mode_B - cost_K.min()}

    def _distance(self, value: Tensor) -> Tensor:
        return (value - self.target).abs().pow(self.p)
