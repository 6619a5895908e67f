"""Perturbed optimisers: the mean of noisy argmaxes, differentiated through the density of the noise."""

from typing import final

from torch import Tensor

from estimators.base import Pathwise, check_count, replace_gradient
from estimators.gaussian import argmax_law, standard_normal
from estimators.gumbel import argmax, one_hot


@final
class PerturbedArgmax(Pathwise):
    """Perturbed argmax.

    The code is the mean of n_draws one-hot argmaxes of θ + τN, a soft code whose expectation is a smooth function of θ;
    its Jacobian is estimated from the same draws, by the score of the noise, without a softmax.

    Approximates  ∇ E[f(D)]  with  Jᵀ ∇f(S),  S = mean of D_m,  J = mean of D_m N_mᵀ/τ,  D_m = onehot(argmax(θ + τN_m)),
                  N_m iid N(0, 1), m = 1 … n_draws.
    Requires      f differentiable and meaningful on soft codes, the multiples of 1/n_draws; n_draws >= 1; tau > 0.
    Bias          ∇f is taken at the mean of the codes, not averaged over them: none if f is linear, otherwise it does
                  not vanish as τ → 0. The codes D_m follow the probit law of θ/τ, not softmax(θ).
    Reference     Berthet, Blondel, Teboul, Cuturi, Vert, Bach (2020), "Learning with Differentiable Perturbed
                  Optimizers", arXiv:2002.08676, the proposition on derivatives of perturbed maximisers.
    Departures    the Jacobian of a latent takes the score of that latent's own noise, where the paper's takes the score
                  of the noise of all latents: less variance with several latents, and another O(1/n_draws) bias. The
                  paper's ε is called tau, and may be learned.
    """

    name = "perturbed_argmax"
    reference = "Berthet, Blondel, Teboul, Cuturi, Vert, Bach (2020), arXiv:2002.08676"
    use_when = "as the relaxation that needs no softmax; its variance is that of a score function, whatever the cost"
    relaxes = True
    shift_invariant = False
    tau: float | Tensor

    def __init__(self, *, tau: float = 1.0, n_draws: int = 16) -> None:
        super().__init__()
        self.tau = tau
        self.n_draws = check_count(self.name, "n_draws", n_draws)

    def class_logits(self, logits_BLK: Tensor) -> Tensor:
        """Return the log-probabilities of the argmax of θ + τN, in float32 or wider."""
        return argmax_law(logits_BLK / self.tau)

    def sample(self, logits_BLK: Tensor) -> Tensor:
        """Return the mean of the argmaxes, as one soft code."""
        noise_MBLK = standard_normal(logits_BLK, self.n_draws)
        tau = self.tau.detach() if isinstance(self.tau, Tensor) else self.tau
        z_MBLK = one_hot(argmax(logits_BLK.detach() + tau * noise_MBLK), like=noise_MBLK)
        # The log-density of x = θ + τN, up to a constant: of its derivatives, N/τ and (|N|² − K)/τ, nothing cancels.
        log_density_MBL = (noise_MBLK * (logits_BLK - logits_BLK.detach())).sum(-1) / tau
        if isinstance(self.tau, Tensor):
            log_density_MBL = log_density_MBL + (noise_MBLK.square() - 1).sum(-1) * self.tau.log()
        surrogate_BLK = (z_MBLK * log_density_MBL.unsqueeze(-1)).mean(0)
        fixed = (logits_BLK, self.tau) if isinstance(self.tau, Tensor) else (logits_BLK,)
        return replace_gradient(z_MBLK.mean(0), surrogate_BLK, *fixed, name=self.name).unsqueeze(0)
