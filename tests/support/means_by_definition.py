"""The mean gradient of every biased estimator by its own definition: sums over codes, integrals over the noise.

A second derivation, which shares no code with the estimators. At two latents of two classes the noise of a latent is
one number x, the difference of its perturbed logits, so that a mean over all noise is an integral over two numbers.
`MEANS_BY_DEFINITION[name](estimator, logits_LH, cost)` is that mean, (L, H). Letters: Q nodes of the quadrature.
"""

import math
from itertools import pairwise, product

import numpy as np
import torch
from scipy import special, stats

from estimators.igr import moments
from estimators.reference_problem import N_REPLICAS, cubic_cost, example_weights, run

SIGNS_K = torch.tensor([1.0, -1.0], dtype=torch.float64)
NODES = 40


def slopes(cost, code_QLK):
    """∇f at each code."""
    leaf_QLK = code_QLK.clone().requires_grad_()
    return torch.autograd.grad(cost(leaf_QLK[None]).sum(), leaf_QLK)[0]


def two(first_QL):
    """Codes from the weights of their first classes."""
    return torch.stack([first_QL, 1 - first_QL], -1)


def quadrature(law, breaks):
    """Nodes and weights of E over x ~ law, a scipy distribution; the integrand may have kinks and jumps at the breaks.

    Gauss–Legendre in u = P(x), piece by piece; u = t² (3 − 2t) in each, so that ends where x is infinite do no harm.
    """
    t, weight = np.polynomial.legendre.leggauss(NODES)
    t, weight = (t + 1) / 2, weight / 2
    ends = [0.0, *sorted(float(law.cdf(x)) for x in breaks), 1.0]
    nodes, weights = [], []
    for low, high in pairwise(ends):
        if high - low > 1e-14:
            share, lower = high - low, t**2 * (3 - 2 * t)
            u, rest = low + share * lower, (1 - high) + share * (1 - lower)  # rest = 1 − u, without cancelling
            nodes.append(np.where(u < 0.5, law.ppf(u), law.isf(rest)))
            weights.append(share * 6 * t * (1 - t) * weight)
    return torch.tensor(np.concatenate(nodes)), torch.tensor(np.concatenate(weights))


def integral(laws, breaks, gradient):
    """E of gradient(x_QL) (Q, L, H) over independent x_l, one law for each of two latents."""
    (x_Q, weight_Q), (y_Q, other_Q) = (quadrature(law, breaks) for law in laws)
    x_QL, weights_Q = torch.cartesian_prod(x_Q, y_Q), torch.outer(weight_Q, other_Q).flatten()
    return (weights_Q[:, None, None] * gradient(x_QL)).sum(0)


def gumbel_laws(difference_L):
    return [stats.logistic(loc=d) for d in difference_L.tolist()]


def difference(logits_LK):
    return logits_LK[:, 0] - logits_LK[:, 1]


def through(cost, code_QL, slope_QL):
    """Slope of the code's first weight in the logits, times the slope of the cost."""
    slope_QLK = slopes(cost, two(code_QL))
    return (slope_QL * (slope_QLK[..., 0] - slope_QLK[..., 1]))[..., None] * SIGNS_K


def soft(x_QL, tau):
    """σ(x/τ) and its derivative."""
    s_QL = torch.sigmoid(x_QL / tau)
    return s_QL, s_QL * torch.sigmoid(-x_QL / tau) / tau


# One-hot codes, the noise in them and in the slope.


def st_gumbel_softmax(estimator, logits_LK, cost):
    def gradient(x_QL):
        return through(cost, (x_QL > 0).double(), soft(x_QL, estimator.tau)[1])

    return integral(gumbel_laws(difference(logits_LK)), [0.0], gradient)


def decoupled_st_gs(estimator, logits_LK, cost):
    """Both directions share the noise: the backward difference is x − φ/τ_f + φ/τ_b."""
    forward_L, backward_L = (difference(logits_LK) / tau for tau in (estimator.tau_forward, estimator.tau_backward))

    def gradient(x_QL):
        slope_QL = soft(x_QL - forward_L + backward_L, 1.0)[1] / estimator.tau_backward
        return through(cost, (x_QL > 0).double(), slope_QL)

    return integral(gumbel_laws(forward_L), [0.0], gradient)


