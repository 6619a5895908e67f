"""ReDGE: codes by a diffusion of a few steps, from Gaussian noise to the simplex, that is differentiated through."""

from typing import final

import torch
from torch import Tensor

from estimators.arguments import check_between
from estimators.base import Pathwise, check_count, replace_gradient
from estimators.gaussian import standard_normal
from estimators.gumbel import argmax, exponential, one_hot, wide
from estimators.simplex import softmax

SMALLEST_T = 0.01
"""Smallest t_1: there the logits of the last step, of size 1/t_1², already make nearly every soft code one-hot."""
NOISIEST = 1e-4
"""α of the first step, where a code is all but noise."""


def alphas(n_steps: int, t_1: float) -> list[float]:
    """Return α_1 … α_{n_steps−1}, how much of the code is left at each step, in the order of the indices.

    They are equidistant from 1 − t_1, the last step of the sampler, to NOISIEST, its first; σ_i = 1 − α_i.
    """
    width = (NOISIEST - (1 - t_1)) / max(1, n_steps - 2)
    return [1 - t_1 + i * width for i in range(n_steps - 1)]


def last_logits(logits_BLK: Tensor, n_samples: int, n_steps: int, t_1: float) -> Tensor:
    """Return the logits (S, B, L, K) of the last denoiser, in float32 or wider; differentiable in the logits.

    Every step is deterministic (DDIM): the only noise is that of its start.
    """
    theta_BLK = wide(logits_BLK)
    x_SBLK = standard_normal(theta_BLK, n_samples)
    alpha, *others = reversed(alphas(n_steps, t_1))
    sigma = 1 - alpha
    posterior_SBLK = torch.add(theta_BLK, x_SBLK, alpha=alpha / sigma**2)
    for next_alpha in others:
        kept = (1 - next_alpha) / sigma  # α' x̂ + σ' (x − α x̂)/σ = kept · x + (α' − kept · α) x̂
        x_SBLK = torch.add(kept * x_SBLK, softmax(posterior_SBLK), alpha=next_alpha - kept * alpha)
        alpha, sigma = next_alpha, 1 - next_alpha
        posterior_SBLK = torch.add(theta_BLK, x_SBLK, alpha=alpha / sigma**2)
    return posterior_SBLK


class _Diffusion(Pathwise):
    """What `redge` and `redge_soft` share: their arguments."""

    def __init__(self, *, n_steps: int = 5, t_1: float = 0.5, n_samples: int = 1) -> None:
        """Raise ValueError for an impossible argument."""
        super().__init__()
        self.n_steps = check_count(self.name, "n_steps", n_steps, at_least=2)
        self.t_1 = check_between(self.name, "t_1", t_1, SMALLEST_T, 1.0)
        self.n_samples = check_count(self.name, "n_samples", n_samples)


