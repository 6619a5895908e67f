"""An estimator whose gradient stops being finite in the middle of training."""

from torch import Tensor

from estimators import Cost, Estimate, Estimator


class BadSlope(Estimator):
    """Costs what it costs, but from its third call on its gradient is not finite."""

    name, reference, unbiased, relaxes = "bad_slope", "none", False, False

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        self.calls += self.training
        z_SBLK = logits_BLK.softmax(-1).unsqueeze(0)
        if self.calls >= 3:
            z_SBLK.register_hook(lambda gradient: gradient * float("inf"))
        return Estimate(cost(z_SBLK).mean(0))