def diffusion(estimator, phi_L, x_QL):
    """The first weight of the last soft code and its slope in φ, from x, the difference of two N(0, 1) numbers.

    With two classes the sampler acts on differences alone: p = σ(φ + α x/σ²), and p − (1 − p) = 2p − 1 denoises x.
    """
    alpha = np.concatenate([[1.0], np.linspace(1 - estimator.t_1, 1e-4, estimator.n_steps - 1)])
    to_x_QL = torch.zeros_like(x_QL)
    for i in range(estimator.n_steps - 1, 0, -1):
        scale, sigma, next_sigma = alpha[i] / (1 - alpha[i]) ** 2, 1 - alpha[i], 1 - alpha[i - 1]
        p_QL = torch.sigmoid(phi_L + scale * x_QL)
        slope_QL = p_QL * torch.sigmoid(-phi_L - scale * x_QL) * (1 + scale * to_x_QL)
        x_QL = alpha[i - 1] * (2 * p_QL - 1) + next_sigma * (x_QL - alpha[i] * (2 * p_QL - 1)) / sigma
        to_x_QL = 2 * alpha[i - 1] * slope_QL + next_sigma * (to_x_QL - 2 * alpha[i] * slope_QL) / sigma
    return p_QL, slope_QL


DIFFERENCE_OF_NORMALS = stats.norm(scale=math.sqrt(2))


def redge(estimator, logits_LK, cost):
    """Over the noise of the diffusion, and over the codes given the soft ones."""

    def gradient(x_QL):
        p_QL, slope_QL = diffusion(estimator, difference(logits_LK), x_QL)
        total = 0.0
        for code in product((0.0, 1.0), repeat=2):
            code_L = torch.tensor(code, dtype=torch.float64)
            prob_Q = torch.where(code_L == 1, p_QL, 1 - p_QL).prod(-1)
            total = total + prob_Q[:, None, None] * through(cost, code_L[None], slope_QL)
        return total

    return integral([DIFFERENCE_OF_NORMALS] * 2, [-0.5, 0.0, 0.5], gradient)


# One-hot codes, and no other noise: Σ_D π_D · formula(D).


def enumerated(slope):
    """The mean where the slope (L,) depends on the probabilities and on the code (L,) alone."""

    def mean(estimator, logits_LK, cost):
        probs_L, total_LK = torch.sigmoid(difference(logits_LK)), torch.zeros_like(logits_LK)
        for code in product((0.0, 1.0), repeat=2):
            code_L = torch.tensor(code, dtype=torch.float64)
            prob = torch.where(code_L == 1, probs_L, 1 - probs_L).prod()
            total_LK += prob * through(cost, code_L[None], slope(estimator, difference(logits_LK), code_L)[None])[0]
        return total_LK

    return mean


def own_probability(x_L, code_L):
    return torch.sigmoid(torch.where(code_L == 1, x_L, -x_L))


def straight_through(estimator, x_L, _):
    return soft(x_L, estimator.tau)[1]


def reinmax(estimator, x_L, code_L):
    middle_L = (soft(x_L, estimator.tau)[0] + code_L) / 2
    return 2 * middle_L * (1 - middle_L) - soft(x_L, 1.0)[1] / 2


def zgr(_, x_L, code_L):
    return (soft(x_L, 1.0)[1] + (code_L - torch.sigmoid(x_L)) ** 2) / 2


def darn(_, x_L, code_L):
    return (code_L - torch.sigmoid(x_L)) ** 2 / 2


def mve(estimator, x_L, code_L):
    """At two classes the Jacobian is one number for each code, a quadratic problem in one unknown: derived by hand."""
    own_L = own_probability(x_L, code_L)
    return (1 - own_L) / 2 * (1 + (2 * own_L - 1) / (1 + 4 * estimator.t * own_L * (1 - own_L)))


def gapped_st(estimator, x_L, code_L):
    """The code's logit is the largest, the other at least a gap below it: their difference is max(|φ|, gap), or gap
    where the code is not the mode."""
    own_L = own_probability(x_L, code_L)
    gap_L = -(1 - own_L).log() / own_L if estimator.gap == "p" else torch.full_like(own_L, estimator.gap)
    is_mode_L = (x_L > 0) == (code_L == 1)
    above_L = torch.where(is_mode_L, torch.maximum(x_L.abs(), gap_L), gap_L)
    return soft(above_L, estimator.tau)[1]


def reinmax_rao(estimator, x_L, code_L):
    """Gumbel-Rao half-way: noise about the log-odds of ½(π + D), given the side on which the code lies."""
    slope_L = []
    for probability, code in zip(torch.sigmoid(x_L).tolist(), code_L.tolist(), strict=True):
        law = stats.logistic(loc=special.logit((probability + code) / 2))
        node_Q, weight_Q = quadrature(law, [0.0])
        weight_Q = weight_Q * ((node_Q > 0) == (code == 1))
        slope_L.append((weight_Q * soft(node_Q, estimator.tau)[1]).sum() / weight_Q.sum())
    return 2 * torch.stack(slope_L) - soft(x_L, 1.0)[1] / 2


