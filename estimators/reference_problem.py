"""The problem on which estimators are checked: fixed logits, a cost in which all latents interact, its exact gradient.

Nothing here knows an estimator's formula. Enumeration is a plain loop, independent of exact.py.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, product

import torch
from torch import Tensor

from estimators.base import Cost, Estimator

N_REPLICAS = 20_000
"""Draws of a statistical check, fixed beforehand. A bias of 4.7 % of the standard deviation of one draw is then caught
with probability .95: (MAX_Z + 1.645)/√20 000 = .047."""
MAX_Z = 5.0
"""Largest |z| of an unbiased estimator. Of six gradient entries, one exceeds it by chance 3 times in a million."""
SHAPES = ((2, 3), (3, 2), (1, 4), (1, 2), (2, 2))
"""Latents and classes at which estimators are tried; the first that an estimator accepts is its example shape."""

LARGER = (*range(1, 65), 100, 128, 200, 256, 500, 512, 1000, 1024)
"""Numbers of latents, and of classes, to try for an estimator that accepts none of SHAPES."""
MOST_ENTRIES = 65_536
"""Largest L × K of a model at which its plug-ins are checked; for a larger one, at a shape of SHAPES."""
Shape = tuple[int, int]


def shapes(estimator: Estimator) -> list[Shape]:
    """Return the SHAPES that the estimator accepts, or the smallest shape that it does if it accepts none of them."""
    found = [shape for shape in SHAPES if accepts(estimator, *shape)]
    return found or list(islice((shape for shape in product(LARGER, LARGER[1:]) if accepts(estimator, *shape)), 1))


def example_shape(estimator: Estimator, model: Shape | None = None) -> Shape:
    """Return the latents and classes at which an estimator is checked: those of its model, or the first of `shapes`.

    Raises AssertionError if there is no model and the estimator accepts no shape.
    """
    if model is not None and math.prod(model) <= MOST_ENTRIES:
        return model
    found = [*shapes(estimator), *([model] if model else [])]
    require(estimator, found, f"a shape of at most {LARGER[-1]} latents and classes that check_shape accepts", "none")
    return found[0]


class Spy:
    """A cost that keeps the codes it has seen. Raises AssertionError unless they are of the shape (S, *shape)."""

    def __init__(self, cost: Cost, *, shape: tuple[int, ...] | None = None, with_graph: bool = False) -> None:
        self.cost, self.shape, self.with_graph = cost, shape, with_graph
        self.codes: list[Tensor] = []

    def __call__(self, z_SBLK: Tensor) -> Tensor:
        if self.shape is not None and z_SBLK.shape[1:] != self.shape:
            raise AssertionError(
                f"expected codes of shape (S, B, L, K) = (S, {str(self.shape)[1:]}, got {tuple(z_SBLK.shape)}."
            )
        self.codes.append(z_SBLK if self.with_graph else z_SBLK.detach())
        return self.cost(z_SBLK)


def require(estimator: Estimator, condition: object, expected: str, got: object) -> None:
    """Raise AssertionError with `expected` and `got` unless the condition holds."""
    if not condition:
        raise AssertionError(f"{estimator.name}: expected {expected}, got {got}.")


def accepts(estimator: Estimator, n_latents: int, n_categories: int) -> bool:
    """Return whether the estimator's `check_shape` accepts a shape."""
    try:
        estimator.check_shape(n_latents, n_categories)
    except ValueError:
        return False
    return True


def example_logits(n_examples: int = 4, n_latents: int = 2, n_categories: int = 3) -> Tensor:
    """Return fixed float64 logits (B, L, K), different for each example, latent and class."""
    count = n_examples * n_latents * n_categories
    return torch.linspace(0, count, count, dtype=torch.float64).sin().view(n_examples, n_latents, n_categories)


