"""The exact gradient, by enumeration."""

import math
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from estimators import base
from estimators.base import Cost, Estimate, Estimator, check_count, more_codes, samples_per_call
from estimators.gumbel import log_prob, one_hot


@final
class Exact(Estimator):
    """Exact gradient by enumeration of all codes.

    The expectation is a finite sum; autograd differentiates it.

    Approximates  ∇ E[f(D)]  with  itself:  ∇ Σ_z q(z) f(z)  over all K^L codes z.
    Requires      K^L <= max_codes.
    Bias          none, and no variance.
    Reference     the definition of the expectation.
    Departures    none. Beyond CODES_IN_GRAPH codes, the activations of a decoder that is trained through the cost are
                  computed a second time in the backward pass, which needs those of CODES_IN_GRAPH codes at a time.
    """

    name = "exact"
    reference = "definition"
    use_when = "as the yardstick on small models: every other estimator is compared with it"
    unbiased = True
    relaxes = False
    black_box = True

    def __init__(self, *, max_codes: int = 16384) -> None:
        super().__init__()
        self.max_codes = check_count(self.name, "max_codes", max_codes)

    def check_shape(self, n_latents: int, n_categories: int) -> None:
        """Raise ValueError if there are more than `max_codes` codes."""
        check_n_codes(self.name, self.max_codes, n_latents, n_categories)

    def n_cost_evals(self, n_latents: int, n_categories: int) -> int:
        """Return the number of codes."""
        return int(n_categories**n_latents)

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        """Return the expected cost, a differentiable function of the logits."""
        self.check_shape(*logits_BLK.shape[1:])
        terms_B = []
        for class_SBL, cost_SB in each_code(self, logits_BLK, cost):
            terms_B.append((log_prob(logits_BLK, class_SBL).exp() * cost_SB).sum(0))
        return Estimate(torch.stack(terms_B).sum(0).to(cost_SB.dtype))


def check_n_codes(name: str, max_codes: int, n_latents: int, n_categories: int) -> None:
    """Raise ValueError if there are more than `max_codes` codes."""
    if more_codes(max_codes, n_latents, n_categories):
        small = not more_codes(10**15, n_latents, n_categories)
        count = f"{n_categories}^{n_latents}" + (f" = {n_categories**n_latents}" if small else "")
        raise ValueError(
            f"{name}: expected n_categories^n_latents <= max_codes = {max_codes}, got {count}."
            " Use fewer latents or classes, or raise max_codes."
        )


def each_code(estimator: Estimator, logits_BLK: Tensor, cost: Cost) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all codes as class numbers (S, B, L), the first latent slowest, and their costs (S, B).

    They come in chunks of CODES_IN_GRAPH, counted over all examples. With more than one chunk, autograd keeps no
    activations: if something in the cost, such as a decoder, needs a gradient, the backward pass evaluates it again.
    """
    chunks = list(_all_codes(logits_BLK))
    evaluate = estimator.evaluate if len(chunks) == 1 else estimator.evaluate_again
    for class_SBL in chunks:
        yield class_SBL, evaluate(cost, one_hot(class_SBL, like=logits_BLK))


def _all_codes(logits_BLK: Tensor) -> Iterator[Tensor]:
    """Yield all codes as class numbers (S, B, L), the first latent slowest, CODES_IN_GRAPH at a time."""
    n_examples, n_latents, n_categories = logits_BLK.shape
    n_chunks = math.ceil(n_categories**n_latents / samples_per_call(base.CODES_IN_GRAPH, n_examples))
    place_L = n_categories ** torch.arange(n_latents - 1, -1, -1, device=logits_BLK.device)
    for codes_S in torch.arange(n_categories**n_latents, device=logits_BLK.device).chunk(n_chunks):
        class_SL = codes_S.unsqueeze(-1) // place_L % n_categories
        yield class_SL.unsqueeze(1).expand(-1, n_examples, -1)