def identity_ste(_, logits_LK, cost):
    total_LK, probs_LK = torch.zeros_like(logits_LK), logits_LK.softmax(-1)
    for first, second in product(range(2), repeat=2):
        code_LK = torch.eye(2, dtype=torch.float64)[[first, second]]
        total_LK += probs_LK[0, first] * probs_LK[1, second] * slopes(cost, code_LK[None])[0]
    return total_LK


def argmax_ste(estimator, logits_LK, cost):
    x_L = difference(logits_LK)
    return through(cost, (x_L > 0).double()[None], soft(x_L, estimator.tau)[1][None])[0]


def imle(estimator, logits_LK, cost):
    """(D − D')/λ, D' the side of x − λ(g_0 − g_1): probabilities that x lies between the two thresholds."""
    x_L, lam, total_LK = difference(logits_LK), estimator.lam, torch.zeros_like(logits_LK)
    for latent, own, other in product(range(2), (0.0, 1.0), (0.0, 1.0)):
        code_L = torch.tensor([own, other] if latent == 0 else [other, own], dtype=torch.float64)
        slope_K = slopes(cost, two(code_L)[None])[0, latent]
        threshold = lam * (slope_K[0] - slope_K[1])
        at_zero, at_threshold = torch.sigmoid(x_L[latent]), torch.sigmoid(x_L[latent] - threshold)  # P(x > ·)
        crossing = (at_zero - at_threshold if own else at_threshold - at_zero).clamp(min=0)
        prob = own_probability(x_L[1 - latent], torch.tensor(other))
        total_LK[latent] += prob * crossing * (2 * own - 1) / lam * SIGNS_K
    return total_LK


def aimle(estimator, logits_LK, cost):
    """(D₊ − D₋)/(2λ), where x is nearer to 0 than λ|g_0 − g_1|; λ of a first call, over all codes."""
    x_L, probs, slopes_LK = difference(logits_LK), [], []
    for code in product((0.0, 1.0), repeat=2):
        code_L = torch.tensor(code, dtype=torch.float64)
        probs.append(own_probability(x_L, code_L).prod())
        slopes_LK.append(slopes(cost, two(code_L)[None])[0])
    square = sum(p * ((g[:, 0] - g[:, 1]) / 2).square().mean() for p, g in zip(probs, slopes_LK, strict=True))
    assert estimator.step.weight == 0
    lam, total_LK = estimator.step.beta / square.sqrt(), torch.zeros_like(logits_LK)
    for code, slope_LK in zip(product((0.0, 1.0), repeat=2), slopes_LK, strict=True):
        step_L = lam * (slope_LK[:, 0] - slope_LK[:, 1])
        for latent, own in enumerate(code):
            end = (2 * own - 1) * step_L[latent].abs()  # x lies between 0, on the side of the code, and this
            crossing = (torch.sigmoid(x_L[latent]) - torch.sigmoid(x_L[latent] - end)).abs()
            crossing *= own_probability(x_L[1 - latent], torch.tensor(code[1 - latent]))
            total_LK[latent] += crossing * step_L[latent].sign() / (2 * lam) * SIGNS_K
    return total_LK


# Soft codes.


def gumbel_softmax(estimator, logits_LK, cost):
    def gradient(x_QL):
        return through(cost, *soft(x_QL, estimator.tau))

    return integral(gumbel_laws(difference(logits_LK)), [0.0], gradient)


def redge_soft(estimator, logits_LK, cost):
    def gradient(x_QL):
        return through(cost, *diffusion(estimator, difference(logits_LK), x_QL))

    return integral([DIFFERENCE_OF_NORMALS] * 2, [-0.5, 0.0, 0.5], gradient)


def softmax(estimator, logits_LK, cost):
    return through(cost, *(each[None] for each in soft(difference(logits_LK), estimator.tau)))[0]


def gaussian_softmax(estimator, logits_LK, cost):
    laws = [stats.norm(loc=d, scale=math.sqrt(2)) for d in difference(logits_LK).tolist()]
    return integral(laws, [0.0], lambda x_QL: through(cost, *soft(x_QL, estimator.tau)))


