"""Sparse relaxations of a Gumbel-perturbed argmax.

The package `entmax` is imported where one of them is built.
"""

from typing import final

from torch import Tensor

from estimators.base import Pathwise, check_count, check_number
from estimators.gumbel import perturb
from estimators.sparse import entmax_mapping


@final
class GumbelSparsemax(Pathwise):
    """Gumbel-Sparsemax relaxation.

    As Gumbel-Softmax, with the Euclidean projection onto the simplex instead of the softmax: codes with exact zeros.

    Approximates  ∇ E[f(D)]  with  (1/τ) J ∇f(S),  S = sparsemax((θ + G)/τ),  J = diag(s) − s sᵀ/Σs,  s = 1[S > 0].
    Requires      f differentiable and meaningful on soft codes; n_samples >= 1; tau > 0; the package entmax.
    Bias          the exact gradient of E[f(S)], not of E[f(D)]; falls as τ → 0. Where S is one-hot, the gradient is 0.
    Reference     Martins, Astudillo (2016), "From Softmax to Sparsemax", arXiv:1602.02068, section 2: the projection.
    Departures    the paper has no noise; Gumbel noise is added as in Jang, Gu, Poole (2017), arXiv:1611.01144.
    """

    name = "gumbel_sparsemax"
    reference = "Martins, Astudillo (2016), arXiv:1602.02068; Jang, Gu, Poole (2017), arXiv:1611.01144"
    use_when = "as gumbel_softmax, where soft codes with exact zeros are wanted; gradients vanish early as tau falls"
    relaxes = True
    tau: float

    def __init__(self, *, tau: float = 1.0, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.n_samples = check_count(self.name, "n_samples", n_samples)
        self._sparsemax = entmax_mapping(self.name, alpha=2.0)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return sparse soft codes."""
        return self._sparsemax(perturb(logits_BLK, self.n_samples) / self.tau)


@final
class GumbelEntmax(Pathwise):
    """Gumbel-Entmax relaxation.

    As Gumbel-Softmax, with alpha-entmax instead of the softmax: alpha → 1 is the softmax, alpha = 2 the sparsemax.

    Approximates  ∇ E[f(D)]  with  (1/τ) J ∇f(S),  S = entmax_α((θ + G)/τ),  J = diag(s) − s sᵀ/Σs,
                  s = S^(2−α) on S > 0, otherwise 0.
    Requires      f differentiable and meaningful on soft codes; n_samples >= 1; tau > 0; alpha > 1; the package entmax.
    Bias          the exact gradient of E[f(S)], not of E[f(D)]; falls as τ → 0. Where S is one-hot, the gradient is 0.
    Reference     Peters, Niculae, Martins (2019), "Sparse Sequence-to-Sequence Models", arXiv:1905.05702, section 3.
    Departures    the paper has no noise; Gumbel noise is added as in Jang, Gu, Poole (2017), arXiv:1611.01144.
                  An alpha other than 1.5 and 2 takes the library's bisection, which is slower.
    """

    name = "gumbel_entmax"
    reference = "Peters, Niculae, Martins (2019), arXiv:1905.05702; Jang, Gu, Poole (2017), arXiv:1611.01144"
    use_when = "between gumbel_softmax and gumbel_sparsemax: alpha sets how sparse the soft codes are"
    relaxes = True
    tau: float

    def __init__(self, *, tau: float = 1.0, alpha: float = 1.5, n_samples: int = 1) -> None:
        super().__init__()
        self.tau = tau
        self.alpha = check_number(self.name, "alpha", alpha, above=1.0)
        self.n_samples = check_count(self.name, "n_samples", n_samples)
        self._entmax = entmax_mapping(self.name, self.alpha)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return sparse soft codes."""
        return self._entmax(perturb(logits_BLK, self.n_samples) / self.tau)
