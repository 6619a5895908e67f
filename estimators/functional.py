"""Estimators in a training loop of your own: `sample` a code, `expect` a cost, or `draw_codes` whose costs come later.

Letters, besides those of the contract: N and the shapes of your logits are yours, since any leading shape is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.distributions import Categorical, OneHotCategorical

from estimators.base import Estimate, Estimator, Pathwise, tensor_version
from estimators.draws_first import DrawsFirst
from estimators.resolve import check_draws_first, check_pathwise, resolve
from estimators.transforms import under_transform

Logits = Tensor | OneHotCategorical | Categorical


def sample(
    logits: Logits,
    estimator: str | Estimator,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    n_samples: int | None = None,
    **params: Any,
) -> Tensor:
    """Return codes of the shape of the logits, one-hot or soft in value, with the estimator's gradient.

    logits      any shape, with the classes along `dim`; or a categorical distribution of torch.
    estimator   the name of a pathwise estimator, whose parameters follow (`tau=1.1`), or such an object.
    mask        True for the classes that are allowed; any shape that broadcasts to that of the logits.
    n_samples   None: one code of the shape of the logits. A number: so many, along a new first dimension. An object
                that was built with another n_samples than 1 returns so many too.

    Raises ValueError, in one line, for logits, a mask or parameters that are impossible, and for an estimator whose
    gradient does not flow through the code: use `expect` for those.
    """
    caller = "sample"
    params = params if n_samples is None else {**params, "n_samples": n_samples}
    built = cast(Pathwise, resolve(caller, estimator, params, check_pathwise))
    found = _masked(caller, built, _tensor(caller, logits), mask, dim).movedim(dim, -1)
    z_SNLK = built.checked_sample(found.reshape(math.prod(found.shape[:-1]), 1, found.shape[-1])).to(found.dtype)
    z = z_SNLK.reshape(len(z_SNLK), *found.shape[:-1], z_SNLK.shape[-1])
    if n_samples is None and len(z) == 1:
        return z.squeeze(0).movedim(-1, dim)
    return z.movedim(-1, dim if dim < 0 else dim + 1)


def expect(
    logits: Logits,
    cost: Callable[[Tensor], Tensor],
    estimator: str | Estimator,
    *,
    batch_dims: int = 1,
    mask: Tensor | None = None,
    context: Tensor | None = None,
    **params: Any,
) -> Tensor:
    """Return an estimate of E[cost(z)], one for each example, whose gradient is the estimator's.

    logits      (batch, …, K): the first `batch_dims` dimensions are examples, the last holds the classes, and those
                between are variables of which the cost sees all.
    cost        codes (S, *shape of the logits) → numbers (S, batch). It may close over a decoder, which gets its
                ordinary gradient. Relaxing estimators call it with soft codes. Take S from the codes: some estimators
                call it several times, with different S.
    estimator   a name, whose parameters follow (`n_samples=4`), or an object. An estimator that learns from call to
                call must be an object: put its parameters into an optimiser, and `backward` trains them too.
    mask        True for the classes that are allowed; any shape that broadcasts to that of the logits.
    context     (batch, X): the data behind the logits, for estimators that use it.

    Raises ValueError, in one line, for logits, a mask, parameters or a cost that are impossible.
    """
    caller = "expect"
    built = resolve(caller, estimator, params)
    shape, logits_BLK = _as_batch(caller, built, logits, mask, batch_dims)

    def cost_of(z_SBLK: Tensor) -> Tensor:
        z = z_SBLK.reshape(len(z_SBLK), *shape[:-1], z_SBLK.shape[-1])
        return _checked_costs(caller, cost(z), (len(z), *shape[:batch_dims])).reshape(len(z), len(logits_BLK))

    estimate = built(logits_BLK, cost_of, _flat_context(caller, context, shape[:batch_dims]))
    return _trained_cost(estimate).reshape(shape[:batch_dims])


@final
@dataclass(frozen=True, eq=False)
class CodeDraw:
    """Codes whose costs are computed elsewhere: by a simulator, another process, or from the whole batch.

    z           one-hot codes (S, *shape of the logits).
    """

    z: Tensor
    _estimate: Callable[[Tensor], Estimate] = field(repr=False)
    _batch_shape: torch.Size = field(repr=False)
    _logits: Tensor = field(repr=False)
    _version: int = field(repr=False)

    def loss(self, cost: Tensor) -> Tensor:
        """Return an estimate of E[cost], one for each example, whose gradient is the estimator's.

        `cost` has the shape (S, batch): one number for each code of `z`. Call this once.

        Raises ValueError for another shape, for what is no floating-point tensor, and if the logits were changed in
        place since the draw, as an optimiser changes its parameters.
        """
        if tensor_version(self._logits) != self._version:
            raise ValueError(
                "draw_codes: expected the logits unchanged between the draw and its loss, got them changed in place,"
                " as by a step of an optimiser. Draw again."
            )
        cost = _checked_costs("draw_codes", cost, (len(self.z), *self._batch_shape))
        n_examples = math.prod(self._batch_shape)
        return _trained_cost(self._estimate(cost.reshape(len(cost), n_examples))).reshape(self._batch_shape)


def draw_codes(
    logits: Logits,
    estimator: str | Estimator,
    *,
    batch_dims: int = 1,
    mask: Tensor | None = None,
    context: Tensor | None = None,
    **params: Any,
) -> CodeDraw:
    """Draw codes now, and get the loss later: `draw.z` are the codes, `draw.loss(cost)` takes their costs.

    For every estimator that draws its codes before it needs a cost. The arguments are those of `expect`. The draw may
    be inside `torch.no_grad`, as in a rollout; the logits are not, since the loss needs their graph.

    Raises ValueError, in one line, for another estimator, and for logits, a mask or parameters that are impossible.
    """
    caller = "draw_codes"
    built = cast(DrawsFirst, resolve(caller, estimator, params, check_draws_first))
    with torch.enable_grad():  # the loss is for later, even where the draw is part of a rollout without gradients
        shape, logits_BLK = _as_batch(caller, built, logits, mask, batch_dims)
        flat = (_flat_context(caller, context, shape[:batch_dims]),) if built.uses_context else ()
        draw = built.draw(logits_BLK, *flat)
    z = draw.z_SBLK.detach().reshape(len(draw.z_SBLK), *shape[:-1], draw.z_SBLK.shape[-1])
    given = _tensor(caller, logits)
    return CodeDraw(z, draw.estimate, shape[:batch_dims], given, tensor_version(given))


def _tensor(caller: str, logits: object) -> Tensor:
    """Return logits as a tensor. Raises ValueError unless they are numbers with a dimension of classes."""
    if isinstance(logits, OneHotCategorical | Categorical):
        logits = logits.logits
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim == 0:
        got = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{caller}: expected floating-point logits of shape (…, K), got {got}.")
    return logits


def _masked(caller: str, estimator: Estimator, logits: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Return the logits with −inf where a class is forbidden. Raises ValueError for an impossible mask or `dim`."""
    if not isinstance(dim, int) or not -logits.ndim <= dim < logits.ndim:
        raise ValueError(f"{caller}: expected a dimension of the logits {tuple(logits.shape)}, got dim={dim!r}.")
    if logits.shape[dim] == 0:
        raise ValueError(f"{caller}: expected at least one class, got logits of shape {tuple(logits.shape)}.")
    if mask is None:
        return logits
    if estimator.n_outputs(logits.shape[dim]) != logits.shape[dim]:
        raise ValueError(f"{caller}: expected no mask for {estimator.name}, whose logits are not those of classes.")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{caller}: expected a mask of booleans, True for the allowed classes, got {got}.")
    try:
        allowed = mask.expand_as(logits)
    except RuntimeError as error:
        got = f"{tuple(mask.shape)} for {tuple(logits.shape)}"
        raise ValueError(f"{caller}: expected a mask that broadcasts to the logits, got {got}.") from error
    if not (torch.compiler.is_compiling() or under_transform()) and not bool(allowed.any(dim).all()):
        raise ValueError(
            f"{caller}: expected an allowed class for each variable, got a mask that forbids all classes of one."
        )
    return logits.masked_fill(~allowed, -torch.inf)


