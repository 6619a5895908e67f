"""A worked example of a user's own estimator: `harness run --plugin experiments/plugins/heavy_tail_softmax.py`."""

from torch import Tensor

from estimators import Pathwise
from estimators.gumbel import perturb


class HeavyTailSoftmax(Pathwise):
    """Heavy-tailed Gumbel-Softmax.

    The weight of a class falls as a power of its distance from the winner, not exponentially as in the softmax, so that
    losing classes keep some gradient at low temperature.

    Approximates  ∇ E[f(D)]  with  ∇ f(S),  S ∝ 1/(1 + (max x − x)/τ)²,  x = θ + G.
    Requires      f differentiable and meaningful on soft codes; tau > 0.
    Bias          the exact gradient of E[f(S)], not of E[f(D)]; falls as τ → 0.
    Reference     this example; nothing is claimed for it.
    Departures    –
    """

    name = "heavy_tail_softmax"
    relaxes = True
    reference = "an example"

    def __init__(self, *, tau: float = 0.3) -> None:
        super().__init__()
        self.tau = tau

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one soft code for each example: the argmax is a sample of softmax(logits), at every tau."""
        x_SBLK = perturb(logits_BLK, self.n_samples)
        weight_SBLK = (1 + (x_SBLK.amax(-1, keepdim=True) - x_SBLK) / self.tau) ** -2
        return weight_SBLK / weight_SBLK.sum(-1, keepdim=True)
