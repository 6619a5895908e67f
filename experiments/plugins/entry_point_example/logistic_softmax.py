"""A user's own estimator in a package of its own; `pyproject.toml` beside it says how the harness finds it."""

from torch import Tensor

from estimators import Pathwise
from estimators.gumbel import perturb


class LogisticSoftmax(Pathwise):
    """Softmax with logistic noise: as Gumbel-Softmax, but the argmax is not a sample of softmax(logits)."""

    name = "logistic_softmax"
    relaxes = True
    reference = "an example"

    def __init__(self, *, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one soft code for each example; the difference of two Gumbel variables is logistic."""
        noise_SBLK = perturb(logits_BLK, 1) - perturb(logits_BLK, 1)
        return ((logits_BLK + noise_SBLK) / self.tau).softmax(-1)
