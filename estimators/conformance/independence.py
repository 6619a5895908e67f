"""Checks that a code depends on its own logits alone, and does not change them.

Letters: S samples, B examples, L latents, K classes. Every second row is compared, and the others are changed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from estimators.base import Estimator, Pathwise
from estimators.reference_problem import Shape, Spy, cost_for, logits_for, prepared, require, seeded

N_EXAMPLES = 8
TOLERANCE = 1e-5
"""Largest error of a gradient or a code, as a share of its largest entry, that counts as rounding."""


def check_logits_unchanged(estimator: Estimator, dtype: torch.dtype = torch.float64, model: Shape | None = None) -> str:
    """Check that a call does not change the logits, in training and in evaluation: the KL is computed from them too."""
    for is_training in (True, False):
        logits_BLK = logits_for(estimator, model=model).to(dtype).requires_grad_() * 1.0  # no leaf, as from an encoder
        before_BLK = logits_BLK.detach().clone()
        with seeded(0, logits_BLK), torch.set_grad_enabled(is_training):
            prepared(estimator, logits_BLK, model).train(is_training)(logits_BLK, cost_for(estimator, model))
        unchanged = torch.equal(logits_BLK.detach(), before_BLK)
        require(estimator, unchanged, "the logits unchanged", "them changed in place")
    return "the logits stay as they are"


def check_independence(estimator: Estimator) -> str:
    """Check that no example changes the code or gradient of another, and no latent if the estimator is pathwise."""
    check_examples(estimator)
    if isinstance(estimator, Pathwise):
        _check_rows(estimator, "latent", 1, torch.float64)
    return "each row on its own"


def check_examples(estimator: Estimator, dtype: torch.dtype = torch.float64, model: Shape | None = None) -> str:
    """Check that no example changes the code or gradient of another, and that no pathwise softmax is over latents.

    Weaker than `check_independence`: a temperature may be computed from all latents of an example.
    """
    _check_rows(estimator, "example", 0, dtype, model)
    if isinstance(estimator, Pathwise):
        own_BLK, _, z_SBLK, _ = _call(estimator, dtype, model)
        if z_SBLK.requires_grad and min(own_BLK.shape[1:]) > 1:
            from_latents = _reaches(z_SBLK[:, :, ::2, 0], own_BLK, (slice(None), slice(1, None, 2)))
            from_classes = _reaches(z_SBLK[..., 0], own_BLK, (slice(None), slice(None), slice(1, None)))
            over_latents = from_latents and not from_classes
            got = "one by the same class of other latents: a softmax over the wrong dimension"
            require(estimator, not over_latents, "a gradient of each latent by its own classes", got)
    return "each example on its own"


def _check_rows(estimator: Estimator, what: str, dim: int, dtype: torch.dtype, model: Shape | None = None) -> None:
    own_BLK, cost_B, z_SBLK, noise = _call(estimator, dtype, model)
    if own_BLK.shape[dim] < 2:
        return
    even = [slice(None, None, 2) if each == dim else slice(None) for each in range(3)]
    odd = [slice(1, None, 2) if each == dim else slice(None) for each in range(3)]
    outputs = [cost_B[::2]] if what == "example" else []
    outputs += [z_SBLK[:, *even]] if z_SBLK.requires_grad else []
    for output in outputs:
        only = not _reaches(output, own_BLK, odd)
        require(estimator, only, f"a gradient of each {what} by its own logits alone", f"one by another {what}'s")
    _, _, changed_SBLK, other_noise = _call(estimator, dtype, model, flipped=odd)
    same_noise = torch.equal(noise, other_noise)  # else it draws until a sample is accepted
    if same_noise and z_SBLK.shape == changed_SBLK.shape:
        off = (z_SBLK[:, *even] - changed_SBLK[:, *even]).abs().max().item()
        expected = f"the code of each {what} from its own logits"
        require(estimator, off <= TOLERANCE, f"{expected} alone", f"one that another {what} changes by {off:.2g}")


def check_code_follows_logits(
    estimator: Estimator, dtype: torch.dtype = torch.float64, model: Shape | None = None
) -> str:
    """Check that a pathwise estimator gives different codes for different logits."""
    if not isinstance(estimator, Pathwise):
        return "does not apply: the gradient does not flow through the code"
    every = [slice(None)] * 3
    one_SBLK, other_SBLK = (_call(estimator, dtype, model, flipped, scale=20)[2] for flipped in ([slice(0, 0)], every))
    differ = one_SBLK.shape != other_SBLK.shape or not torch.equal(one_SBLK, other_SBLK)
    require(estimator, differ, "codes that follow the logits", "the same codes for opposite logits")
    return "the codes follow the logits"


def _call(
    estimator: Estimator,
    dtype: torch.dtype,
    model: Shape | None = None,
    flipped: Sequence[slice] = (),
    scale: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, cost, the first codes that the cost saw, and the state of the generator after the call.

    `flipped` are the rows whose logits get the opposite sign.
    """
    logits_BLK = scale * logits_for(estimator, N_EXAMPLES, model).to(dtype)
    if flipped:
        logits_BLK[*flipped] *= -1
    leaf_BLK, spy = logits_BLK.requires_grad_(), Spy(cost_for(estimator, model), with_graph=True)
    own = prepared(estimator, leaf_BLK, model)
    with seeded(0, leaf_BLK):
        cost_B = own(leaf_BLK, spy).cost_B
        noise = torch.get_rng_state()
    return leaf_BLK, cost_B, spy.codes[0], noise


def _reaches(output: Tensor, logits_BLK: Tensor, odd: Sequence[slice]) -> bool:
    """Return whether the gradient of a part of the output is not 0 at the rows that are not its own."""
    weights = torch.linspace(1, 9, output.numel(), dtype=torch.float64).sin().to(output.dtype).view(output.shape)
    (slopes,) = torch.autograd.grad((output * weights).sum(), logits_BLK, retain_graph=True, materialize_grads=True)
    return bool(slopes[*odd].abs().max() > TOLERANCE * slopes.abs().max())