@final
class ReDGE(_Diffusion):
    """ReDGE, straight-through a diffusion of a few steps; codes follow softmax only nearly.

    Gaussian noise becomes a soft code in n_steps − 1 denoising steps, each of which knows the law softmax(θ). The code
    is a sample of the soft one, which carries the gradient.

    Approximates  ∇ E[f(D)]  with  (∂S/∂θ)ᵀ ∇f(D),  D ~ Cat(S),  S = x̂_1,  x̂_i = softmax(θ + α_i x_i/σ_i²),
                  x_{i−1} = α_{i−1} x̂_i + σ_{i−1} (x_i − α_i x̂_i)/σ_i,  x_{n−1} ~ N(0, I),  n = n_steps,
                  σ_i = 1 − α_i,  α_1 … α_{n−1} equidistant from 1 − t_1 to 1e-4.
    Requires      f differentiable at one-hot codes; n_samples >= 1; n_steps >= 2; 0.01 <= t_1 <= 1.
    Law           NOT softmax(θ), but P(D = k) = E[S_k], except at t_1 = 1: the steps are few and finite. Every KL and
                  every evaluation here is that of softmax(θ). Total variation between the two, mean over 300 logits
                  θ ~ N(0, 3²), K = 10 (the largest are up to 2.5 times these; K = 100 is similar, K = 2 half):
                      t_1            0.1     0.3     0.5     0.7     0.9
                      n_steps = 2    0.660   0.494   0.181   0.026   0.001
                      n_steps = 3    0.256   0.062   0.008  <0.001  <0.001
                      n_steps = 5    0.063   0.023   0.003  <0.001  <0.001
                      n_steps = 9    0.021   0.011   0.002  <0.001  <0.001
    Bias          yes: ∇f is taken at D, its Jacobian at S, and the law is another. t_1 = 1 is straight_through(tau=1),
                  sample by sample; as t_1 falls, S and its slope approach those of a one-hot code, as in
                  st_gumbel_softmax, and the variance grows.
    Cost          n_steps − 1 softmaxes in each direction, and no further evaluation of the cost. A step of the VAE is
                  1.05 times one with straight_through, 1.2 times with n_steps = 9.
    Reference     Gourevitch, Durmus, Moulines, Olsson, Janati (2026), "Categorical Reparameterization with Denoising
                  Diffusion models", arXiv:2601.00781, section 3. The schedule of α and σ, which is that of flow
                  matching, and the defaults, n_steps 5 and t_1 0.5, are those of the authors' code and its README; its
                  configuration file has n_steps 3. They advise 3 to 9 and 0.3 to 0.9.
    Departures    none known. Their variants `redge_cov` and `reindge` are not here: decision 16 in docs/decisions.
    """

    name = "redge"
    reference = "Gourevitch, Durmus, Moulines, Olsson, Janati (2026), arXiv:2601.00781"
    use_when = "straight_through with t_1 to trade bias for variance; reinmax has less of both than a low t_1"
    relaxes = False

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return one-hot codes with the gradient of the soft codes that they are samples of."""
        # before the noise of the diffusion, so that t_1 = 1 gives the codes of straight_through
        noise_SBLK = exponential((self.n_samples, *logits_BLK.shape), like=logits_BLK).log_()
        posterior_SBLK = last_logits(logits_BLK, self.n_samples, self.n_steps, self.t_1)
        class_SBL = argmax(posterior_SBLK.detach() - noise_SBLK)
        return replace_gradient(one_hot(class_SBL, like=logits_BLK), softmax(posterior_SBLK).to(logits_BLK.dtype))


@final
class ReDGESoft(_Diffusion):
    """Soft ReDGE, a relaxation by a diffusion of a few steps.

    The soft code of `redge` itself: Gaussian noise that n_steps − 1 denoising steps, which know the law softmax(θ),
    have moved to the simplex.

    Approximates  ∇ E[f(D)]  with  (∂S/∂θ)ᵀ ∇f(S),  S the soft code of `redge`.
    Requires      f differentiable and meaningful on soft codes; n_samples >= 1; n_steps >= 2; 0.01 <= t_1 <= 1.
    Law           E[S] is NOT softmax(θ), except at t_1 = 1, where S is softmax(θ) itself, without noise: see the table
                  of `redge`. Every KL and every evaluation here is that of softmax(θ).
    Bias          the exact gradient of E[f(S)], not of E[f(D)]. S is one-hot as t_1 → 0, but the error of the law and
                  the variance grow there.
    Cost          that of `redge`.
    Reference     Gourevitch, Durmus, Moulines, Olsson, Janati (2026), "Categorical Reparameterization with Denoising
                  Diffusion models", arXiv:2601.00781, section 3; its soft form. Defaults: those of `redge`.
    Departures    none known.
    """

    name = "redge_soft"
    reference = "Gourevitch, Durmus, Moulines, Olsson, Janati (2026), arXiv:2601.00781"
    use_when = "as gumbel_softmax at about the same bias and variance, t_1 in the place of tau; its law is inexact"
    relaxes = True

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return soft codes."""
        return softmax(last_logits(logits_BLK, self.n_samples, self.n_steps, self.t_1))