def logits_for(estimator: Estimator, n_examples: int = 4, model: Shape | None = None) -> Tensor:
    """Return `example_logits` at the estimator's example shape, with `n_outputs` numbers for each latent."""
    n_latents, n_categories = example_shape(estimator, model)
    return example_logits(n_examples, n_latents, estimator.n_outputs(n_categories))


def cost_for(estimator: Estimator, model: Shape | None = None) -> Cost:
    """Return `cubic_cost` at the estimator's example shape."""
    return cubic_cost(example_weights(*example_shape(estimator, model)))


def example_weights(n_latents: int = 2, n_categories: int = 3) -> Tensor:
    """Return the decoder of `cubic_cost`: fixed float64 weights (L, K)."""
    count = n_latents * n_categories
    return torch.linspace(0.3, 4.3, count, dtype=torch.float64).cos().view(n_latents, n_categories)


def cubic_cost(weights_LK: Tensor) -> Cost:
    """Return f(z) = (1 + Σ w z)³: neither linear nor quadratic, and every latent interacts with every other."""
    return lambda z_SBLK: (1 + (z_SBLK * weights_LK.to(z_SBLK.dtype)).sum((-1, -2))) ** 3


def run(
    estimator: Estimator, logits_BLK: Tensor, cost: Cost, seed: int = 0, model: Shape | None = None
) -> tuple[Tensor, Tensor]:
    """Return cost_B and its gradient w.r.t. the logits, with the noise of `seed`.

    The generator is restored, and the estimator is copied before the call.
    """
    with seeded(seed, logits_BLK):
        return _cost_and_gradient(_prepared(estimator, logits_BLK, model), logits_BLK, cost)


