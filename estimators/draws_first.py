"""Estimators that draw all their codes before they need a cost, and then need nothing but the costs of these codes."""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from estimators.base import Cost, Estimate, Estimator


class Draw(NamedTuple):
    """One-hot codes z_SBLK, and the function from their costs, of shape (S, B), to the estimate."""

    z_SBLK: Tensor
    estimate: Callable[[Tensor], Estimate]


class DrawsFirst(Estimator):
    """An estimator for costs that come from anywhere, such as a simulator. A subclass defines `draw` and no `forward`.

    Values of the cost are enough for the gradient of the logits. Where the costs are differentiable in something else,
    such as the weights of a decoder, that gets its ordinary gradient.
    """

    relaxes = False
    black_box = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Fill in `uses_context`: whether `draw` takes the data behind the logits."""
        super().__init_subclass__(**kwargs)
        cls.uses_context = len(inspect.signature(cls.draw).parameters) > 2  # self, logits, context

    @abstractmethod
    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw codes from these logits; noise comes from torch's default generator of their device.

        A second argument, `context_BX: Tensor | None = None`, is optional: it receives the data behind the logits.
        """

    def forward(self, logits_BLK: Tensor, cost: Cost, context_BX: Tensor | None = None) -> Estimate:
        """Draw, evaluate the cost on the codes, and estimate. Overridden only to need less memory for many codes."""
        context = (context_BX,) if self.uses_context else ()
        z_SBLK, estimate = self.draw(logits_BLK, *context)
        return estimate(self.evaluate(cost, z_SBLK))
