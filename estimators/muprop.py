"""MuProp: the score function with a first-order Taylor expansion as its control variate."""

from typing import final

from torch import Tensor
from torch.nn import functional as F

from estimators.base import Cost, Estimate, Estimator, add_score, check_count
from estimators.gumbel import one_hot, sample_classes, wide_dtype
from estimators.transforms import needs_gradient, value_and_slope


@final
class MuProp(Estimator):
    """MuProp.

    The first-order Taylor expansion of the cost around the mean field π predicts the cost of each sample. The score
    function weights the error of the prediction, and the mean of the prediction, known in closed form, is added back.

    Approximates  ∇ E[f(D)]  with  mean over n of  [f(D) − f(π) − f'(π)·(D − π)] ∇ log q(D)  +  J(π) f'(π),
                  D ~ Cat(π),  J(p) = diag(p) − p pᵀ for each latent.
    Requires      f differentiable and meaningful at the mean π of the one-hot codes; n_samples >= 1.
    Bias          none: E[f'(π)·(D − π) ∇ log q(D)] = J(π) f'(π), and E[f(π) ∇ log q(D)] = 0.
    Reference     Gu, Levine, Sutskever, Mnih (2016), "MuProp: Unbiased Backpropagation for Stochastic Neural Networks",
                  arXiv:1511.05176, section 3.
    Departures    one stochastic layer, so no mean field passes through others; the learned baselines and
                  the variance normalisation that the paper adds in its experiments are left out.
    """

    name = "muprop"
    reference = "Gu, Levine, Sutskever, Mnih (2016), arXiv:1511.05176"
    use_when = "latents are few and the cost is nearly linear in the code: what it does not predict is not centred"
    unbiased = True
    relaxes = False
    evaluates_soft = True

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the number of samples and one more, the mean field."""
        return self.n_samples + 1

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the samples; the gradient is composed of values and one slope."""
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        cost_SB = self.evaluate(cost, z_SBLK)
        cost_B = cost_SB.mean(0)
        if not needs_gradient(logits_BLK):
            return Estimate(cost_B, z_SBLK=z_SBLK)
        dtype = wide_dtype(logits_BLK)
        mean_BLK = F.softmax(logits_BLK.detach(), dim=-1, dtype=dtype)
        field_cost_B, slope_BLK = value_and_slope(
            lambda field_BLK: self.evaluate(cost, field_BLK.unsqueeze(0))[0], mean_BLK.to(logits_BLK.dtype)
        )  # the slope in the code alone: not in the decoder
        slope_BLK = slope_BLK.to(dtype)
        deviation_SBLK = z_SBLK - mean_BLK
        taylor_SB = field_cost_B.detach() + (slope_BLK * deviation_SBLK).sum((-2, -1))
        residual_SB = cost_SB.detach() - taylor_SB
        mean_slope_BLK = mean_BLK * (slope_BLK - (mean_BLK * slope_BLK).sum(-1, keepdim=True))
        gradient_BLK = (residual_SB[..., None, None] * deviation_SBLK).mean(0) + mean_slope_BLK
        linear_B = (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-2, -1))
        return Estimate(add_score(cost_B, linear_B, logits_BLK, name=self.name), z_SBLK=z_SBLK)