def _as_batch(
    caller: str, estimator: Estimator, logits: Logits, mask: Tensor | None, batch_dims: int
) -> tuple[torch.Size, Tensor]:
    """Return the shape of the logits, and the logits as (B, L, K). Raises ValueError where the estimator cannot."""
    if estimator.objective != "mean":
        raise ValueError(
            f"{caller}: expected an estimator of E[cost], got {estimator.name}, which estimates a bound that holds the"
            " KL to a uniform prior. Call the object itself: estimator(logits_BLK, cost)."
        )
    found = _tensor(caller, logits)
    if not isinstance(batch_dims, int) or not 0 <= batch_dims < found.ndim:
        rule = f"batch_dims from 0 to {found.ndim - 1} for logits {tuple(found.shape)}"
        hint = " Pass batch_dims=0: there is one example." if found.ndim == 1 else ""
        raise ValueError(
            f"{caller}: expected {rule}, whose last dimension holds the classes, got {batch_dims!r}.{hint}"
        )
    found = _masked(caller, estimator, found, mask)
    batch, variables = found.shape[:batch_dims], found.shape[batch_dims:-1]
    estimator.check_shape(math.prod(variables), found.shape[-1])
    return found.shape, found.reshape(math.prod(batch), math.prod(variables), found.shape[-1])


