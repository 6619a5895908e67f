"""Double control variates: leave-one-out REINFORCE in which each code also predicts the cost of the others."""

from functools import partial
from typing import final

from torch import Tensor
from torch.nn import functional as F

from estimators.base import Cost, Estimate, Estimator, add_score, check_count, check_number, learned_weight
from estimators.gumbel import one_hot, sample_classes, wide_dtype
from estimators.transforms import needs_gradient, refuse_learning, value_and_slope


@final
class DoubleCV(Estimator):
    """Double control variates for leave-one-out REINFORCE.

    The slopes of the cost at the other codes predict the cost of a code, to first order around the mean π. The
    prediction is subtracted from the cost of the code and from its leave-one-out baseline alike, and its mean, known in
    closed form, is added back: it is straight-through's gradient.

    Approximates  ∇ E[f(D)]  with  1/(n−1) Σ_i (h_i − h̄) (D_i − π)  +  η J(π) ḡ,  h_i = f(D_i) − η ḡ_{−i}·(D_i − π),
                  ḡ the mean of ∇f(D_i), ḡ_{−i} that of the others,  D_i ~ Cat(π) iid,  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable at one-hot codes; n_samples >= 2; eta >= 0.
    Bias          none, whatever eta: ḡ_{−i} is independent of D_i. For n codes the cost is evaluated n times.
    Reference     Titsias, Shi (2022), "Double Control Variates for Gradient Estimation in Discrete Latent Variable
                  Models", AISTATS 2022, arXiv:2111.05300, section 3.
    Departures    the paper treats binary variables; here θ(1 − θ) becomes J(π). eta, learned by the variance from 0 on,
                  as there, has the opposite sign of the paper's α: 1 is the Taylor expansion.
    """

    name = "double_cv"
    reference = "Titsias, Shi (2022), AISTATS, arXiv:2111.05300"
    use_when = "as rloo, if the cost is nearly linear between codes: eta, learned from 0, says whether it is"
    unbiased = True
    relaxes = False
    min_samples = 2

    def __init__(self, *, eta: float = 0.0, n_samples: int = 4, control_lr: float = 1e-3) -> None:
        super().__init__()
        self.eta = learned_weight(self.name, "eta", eta)
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=self.min_samples)
        self.control_lr = check_number(self.name, "control_lr", control_lr, above=0.0)

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Average the cost over the codes; `control_loss` is the mean over examples of ‖ĝ‖², for eta alone."""
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        if not needs_gradient(logits_BLK):
            return Estimate(self.evaluate(cost, z_SBLK).mean(0), z_SBLK=z_SBLK)
        learns = self.training and self.eta.requires_grad
        refuse_learning(self.name, learns)
        # the slope in the codes alone: not in the decoder, whose graph is kept for its own backward pass
        cost_SB, slope_SBLK = value_and_slope(partial(self.evaluate, cost), z_SBLK)
        cost_B = cost_SB.mean(0)
        dtype = wide_dtype(logits_BLK)
        probs_BLK = F.softmax(logits_BLK.detach(), dim=-1, dtype=dtype)
        plain_BLK, control_BLK = _terms(cost_SB.detach().to(dtype), slope_SBLK.to(dtype), z_SBLK, probs_BLK)
        gradient_BLK = plain_BLK + self.eta.detach() * control_BLK
        control_loss = None
        if learns:
            control_loss = (plain_BLK + self.eta * control_BLK).square().sum() / max(1, len(logits_BLK))
        linear_B = (logits_BLK * gradient_BLK.to(logits_BLK.dtype)).sum((-2, -1))
        return Estimate(add_score(cost_B, linear_B, logits_BLK, name=self.name), control_loss, z_SBLK)


def _terms(cost_SB: Tensor, slope_SBLK: Tensor, z_SBLK: Tensor, probs_BLK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient (B, L, K) of leave-one-out REINFORCE, and the control variate of mean 0 of weight eta."""
    n = len(cost_SB)
    deviation_SBLK = z_SBLK - probs_BLK
    mean_slope_BLK = slope_SBLK.mean(0)
    others_SBLK = (n * mean_slope_BLK - slope_SBLK) / (n - 1)
    predicted_SB = (others_SBLK * deviation_SBLK).sum((-2, -1))

    def leave_one_out(value_SB: Tensor) -> Tensor:
        centred_SB = value_SB - value_SB.mean(0)
        return (centred_SB[..., None, None] * deviation_SBLK).sum(0) / (n - 1)

    straight_through_BLK = probs_BLK * (mean_slope_BLK - (probs_BLK * mean_slope_BLK).sum(-1, keepdim=True))
    return leave_one_out(cost_SB), straight_through_BLK - leave_one_out(predicted_SB)