def call(estimator: Estimator, logits_BLK: Tensor, cost: Cost, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return what `run` does, for a prepared estimator that is not copied: its state changes with the call."""
    with seeded(seed, logits_BLK):
        return _cost_and_gradient(estimator, logits_BLK, cost)


def prepared(estimator: Estimator, logits_BLK: Tensor, model: Shape | None = None) -> Estimator:
    """Return a copy that is prepared for logits of that shape, always with the same parameters, as in a run."""
    with seeded(0, logits_BLK):
        return _prepared(estimator, logits_BLK, model)


@contextmanager
def seeded(seed: int, like: Tensor) -> Iterator[None]:
    """Seed the default generators of the CPU and of the tensor's device inside the block; restore them after it.

    Without a GPU, torch.manual_seed takes a millisecond: it queues a call, with its stack, for each absent device.
    """
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        (torch.default_generator.manual_seed if like.device.type == "cpu" else torch.manual_seed)(seed)
        yield


def _prepared(estimator: Estimator, logits_BLK: Tensor, model: Shape | None) -> Estimator:
    """Return a prepared copy. The number of classes is one that needs that many outputs, the example's if possible."""
    own, (_, n_latents, n_outputs) = copy.deepcopy(estimator), logits_BLK.shape
    likely = example_shape(estimator, model)[1], n_outputs
    n_categories = next(k for k in (*likely, *range(1, 2 * n_outputs + 2)) if own.n_outputs(k) == n_outputs)
    own.prepare(n_latents, n_categories, n_context=0)
    return own.to(logits_BLK.device)


def _cost_and_gradient(estimator: Estimator, logits_BLK: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    leaf_BLK = logits_BLK.detach().clone().requires_grad_()
    cost_B = estimator(leaf_BLK, cost).cost_B
    (gradient_BLK,) = torch.autograd.grad(cost_B.sum(), leaf_BLK)
    return cost_B.detach(), gradient_BLK


def all_codes(n_latents: int, n_categories: int) -> Tensor:
    """Return all K^L one-hot codes (S, L, K), float64."""
    classes_SL = torch.tensor(list(product(range(n_categories), repeat=n_latents)))
    return torch.nn.functional.one_hot(classes_SL, n_categories).double()


def exact_gradient(
    logits_LK: Tensor, cost: Cost, class_logits: Callable[[Tensor], Tensor] = lambda logits_BLK: logits_BLK
) -> tuple[Tensor, Tensor]:
    """Return E[cost(z)] and its gradient w.r.t. the logits of one example, by enumeration, one code at a time.

    `class_logits` maps (1, L, H) to the logits (1, L, K) of the codes' law, where that is not the softmax itself.
    """
    leaf_LH = logits_LK.detach().clone().requires_grad_()
    probs_LK = class_logits(leaf_LH[None])[0].softmax(-1)
    n_latents, n_categories = probs_LK.shape
    expected = logits_LK.new_zeros(())
    for z_LK in all_codes(n_latents, n_categories).to(logits_LK):
        prob = torch.stack([probs_LK[latent] @ z_K for latent, z_K in enumerate(z_LK)]).prod()
        expected = expected + prob * cost(z_LK[None, None])[0, 0].detach()
    (gradient_LH,) = torch.autograd.grad(expected, leaf_LH)
    return expected.detach(), gradient_LH


def exact_bound_gradient(
    logits_LK: Tensor,
    cost: Cost,
    n_samples: int,
    class_logits: Callable[[Tensor], Tensor] = lambda logits_BLK: logits_BLK,
) -> tuple[Tensor, Tensor]:
    """Return −E log (1/n) Σ_i exp(−cost(z_i)) p(z_i)/q(z_i), p uniform, and its gradient: over all n-tuples of codes.

    The n-sample importance-weighted bound of Burda, Grosse, Salakhutdinov (2016), arXiv:1509.00519, eq. (8).
    `class_logits` is as in `exact_gradient`.
    """
    leaf_LK = logits_LK.detach().clone().requires_grad_()
    codes_SLK = all_codes(*logits_LK.shape).to(logits_LK)
    log_q_S = (codes_SLK * class_logits(leaf_LK[None])[0].log_softmax(-1)).sum((-1, -2))
    log_prior = -logits_LK.shape[0] * math.log(logits_LK.shape[1])
    log_weight_S = log_prior - cost(codes_SLK[:, None])[:, 0].detach() - log_q_S
    tuples_TN = torch.cartesian_prod(*[torch.arange(len(codes_SLK))] * n_samples).view(-1, n_samples)
    bound_T = math.log(n_samples) - log_weight_S[tuples_TN].logsumexp(-1)
    expected = (log_q_S[tuples_TN].sum(-1).exp() * bound_T).sum()
    (gradient_LK,) = torch.autograd.grad(expected, leaf_LK)
    return expected.detach(), gradient_LK


def truth(estimator: Estimator, logits_LK: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    """Return the estimator's objective and the exact gradient of it, for one example, by enumeration."""
    if estimator.objective == "bound":
        return exact_bound_gradient(logits_LK, cost, estimator.n_samples, estimator.class_logits)
    return exact_gradient(logits_LK, cost, estimator.class_logits)


def z_scores(draws_NX: Tensor, expected_X: Tensor) -> Tensor:
    """Return (mean − expected)/standard error along the first dimension; rounding alone scores 0."""
    error_X = draws_NX.std(0) / math.sqrt(len(draws_NX))
    return (draws_NX.mean(0) - expected_X) / error_X.clamp(min=1e-9)


def bias_scores(estimator: Estimator, cost: Cost | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return z-scores of the mean cost (a scalar) and of the mean gradient (L, H) against enumeration.

    All N_REPLICAS draws are one batch of the same logits. The default cost is `cost_for(estimator)`.
    """
    cost = cost or cost_for(estimator)
    logits_LK = logits_for(estimator)[0]
    cost_N, gradient_NLK = run(estimator, logits_LK.expand(N_REPLICAS, -1, -1), cost, seed)
    expected, gradient_LK = truth(estimator, logits_LK, cost)
    return z_scores(cost_N, expected), z_scores(gradient_NLK, gradient_LK)
