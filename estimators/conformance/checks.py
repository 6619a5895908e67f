"""The checks. Each takes an estimator, returns in words what it found, and raises AssertionError otherwise."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor

from estimators.base import Cost, Estimator, parameters
from estimators.conformance.independence import (
    check_code_follows_logits,
    check_examples,
    check_independence,
    check_logits_unchanged,
)
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    Shape,
    Spy,
    accepts,
    bias_scores,
    call,
    cost_for,
    cubic_cost,
    example_logits,
    example_shape,
    example_weights,
    logits_for,
    prepared,
    require,
    run,
    shapes,
    z_scores,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
N_CALLS = 20
N_TRIES = 16
"""Calls in which an estimator has to give each latent a gradient. Chance hides one of two in all of 16: 3e-5."""
Check = Callable[[Estimator], str]


def check_all(estimator: Estimator) -> list[str]:
    """Run every check and return what each found; AssertionError at the first that fails."""
    return [f"{check.__name__}: {check(estimator)}" for check in CHECKS]


def check_declaration(estimator: Estimator) -> str:
    """Facts are declared and consistent, and an impossible tau is refused in one line."""
    cls, name = type(estimator), estimator.name
    construct: Callable[..., Estimator] = cls
    for key in ("unbiased", "relaxes", "shift_invariant", "black_box", "evaluates_soft"):
        require(estimator, isinstance(getattr(cls, key), bool), f"a bool {key}", getattr(cls, key))
    for key in ("title", "reference", "use_when"):
        text = getattr(cls, key)
        require(estimator, isinstance(text, str) and text and "\n" not in text, f"a one-line {key}", text)
    require(estimator, estimator.n_samples >= cls.min_samples, f"n_samples >= {cls.min_samples}", estimator.n_samples)
    require(
        estimator,
        (estimator.tau is not None) == cls.uses_tau,
        "self.tau set exactly if tau is an argument",
        estimator.tau,
    )
    for bad in (0.0, -1.0, math.nan, math.inf, True, "1") if cls.uses_tau else ():
        try:
            construct(tau=bad)
        except ValueError as error:
            require(
                estimator, str(error) == f"{name}: expected tau > 0, got {bad!r}.", "a one-line refusal", str(error)
            )
        else:
            require(estimator, False, f"tau = {bad!r} to be refused", "an object")
    example_shape(estimator)
    return f"{name}({', '.join(parameters(cls))}), {'unbiased' if cls.unbiased else 'biased'}"


def check_shapes_and_dtypes(
    estimator: Estimator, dtypes: Sequence[torch.dtype] = DTYPES, model: Shape | None = None
) -> str:
    """The cost has shape (B,); codes, cost and gradient keep the dtype of the logits."""
    for dtype in dtypes:
        logits_BLK = logits_for(estimator, model=model).to(dtype)
        spy = Spy(cost_for(estimator, model), shape=(len(logits_BLK), *example_shape(estimator, model)))
        cost_B, gradient_BLK = run(estimator, logits_BLK, spy, model=model)
        require(estimator, spy.codes, "a call of the cost", "none")
        require(estimator, cost_B.shape == logits_BLK.shape[:1], "cost_B of shape (4,)", tuple(cost_B.shape))
        for what, tensor in (("codes", spy.codes[0]), ("cost", cost_B), ("gradient", gradient_BLK)):
            require(estimator, tensor.dtype == dtype, f"{what} of {dtype}", tensor.dtype)
    return f"{', '.join(str(dtype).removeprefix('torch.') for dtype in dtypes)} are kept"


def check_codes(
    estimator: Estimator,
    dtypes: Sequence[torch.dtype] = DTYPES,
    n_examples: int = 4096,
    model: Shape | None = None,
) -> str:
    """The cost sees exactly one-hot codes; where the estimator relaxes or says so, points of the simplex."""
    for dtype in dtypes:
        spy = Spy(cost_for(estimator, model))
        logits_BLK = logits_for(estimator, n_examples, model).to(dtype)  # many, for a rounding error to show
        run(estimator, logits_BLK, spy, model=model)
        for z_SBLK in spy.codes:
            _require_codes(estimator, z_SBLK)
        one_hot = any(bool((z_SBLK.amax(-1) == 1).all()) for z_SBLK in spy.codes)
        require(estimator, estimator.relaxes or one_hot, "one-hot codes among those evaluated", "soft ones only")
    return "on the simplex" if estimator.relaxes or estimator.evaluates_soft else "exactly one-hot"


def check_gradient(estimator: Estimator, dtype: torch.dtype = torch.float64, model: Shape | None = None) -> str:
    """Cost and gradient are finite, and no latent is without a gradient in each of N_TRIES calls.

    They are calls of one copy: a warm-up may start at 0, and an estimator may choose other latents in each call.
    """
    logits_BLK, cost = logits_for(estimator, 64, model).to(dtype), cost_for(estimator, model)
    own, reached = prepared(estimator, logits_BLK, model), set[tuple[bool, ...]]()
    for seed in range(N_TRIES):
        cost_B, gradient_BLK = call(own, logits_BLK, cost, seed)
        for what, tensor in (("cost", cost_B), ("gradient", gradient_BLK)):
            require(estimator, bool(tensor.isfinite().all()), f"a finite {what}", "NaN or ∞")
        latents = tuple((gradient_BLK != 0).any(-1).any(0).tolist())
        reached |= {latents} if any(latents) else set()
        if all(latents) or len(reached) > 1:
            return "finite, not 0"
    first = next(iter(reached), (False,)).index(False)
    require(
        estimator, False, "a gradient that reaches the logits", f"zeros at latent {first} in each of {N_TRIES} calls"
    )
    return ""


def check_logit_gradient(estimator: Estimator) -> str:
    """The logits receive a finite gradient which, under shift invariance, sums to 0 over classes."""
    check_gradient(estimator)
    _, gradient_BLK = run(estimator, logits_for(estimator, 64), cost_for(estimator))
    if not estimator.shift_invariant:
        return "finite; not shift-invariant, as declared"
    largest = gradient_BLK.sum(-1).abs().max().item()
    require(estimator, largest < 1e-9, "gradients that sum to 0 over classes", largest)
    return "finite, sums to 0 over classes"


def check_decoder_gradient(estimator: Estimator) -> str:
    """The decoder receives the ordinary derivative of the reported cost, noise held fixed (central differences)."""
    weights_LK = example_weights(*example_shape(estimator)).requires_grad_()
    logits_BLK, step = logits_for(estimator).requires_grad_(), 1e-5
    own = prepared(estimator, logits_BLK)

    def total(weights_LK: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return copy.deepcopy(own)(logits_BLK, cubic_cost(weights_LK)).cost_B.sum()

    (gradient_LK,) = torch.autograd.grad(total(weights_LK), weights_LK)
    with torch.no_grad():
        for index in product(*map(range, weights_LK.shape)):
            nudge_LK = torch.zeros_like(weights_LK)
            nudge_LK[index] = step
            slope = (total(weights_LK + nudge_LK) - total(weights_LK - nudge_LK)) / (2 * step)
            error = (slope - gradient_LK[index]).abs().item()
            require(estimator, error < 1e-6 * (1 + abs(slope.item())), f"decoder gradient {slope}", gradient_LK[index])
    return "ordinary backpropagation"


def check_constant_cost(estimator: Estimator) -> str:
    """A cost that does not depend on the code gives a gradient of mean zero."""
    if estimator.objective == "bound":
        return "does not apply: the bound holds the KL, which is not constant"
    logits_NLK = logits_for(estimator)[0].expand(N_REPLICAS, -1, -1)
    _, gradient_NLK = run(estimator, logits_NLK, lambda z_SBLK: 3.0 + 0.0 * z_SBLK.sum((-1, -2)))
    largest = z_scores(gradient_NLK, torch.zeros_like(gradient_NLK[0])).abs().max().item()
    require(estimator, largest < MAX_Z, f"mean zero gradient of a constant, |z| < {MAX_Z}", largest)
    return f"mean zero, |z| = {largest:.1f}"


def check_determinism(estimator: Estimator, dtype: torch.dtype = torch.float64, model: Shape | None = None) -> str:
    """The same seed of torch's generator gives the same bits, and the generator is not seeded in a call."""
    logits_BLK, cost = logits_for(estimator, model=model).to(dtype), cost_for(estimator, model)
    first, second = (run(estimator, logits_BLK, cost, seed=7, model=model) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        same = "the same bits from the same seed of torch's generator"
        require(estimator, torch.equal(one, other), same, f"a difference of {(one - other).abs().max():.1e}")
    with torch.random.fork_rng(devices=[]):
        states = [
            _noise_after_a_call(prepared(estimator, logits_BLK, model), logits_BLK, cost, seed) for seed in (0, 1)
        ]
    require(estimator, not torch.equal(*states), "noise that goes on", "the same noise in every call: a seed is set")
    return "same seed, same bits"


def _noise_after_a_call(estimator: Estimator, logits_BLK: Tensor, cost: Cost, seed: int) -> Tensor:
    torch.manual_seed(seed)
    estimator(logits_BLK.detach().requires_grad_(), cost)
    return torch.get_rng_state()


def check_state(estimator: Estimator) -> str:
    """Its state dict has all that its calls change: a checkpoint has no more, and runs go on from checkpoints."""
    old, new = (prepared(estimator, logits_for(estimator)).train() for _ in range(2))
    for seed in range(N_CALLS):
        logits_BLK = logits_for(estimator).requires_grad_()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cost_B = old(logits_BLK, cost_for(estimator)).cost_B
        torch.autograd.grad(cost_B.sum(), logits_BLK)  # some change in the backward pass
    new.load_state_dict(old.state_dict())
    results = (call(each, logits_for(estimator), cost_for(estimator), seed=N_CALLS) for each in (old, new))
    for one, other in zip(*results, strict=True):
        same = "the bits that a new object with its state dict gives; keep what changes in buffers (register_buffer)"
        require(estimator, torch.equal(one, other), same, f"a difference of {(one - other).abs().max():.1e}")
    return f"a new object with its state dict gives the same bits after {N_CALLS} calls"


def check_counts(estimator: Estimator) -> str:
    """No more codes are evaluated than `n_cost_evals` says, and no fewer than `min_samples`."""
    for n_latents, n_categories in shapes(estimator):
        spy = Spy(cubic_cost(example_weights(n_latents, n_categories)))
        run(estimator, example_logits(2, n_latents, estimator.n_outputs(n_categories)), spy)
        count, declared = sum(len(z_SBLK) for z_SBLK in spy.codes), estimator.n_cost_evals(n_latents, n_categories)
        most = f"at most n_cost_evals = {declared} evaluations for L={n_latents}, K={n_categories}"
        require(estimator, count <= declared, most, count)
        require(estimator, count >= estimator.min_samples, f"min_samples = {estimator.min_samples} evaluations", count)
    n_latents, n_categories = example_shape(estimator)
    return f"{estimator.n_cost_evals(n_latents, n_categories)} evaluations at L={n_latents}, K={n_categories}"


def check_black_box(estimator: Estimator) -> str:
    """Where values are declared to be enough, a cost without a derivative is."""
    if not estimator.black_box:
        return "needs a differentiable cost"

    def cost(z_SBLK: Tensor) -> Tensor:
        with torch.no_grad():
            return cost_for(estimator)(z_SBLK)

    for one, other in zip(
        run(estimator, logits_for(estimator), cost),
        run(estimator, logits_for(estimator), cost_for(estimator)),
        strict=True,
    ):
        require(estimator, torch.allclose(one, other), "the same gradient without a derivative of the cost", one)
    return "values of the cost are enough"


def check_cost_shape(estimator: Estimator) -> str:
    """A cost of the wrong shape is refused with the estimator's name."""
    for wrong in (lambda z_SBLK: z_SBLK.sum((0, -1, -2)), lambda z_SBLK: z_SBLK.sum(-1), lambda z_SBLK: z_SBLK.mean()):
        try:
            run(estimator, logits_for(estimator), wrong)
        except ValueError as error:
            expected = f"{estimator.name}: expected cost of shape (S, B) = ("
            require(estimator, str(error).startswith(expected), f"an error '{expected}…'", str(error))
        else:
            require(estimator, False, "a cost of the wrong shape to be refused", "an estimate")
    return "wrong shapes are refused"


def check_extremes(estimator: Estimator) -> str:
    """Codes stay valid, cost and gradient finite: logits of ±1e4, ties, π → 0 or 1, K=1, B=1, B=0, tau = 1e-3."""
    count = 0
    for temperature, (logits_BLK, shape), dtype in product((None, 1e-3), _extreme_logits(estimator), DTYPES):
        candidate = copy.deepcopy(estimator)
        for key in candidate.temperatures if temperature is not None else ():
            setattr(candidate, key, temperature)
        spy = Spy(cubic_cost(example_weights(*shape)))
        cost_B, gradient_BLK = run(candidate, logits_BLK.to(dtype), spy)
        for z_SBLK in spy.codes:
            _require_codes(candidate, z_SBLK)
        for what, tensor in (("cost", cost_B), ("gradient", gradient_BLK)):
            where = f"finite {what} for {dtype}, tau = {temperature or candidate.tau}, logits {logits_BLK.tolist()}"
            require(candidate, bool(tensor.isfinite().all()), where, tensor.tolist())
        count += 1
    return f"finite in {count} extreme settings"


def check_bias(estimator: Estimator) -> str:
    """Where unbiasedness is declared: mean cost and mean gradient equal enumeration, |z| < MAX_Z."""
    cost_z, gradient_z = (scores.abs().max().item() for scores in bias_scores(estimator))
    if not estimator.unbiased:
        return f"gradient |z| = {gradient_z:.1f}; declared biased"
    require(estimator, cost_z < MAX_Z, f"unbiased cost, |z| < {MAX_Z}", f"{cost_z:.1f}")
    require(estimator, gradient_z < MAX_Z, f"unbiased gradient, |z| < {MAX_Z}", f"{gradient_z:.1f}")
    return f"unbiased, cost |z| = {cost_z:.1f}, gradient |z| = {gradient_z:.1f}"


CHECKS: tuple[Check, ...] = (
    check_declaration,
    check_shapes_and_dtypes,
    check_codes,
    check_logit_gradient,
    check_decoder_gradient,
    check_constant_cost,
    check_determinism,
    check_state,
    check_counts,
    check_black_box,
    check_cost_shape,
    check_extremes,
    check_bias,
    check_logits_unchanged,
    check_independence,
    check_code_follows_logits,
)

SINGLE = (torch.float32,)
"""The dtype that runs have."""
QUICK: tuple[Callable[..., str], ...] = (
    partial(check_shapes_and_dtypes, dtypes=SINGLE),
    partial(check_codes, dtypes=SINGLE, n_examples=64),
    partial(check_gradient, dtype=torch.float32),
    partial(check_determinism, dtype=torch.float32),
    partial(check_logits_unchanged, dtype=torch.float32),
    partial(check_examples, dtype=torch.float32),
    partial(check_code_follows_logits, dtype=torch.float32),
)
"""The checks that a run makes of a plug-in before it starts, a few calls each: of an estimator, with `model`, the
latents and classes at which the run will have it."""


def _extreme_logits(estimator: Estimator) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Yield (logits_BLH, (L, K)) at the example shape and at K=1, wherever the estimator accepts them."""
    n_latents, n_categories = example_shape(estimator)
    width = estimator.n_outputs(n_categories)
    signs_LH = torch.arange(n_latents * width).view(1, n_latents, width) % 3 - 1.0
    first_H = (torch.arange(width) == 0).double()
    for logits_BLH in (
        signs_LH * 1e4,
        (torch.arange(n_latents).view(1, -1, 1) % 2 * -2.0 + 1).expand(1, n_latents, width) * 1e4,
        torch.zeros(2, n_latents, width),
        torch.stack([200 * first_H, -200 * first_H])[torch.arange(n_latents) % 2].unsqueeze(0),
        torch.zeros(0, n_latents, width),
    ):
        yield logits_BLH, (n_latents, n_categories)
    if accepts(estimator, n_latents, 1):
        yield torch.ones(3, n_latents, estimator.n_outputs(1)), (n_latents, 1)


def _require_codes(estimator: Estimator, z_SBLK: Tensor) -> None:
    require(estimator, bool(z_SBLK.isfinite().all()), "finite codes", "NaN or ∞")
    if estimator.relaxes or estimator.evaluates_soft:
        tolerance = max(8, z_SBLK.shape[-1]) * torch.finfo(z_SBLK.dtype).eps  # a sum of K rounded terms, in any order
        largest = (z_SBLK.double().sum(-1) - 1).abs().max().item() if z_SBLK.numel() else 0.0
        require(estimator, bool((z_SBLK >= 0).all()), "codes without negative entries", z_SBLK)
        require(estimator, largest <= tolerance, f"codes that sum to 1 within {tolerance:.0e}", f"off by {largest:.0e}")
    else:
        ones_SBL = (z_SBLK == 1).sum(-1)
        exact = (ones_SBL == 1).all() and (z_SBLK.count_nonzero(-1) == 1).all()
        require(estimator, bool(exact), "exactly one-hot codes", z_SBLK)
