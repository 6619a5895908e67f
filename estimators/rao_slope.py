"""The mean slope of a softmax over Gumbel noise that leads to a given class, in few operations an entry.

Letters: M draws, N latents, R = K − 1 classes: all but the sampled one. Classes come before N, so that every operation
runs along the longest rows.

With E ~ Exp(1), i the sampled class and x = log π + G given that its argmax is i: x_i = −log E_i and
x_j = −log(E_j/π_j + E_i). So x_j − x_i = log π_j + log(E_i / (E_i π_j + E_j)): 0 at most, and no probability, however
small, is a divisor. Reference: Paulus, Maddison, Krause (2021), arXiv:2010.04838, section 3.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from estimators.gumbel import given

ENTRIES_AT_ONCE = 2**17
"""Conditional noise is made for that many classes at once: what a chunk needs stays in a processor's own cache."""


def mean_slope(
    grad_NK: Tensor, log_probs_NK: Tensor, class_N: Tensor, generator: torch.Generator, tau: float | Tensor,
    n_draws: int, *, learns_tau: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the mean over the draws of J(softmax(x/τ)) · grad / τ, (N, K), and its slope in τ: 0 unless `learns_tau`.

    A constant may be subtracted from `grad`: here the slope at the sampled class, so that only the others are left.
    """
    index_1N = class_N[None]
    log_probs_RN = _others(log_probs_NK.T, index_1N)
    grad_RN = _others(grad_NK.T, index_1N) - grad_NK.T.gather(0, index_1N)
    slope_RN, slope_tau = torch.zeros_like(grad_RN), grad_RN.new_zeros(())
    is_one = not learns_tau and not isinstance(tau, Tensor) and tau == 1
    for noise_MKN in stratified(n_draws, grad_NK.T, generator):
        first_M1N, rest_MRN = noise_MKN[:, :1], noise_MKN[:, 1:]
        if is_one:
            prob_MRN = _ratios(log_probs_RN, first_M1N, rest_MRN)
        else:
            log_ratio_MRN = log_ratios(log_probs_RN, first_M1N, rest_MRN).div_(tau)
            prob_MRN = log_ratio_MRN.exp()
        prob_MRN.mul_(prob_MRN.sum(1, keepdim=True).add_(1).reciprocal_())
        mean_M1N = (prob_MRN * grad_RN).sum(1, keepdim=True)
        slope_MRN = torch.sub(grad_RN, mean_M1N).mul_(prob_MRN)
        slope_RN += slope_MRN.sum(0)
        if learns_tau:
            slope_tau -= (slope_MRN * log_ratio_MRN).sum()
    scale = 1 / (n_draws * tau)
    return (scale * _with_sampled(slope_RN, index_1N)).T, scale * slope_tau


def stratified(n_draws: int, like_KN: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield −E (M, K, N) in chunks of the draws, E ~ Exp(1): the logarithms of uniform numbers u.

    u = v + s/n_draws mod 1, where each entry (k, n) has its own v, uniform on [0, 1), and each class its own random
    order s of 0 … n_draws − 1. So every draw has the law of independent noise. Over the draws, an entry has one u in
    each stratum of [0, 1), as in Latin hypercube sampling (McKay, Beckman, Conover 1979, Technometrics 21(2)), and one
    generated number serves n_draws.
    """
    dtype, device = like_KN.dtype, like_KN.device
    shift_KN = torch.rand(like_KN.shape, dtype=dtype, device=device, generator=generator)
    place_MK1 = torch.rand((n_draws, len(like_KN), 1), dtype=dtype, device=device, generator=generator).argsort(0)
    most = max(1, ENTRIES_AT_ONCE // max(1, like_KN.numel()))
    least = torch.finfo(dtype).eps / 4  # in the place of 0
    for begin in range(0, n_draws, most):
        strata_MK1 = place_MK1[begin : begin + most].to(dtype) / n_draws
        yield (shift_KN + strata_MK1).frac_().clamp_(min=least).log_()


def relaxations(law_SBLK: Tensor, class_SBL: Tensor, n_draws: int) -> Tensor:
    """Return x (M, S, B, L, K) in the noise of `stratified` and the default generator: one tensor, for torch.func."""
    shift_SBLK = torch.rand((*class_SBL.shape, law_SBLK.shape[-1]), dtype=law_SBLK.dtype, device=law_SBLK.device)
    order_MK = torch.rand((n_draws, law_SBLK.shape[-1]), dtype=law_SBLK.dtype, device=law_SBLK.device).argsort(0)
    u_MSBLK = (shift_SBLK + (order_MK / n_draws)[:, None, None, None]).frac()
    noise_MSBLK = -u_MSBLK.clamp(min=torch.finfo(law_SBLK.dtype).eps / 4).log()
    return given(law_SBLK, class_SBL, noise_MSBLK.log())


def log_ratios(log_probs_RN: Tensor, first_M1N: Tensor, rest_MRN: Tensor) -> Tensor:
    """Return x_j − x_i (M, R, N), from −E_i and −E_j."""
    denominator_MRN = torch.addcmul(rest_MRN, first_M1N, log_probs_RN.exp())
    return torch.div(first_M1N, denominator_MRN, out=denominator_MRN).log_().add_(log_probs_RN)


def _ratios(log_probs_RN: Tensor, first_M1N: Tensor, rest_MRN: Tensor) -> Tensor:
    """Return exp(x_j − x_i) without a logarithm; what is below the smallest number is 0."""
    numerator_MRN = first_M1N * log_probs_RN.exp()
    return numerator_MRN.div_(rest_MRN + numerator_MRN)


def _others(value_KN: Tensor, index_1N: Tensor) -> Tensor:
    """Return the values (R, N) of all classes but the sampled one: class 0 stands in its place."""
    return value_KN.clone(memory_format=torch.contiguous_format).scatter_(0, index_1N, value_KN[:1])[1:]


def _with_sampled(slope_RN: Tensor, index_1N: Tensor) -> Tensor:
    """Return the slopes (K, N) in the order of the classes; they sum to 0."""
    sampled_1N = -slope_RN.sum(0, keepdim=True)
    slope_KN = torch.cat([sampled_1N, slope_RN])
    slope_KN[:1] = slope_KN.gather(0, index_1N)
    return slope_KN.scatter_(0, index_1N, sampled_1N)