def _flat_context(caller: str, context: Tensor | None, batch: torch.Size) -> Tensor | None:
    """Return the context as (B, X). Raises ValueError unless it is a tensor with the batch of the logits."""
    if context is None:
        return None
    if not isinstance(context, Tensor) or context.shape[: len(batch)] != batch or context.ndim <= len(batch):
        got = str(tuple(context.shape)) if isinstance(context, Tensor) else type(context).__name__
        raise ValueError(f"{caller}: expected a context of shape (batch, X), batch = {tuple(batch)}, got {got}.")
    return context.reshape(math.prod(batch), -1)


def _checked_costs(caller: str, cost: object, shape: tuple[int, ...]) -> Tensor:
    """Return what a cost returned. Raises ValueError unless it is a floating-point tensor of that shape."""
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        got = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
        hint = "Convert them: torch.as_tensor(costs, dtype=torch.float32)."
        raise ValueError(f"{caller}: expected costs as a floating-point tensor {shape}, got {got}. {hint}")
    if cost.shape != shape:
        raise ValueError(
            f"{caller}: expected costs of shape (samples, batch) = {shape}, got {tuple(cost.shape)}."
            " Return one number for each sample of each example."
        )
    return cost


class _TrainedCost(torch.autograd.Function):
    """The cost, whose backward pass also trains the control loss: by the total weight of the costs, whatever its sign.

    So the estimator's own parameters learn the same from `-expect(…)`, and a loss scale scales their gradient too.
    """

    @staticmethod
    def forward(ctx: Any, cost_B: Tensor, control_loss: Tensor) -> Tensor:
        ctx.save_for_backward(control_loss)
        return cost_B.view_as(cost_B)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (control_loss,) = ctx.saved_tensors
        return gradients[0], gradients[0].abs().sum().to(control_loss.dtype).expand_as(control_loss)


def _trained_cost(estimate: Estimate) -> Tensor:
    if estimate.control_loss is None:
        return estimate.cost_B
    return cast(Tensor, _TrainedCost.apply(estimate.cost_B, estimate.control_loss))
