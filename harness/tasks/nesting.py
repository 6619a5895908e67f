"""Two stochastic layers: the estimate of the deeper layer is part of the cost of the shallower one.

Letters: S and T samples of the first and of the second layer, B examples, L latents, K classes; N = S·B.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from estimators import Cost, Estimator


class NestedCost:
    """The cost of the codes of a layer: an estimate of the expected cost of the layer below it.

    The S samples become examples of the estimator below. It is called once for each call of the cost, so an estimator
    above that evaluates its cost several times, or on soft codes, draws new codes below each time.

    estimator  that of the layer below
    logits     z_SBLK of the layer above -> logits (S, B, L, H) of the layer below
    cost       codes (T, S, B, L, K) of the layer below -> (T, S, B)
    context_BX the data of the examples, for estimators that use it
    """

    def __init__(
        self,
        estimator: Estimator,
        logits: Callable[[Tensor], Tensor],
        cost: Cost,
        context_BX: Tensor | None = None,
    ) -> None:
        self.estimator, self.logits, self.cost, self.context_BX = estimator, logits, cost, context_BX
        self.control_losses: list[Tensor] = []
        """Those of the estimator below, one for each call, to be added to that of the estimator above."""

    def __call__(self, z_SBLK: Tensor) -> Tensor:
        """Return the costs (S, B)."""
        logits_SBLH = self.logits(z_SBLK)
        batch = logits_SBLH.shape[:2]
        context_NX = None if self.context_BX is None else self.context_BX.expand(batch[0], -1, -1).flatten(0, 1)

        def cost(z_TNLK: Tensor) -> Tensor:
            return self.cost(z_TNLK.view(len(z_TNLK), *batch, *z_TNLK.shape[2:])).flatten(1)

        estimate = self.estimator(logits_SBLH.flatten(0, 1), cost, context_NX)
        if estimate.control_loss is not None and estimate.control_loss.requires_grad:
            self.control_losses.append(estimate.control_loss)
        return estimate.cost_B.view(batch)


def added_control_losses(losses: Sequence[Tensor | None]) -> Tensor | None:
    """Return the sum of the control losses that there are, None if there is none."""
    found = [loss for loss in losses if loss is not None]
    return torch.stack(found).sum() if found else None
