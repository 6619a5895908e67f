"""Straight-through estimators: a one-hot code forward, the gradient of a smooth surrogate backward."""

from typing import final

from torch import Tensor

from estimators.base import Pathwise, check_count, replace_gradient
from estimators.gumbel import one_hot, sample_classes, wide
from estimators.simplex import softmax


@final
class IdentitySTE(Pathwise):
    """Identity straight-through.

    The logits receive the gradient of the sampled code unchanged, as if sampling were the identity.

    Approximates  ∇ E[f(D)]  with  ∇f(D),  D ~ Cat(softmax(θ)).
    Requires      f differentiable at one-hot codes; n_samples >= 1.
    Bias          yes, of unknown sign and scale: not even the gradient of a constant on the simplex is 0.
    Reference     Bengio, Léonard, Courville (2013), "Estimating or Propagating Gradients Through Stochastic Neurons for
                  Conditional Computation", arXiv:1308.3432, section on the straight-through estimator.
    Departures    the paper treats binary neurons; here each one is a categorical variable.
    """

    name = "identity_ste"
    reference = "Bengio, Léonard, Courville (2013), arXiv:1308.3432"
    use_when = "as the crudest baseline: what happens if the sampling step is ignored"
    relaxes = False
    shift_invariant = False

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the gradient of the logits."""
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        return replace_gradient(z_SBLK, logits_BLK.expand_as(z_SBLK))


@final
class ArgmaxSTE(Pathwise):
    """Deterministic argmax straight-through.

    The code is the most probable one, without noise; the softmax at temperature tau carries the gradient.

    Approximates  ∇ E[f(D)]  with  (1/τ) J(π_τ) ∇f(D),  D = onehot(argmax θ),  π_τ = softmax(θ/τ),
                  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable at one-hot codes; tau > 0.
    Bias          yes: it sees the cost of one code only, whatever the probability of the others.
    Reference     folklore; the deterministic case of Bengio, Léonard, Courville (2013), arXiv:1308.3432.
    Departures    none.
    """

    name = "argmax_ste"
    reference = "folklore, after Bengio, Léonard, Courville (2013), arXiv:1308.3432"
    use_when = "the deployed model takes the argmax and never samples; where codes are sampled it may learn nothing"
    relaxes = False
    tau: float

    def __init__(self, *, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return the one most probable code, with the gradient of the softmax; of tied classes, one."""
        probs_SBLK = softmax(wide(logits_BLK) / self.tau).to(logits_BLK.dtype).unsqueeze(0)
        return replace_gradient(one_hot(logits_BLK.argmax(-1).unsqueeze(0), like=logits_BLK), probs_SBLK)


@final
class StraightThrough(Pathwise):
    """Sampled straight-through.

    The code is a categorical sample; the softmax at temperature tau, at tau = 1 the mean of that sample, carries the
    gradient.

    Approximates  ∇ E[f(D)]  with  (1/τ) J(π_τ) ∇f(D),  D ~ Cat(softmax(θ)),  π_τ = softmax(θ/τ),
                  J(p) = diag(p) − p pᵀ.
    Requires      f differentiable at one-hot codes; n_samples >= 1; tau > 0.
    Bias          none if f is linear and tau = 1; otherwise f's curvature, since ∇f(D) stands for differences of f.
    Reference     Bengio, Léonard, Courville (2013), "Estimating or Propagating Gradients Through Stochastic Neurons for
                  Conditional Computation", arXiv:1308.3432, section on the straight-through estimator. A scheduled tau
                  is slope annealing: Chung, Ahn, Bengio (2017), arXiv:1609.01704.
    Departures    the paper treats binary neurons; here each one is a categorical variable. tau acts backward only.
    """

    name = "straight_through"
    reference = "Bengio, Léonard, Courville (2013), arXiv:1308.3432; Chung, Ahn, Bengio (2017), arXiv:1609.01704"
    use_when = "first choice if the cost needs one-hot codes and is differentiable: one evaluation, low variance"
    relaxes = False
    tau: float

    def __init__(self, *, tau: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the gradient of the softmax."""
        z_SBLK = one_hot(sample_classes(logits_BLK, self.n_samples), like=logits_BLK)
        return replace_gradient(z_SBLK, softmax(wide(logits_BLK) / self.tau).to(logits_BLK.dtype).expand_as(z_SBLK))
