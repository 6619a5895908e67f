"""Score-function estimators: the cost is a black box, and the gradient comes from the log-probability of the sample."""

from abc import abstractmethod
from typing import final

from torch import Tensor

from estimators.base import Estimate, add_score, check_count
from estimators.draws_first import Draw, DrawsFirst
from estimators.gumbel import log_prob, one_hot, sample_classes


class ScoreFunction(DrawsFirst):
    """An estimator of the form advantage · ∇ log q(z). A subclass defines `advantage` and nothing else."""

    @abstractmethod
    def advantage(self, cost_SB: Tensor) -> Tensor:
        """Return the weight (S, B) of each sample's score; the gradient is their mean over S. `cost_SB` is detached."""

    @final
    def draw(self, logits_BLK: Tensor) -> Draw:
        """Draw codes; the estimate is their mean cost. No gradient flows through the codes."""
        class_SBL = sample_classes(logits_BLK, self.n_samples)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)

        def estimate(cost_SB: Tensor) -> Estimate:
            score_SB = self.advantage(cost_SB.detach()) * log_prob(logits_BLK, class_SBL)
            cost_B = add_score(cost_SB, score_SB, logits_BLK, name=self.name).mean(0)
            return Estimate(cost_B, z_SBLK=z_SBLK)

        return Draw(z_SBLK, estimate)


@final
class Reinforce(ScoreFunction):
    """REINFORCE, the plain score function.

    Expensive codes become less probable, in proportion to their cost.

    Approximates  ∇ E[f(D)]  with  mean over n of  f(D_i) ∇ log q(D_i),  D_i ~ Cat(softmax(θ)), iid.
    Requires      nothing of f but its value; n_samples >= 1.
    Bias          none.
    Reference     Williams (1992), "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
                  Learning", Machine Learning 8, section 4, with reinforcement baseline 0.
    Departures    none.
    """

    name = "reinforce"
    reference = "Williams (1992), Machine Learning 8:229–256"
    use_when = "as the unbiased reference of highest variance; rloo is better wherever two evaluations are affordable"
    unbiased = True

    def __init__(self, *, n_samples: int = 1) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples)

    def advantage(self, cost_SB: Tensor) -> Tensor:
        """Return the cost itself."""
        return cost_SB


@final
class RLOO(ScoreFunction):
    """REINFORCE with the leave-one-out baseline (RLOO).

    Each sample is compared with the mean cost of the others, which is independent of it, so the bias stays 0.

    Approximates  ∇ E[f(D)]  with  1/(n−1) Σ (f(D_i) − f̄) ∇ log q(D_i),  D_i ~ Cat(softmax(θ)), iid,  f̄ = mean f(D_i).
    Requires      nothing of f but its value; n_samples >= 2.
    Bias          none.
    Reference     Kool, van Hoof, Welling (2019), "Buy 4 REINFORCE Samples, Get a Baseline for Free!", ICLR 2019
                  workshop on deep RL meets structured prediction; Salimans, Knowles (2014), arXiv:1401.1022.
    Departures    none.
    """

    name = "rloo"
    reference = "Kool, van Hoof, Welling (2019), ICLR workshop; Salimans, Knowles (2014), arXiv:1401.1022"
    use_when = (
        "first choice among unbiased estimators, or if the cost is not differentiable; pays n_samples evaluations"
    )
    unbiased = True
    min_samples = 2

    def __init__(self, *, n_samples: int = 4) -> None:
        super().__init__()
        self.n_samples = check_count(self.name, "n_samples", n_samples, at_least=self.min_samples)

    def advantage(self, cost_SB: Tensor) -> Tensor:
        """Return the cost less the mean of the others: n/(n−1) times the cost less the mean of all."""
        return (cost_SB - cost_SB.mean(0)) * (self.n_samples / (self.n_samples - 1))