def entmax(x_QL, alpha):
    """The first weight p of two and dp/dx: ((α−1)x − t)₊^{1/(α−1)}, t by bisection; ab/(a + b), a = p^{2−α}."""
    high_QL = (alpha - 1) * x_QL.clamp(min=0)
    low_QL = high_QL - 1
    for _ in range(100):
        middle_QL = (low_QL + high_QL) / 2
        parts = [
            ((alpha - 1) * y - middle_QL).clamp(min=0) ** (1 / (alpha - 1)) for y in (x_QL, torch.zeros_like(x_QL))
        ]
        too_much = sum(parts) > 1
        low_QL, high_QL = torch.where(too_much, middle_QL, low_QL), torch.where(too_much, high_QL, middle_QL)
    p_QL = (((alpha - 1) * x_QL - low_QL).clamp(min=0) ** (1 / (alpha - 1))).clamp(max=1)
    inside_QL = x_QL.abs() < 1 / (alpha - 1)
    a_QL, b_QL = p_QL ** (2 - alpha), (1 - p_QL) ** (2 - alpha)
    return p_QL, torch.where(inside_QL, a_QL * b_QL / (a_QL + b_QL), 0.0)


def gumbel_entmax(estimator, logits_LK, cost, alpha=None):
    alpha, tau = alpha or estimator.alpha, estimator.tau
    edge = tau / (alpha - 1)

    def gradient(x_QL):
        code_QL, slope_QL = entmax(x_QL / tau, alpha)
        return through(cost, code_QL, slope_QL / tau)

    return integral(gumbel_laws(difference(logits_LK)), [-edge, 0.0, edge], gradient)


def gumbel_sparsemax(estimator, logits_LK, cost):
    return gumbel_entmax(estimator, logits_LK, cost, alpha=2.0)


def igr(estimator, logits_LH, cost):
    """u = μ + σN against a threshold of 0; the head's two numbers move u by 1 and by N dσ."""
    leaf_LH = logits_LH.clone().requires_grad_()
    mean_L, scale_L = (part[0, :, 0] for part in moments(leaf_LH[None]))
    (raw_slope_LH,) = torch.autograd.grad(scale_L.sum(), leaf_LH)
    mean_L, scale_L = mean_L.detach(), scale_L.detach()

    def gradient(noise_QL):
        code_QL, slope_QL = soft(mean_L + scale_L * noise_QL, estimator.tau)
        first_QL = through(cost, code_QL, slope_QL)[..., 0]
        return torch.stack([first_QL, first_QL * noise_QL * raw_slope_LH[:, 1]], -1)

    return integral([stats.norm(), stats.norm()], [], gradient)


def perturbed_argmax(estimator, logits_LK, cost):
    """Sums over how many of the draws take the first class; a draw's noise has a mean of its own given its class."""
    n, tau = estimator.n_draws, estimator.tau
    edge_L = -difference(logits_LK) / (tau * math.sqrt(2))
    above_L = torch.tensor(stats.norm.sf(edge_L.numpy()))
    density_L = torch.tensor(stats.norm.pdf(edge_L.numpy())) / math.sqrt(2)
    noise_LK = torch.stack([density_L / above_L, -density_L / (1 - above_L)], -1)  # E[N_0 | class]; N_1 is its negative
    total_LK = torch.zeros_like(logits_LK)
    for first, second in product(range(n + 1), repeat=2):
        share_L = torch.tensor([first, second], dtype=torch.float64) / n
        prob = math.prod(stats.binom.pmf(c, n, p) for c, p in zip((first, second), above_L.tolist(), strict=True))
        slope_LK = slopes(cost, two(share_L)[None])[0]
        first_L = (two(share_L) * noise_LK / tau * slope_LK).sum(-1)
        total_LK += prob * first_L[:, None] * SIGNS_K
    return total_LK


MEANS_BY_DEFINITION = {
    "identity_ste": identity_ste,
    "argmax_ste": argmax_ste,
    "straight_through": enumerated(straight_through),
    "st_gumbel_softmax": st_gumbel_softmax,
    "gumbel_rao": st_gumbel_softmax,  # the conditional mean of the same random variable
    "gapped_st": enumerated(gapped_st),
    "decoupled_st_gs": decoupled_st_gs,
    "reinmax": enumerated(reinmax),
    "zgr": enumerated(zgr),
    "darn": enumerated(darn),
    "reinmax_rao": enumerated(reinmax_rao),
    "mve": enumerated(mve),
    "redge": redge,
    "redge_soft": redge_soft,
    "imle": imle,
    "aimle": aimle,
    "gumbel_softmax": gumbel_softmax,
    "gumbel_sparsemax": gumbel_sparsemax,
    "gumbel_entmax": gumbel_entmax,
    "softmax": softmax,
    "gaussian_softmax": gaussian_softmax,
    "igr": igr,
    "perturbed_argmax": perturbed_argmax,
}


LOGITS_LK = torch.tensor([[0.6, -0.3], [-0.4, 0.9]], dtype=torch.float64)


COST = cubic_cost(example_weights(2, 2))


def draws(estimator, seed=0):
    return run(estimator, LOGITS_LK.expand(N_REPLICAS, -1, -1), COST, seed)[1]
