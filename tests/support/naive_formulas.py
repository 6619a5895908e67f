"""Every published formula as loops over examples, samples and latents, with explicit Jacobians: slow and obvious.

`NAIVE[name](estimator, logits_BLK, cost, seed)` is the gradient of the summed cost with respect to the logits, given
the noise of that seed; f is evaluated on one code at a time. Those of later families are in families/.
"""

import torch

from estimators.reference_problem import exact_gradient


def value_and_slope(cost, z_LK):
    leaf_LK = z_LK.clone().requires_grad_()
    value = cost(leaf_LK[None, None])[0, 0]
    return value.item(), torch.autograd.grad(value, leaf_LK)[0]


def onehot(index, n_categories):
    z_K = torch.zeros(n_categories, dtype=torch.float64)
    z_K[index] = 1.0
    return z_K


def sampled_code(theta_LK, gumbel_LK):
    return torch.stack(
        [onehot(int(torch.argmax(x_K)), len(x_K)) for x_K in theta_LK + gumbel_LK],
    )


def softmax(x_K):
    weights_K = torch.exp(x_K - x_K.max())
    return weights_K / weights_K.sum()


def jacobian(p_K):
    return torch.diag(p_K) - torch.outer(p_K, p_K)


def entmax(x_K, alpha):
    """Bisection on the threshold t of p = max(0, (α−1)x − t)^{1/(α−1)}, Σp = 1."""
    scaled_K = (alpha - 1) * x_K
    low, high = scaled_K.max() - 1, scaled_K.max()
    for _ in range(200):
        middle = (low + high) / 2
        total = (scaled_K - middle).clamp(min=0).pow(1 / (alpha - 1)).sum()
        low, high = (middle, high) if total > 1 else (low, middle)
    return (scaled_K - low).clamp(min=0).pow(1 / (alpha - 1))


def entmax_jacobian(p_K, alpha):
    s_K = torch.where(p_K > 0, p_K ** (2 - alpha), torch.zeros_like(p_K))
    return torch.diag(s_K) - torch.outer(s_K, s_K) / s_K.sum()


def per_latent(matrices, slope_LK):
    return torch.stack([matrix_KK @ slope_K for matrix_KK, slope_K in zip(matrices, slope_LK, strict=True)])


def identity_ste(_, theta_LK, gumbel_LK, cost):
    return value_and_slope(cost, sampled_code(theta_LK, gumbel_LK))[1]


def argmax_ste(estimator, theta_LK, _, cost):
    slope_LK = value_and_slope(cost, sampled_code(theta_LK, torch.zeros_like(theta_LK)))[1]
    return per_latent([jacobian(softmax(x_K / estimator.tau)) / estimator.tau for x_K in theta_LK], slope_LK)


def straight_through(estimator, theta_LK, gumbel_LK, cost):
    slope_LK = value_and_slope(cost, sampled_code(theta_LK, gumbel_LK))[1]
    return per_latent([jacobian(softmax(x_K / estimator.tau)) / estimator.tau for x_K in theta_LK], slope_LK)


def st_gumbel_softmax(estimator, theta_LK, gumbel_LK, cost):
    slope_LK = value_and_slope(cost, sampled_code(theta_LK, gumbel_LK))[1]
    soft_LK = [softmax(x_K / estimator.tau) for x_K in theta_LK + gumbel_LK]
    return per_latent([jacobian(soft_K) / estimator.tau for soft_K in soft_LK], slope_LK)


def gumbel_softmax(estimator, theta_LK, gumbel_LK, cost):
    soft_LK = torch.stack([softmax(x_K / estimator.tau) for x_K in theta_LK + gumbel_LK])
    slope_LK = value_and_slope(cost, soft_LK)[1]
    return per_latent([jacobian(soft_K) / estimator.tau for soft_K in soft_LK], slope_LK)


def softmax_relaxation(estimator, theta_LK, _, cost):
    return gumbel_softmax(estimator, theta_LK, torch.zeros_like(theta_LK), cost)


def gumbel_entmax(estimator, theta_LK, gumbel_LK, cost, alpha=None):
    alpha = alpha or estimator.alpha
    soft_LK = torch.stack([entmax(x_K / estimator.tau, alpha) for x_K in theta_LK + gumbel_LK])
    slope_LK = value_and_slope(cost, soft_LK)[1]
    return per_latent([entmax_jacobian(soft_K, alpha) / estimator.tau for soft_K in soft_LK], slope_LK)


def gumbel_sparsemax(estimator, theta_LK, gumbel_LK, cost):
    return gumbel_entmax(estimator, theta_LK, gumbel_LK, cost, alpha=2.0)


def score(theta_LK, z_LK):
    """∇ log q(z) = D − π, for each latent."""
    return torch.stack([z_K - softmax(x_K) for x_K, z_K in zip(theta_LK, z_LK, strict=True)])


def reinforce(_, theta_LK, gumbel_LK, cost):
    z_LK = sampled_code(theta_LK, gumbel_LK)
    return value_and_slope(cost, z_LK)[0] * score(theta_LK, z_LK)


def sample_by_sample(formula):
    """Average a formula for one example and one noise over the samples."""

    def gradient(estimator, logits_BLK, gumbel_SBLK, cost):
        result_BLK = torch.zeros_like(logits_BLK)
        for b, theta_LK in enumerate(logits_BLK):
            for noise_BLK in gumbel_SBLK:
                result_BLK[b] += formula(estimator, theta_LK, noise_BLK[b], cost) / len(gumbel_SBLK)
        return result_BLK

    return gradient


def rloo(_, logits_BLK, gumbel_SBLK, cost):
    """Each sample against the mean of the others, as the baseline is defined."""
    result_BLK = torch.zeros_like(logits_BLK)
    n = len(gumbel_SBLK)
    for b, theta_LK in enumerate(logits_BLK):
        codes = [sampled_code(theta_LK, noise_BLK[b]) for noise_BLK in gumbel_SBLK]
        values = [value_and_slope(cost, z_LK)[0] for z_LK in codes]
        for i, z_LK in enumerate(codes):
            baseline = sum(values[j] for j in range(n) if j != i) / (n - 1)
            result_BLK[b] += (values[i] - baseline) * score(theta_LK, z_LK) / n
    return result_BLK


def exact(_, logits_BLK, __, cost):
    return torch.stack([exact_gradient(theta_LK, cost)[1] for theta_LK in logits_BLK])


def same_noise(n_samples, logits_BLK, seed=0):
    """The Gumbel noise (S, B, L, K) that an estimator draws after torch.manual_seed(seed)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return -torch.empty((n_samples, *logits_BLK.shape), dtype=logits_BLK.dtype).uniform_().log_().neg_().log()


def with_gumbel(formula):
    """Draw the noise that the estimator draws first, and pass it on."""

    def gradient(estimator, logits_BLK, cost, seed=0):
        return formula(estimator, logits_BLK, same_noise(estimator.n_samples, logits_BLK, seed), cost)

    return gradient


FORMULAS = {
    "identity_ste": sample_by_sample(identity_ste),
    "argmax_ste": sample_by_sample(argmax_ste),
    "straight_through": sample_by_sample(straight_through),
    "st_gumbel_softmax": sample_by_sample(st_gumbel_softmax),
    "gumbel_softmax": sample_by_sample(gumbel_softmax),
    "gumbel_sparsemax": sample_by_sample(gumbel_sparsemax),
    "gumbel_entmax": sample_by_sample(gumbel_entmax),
    "softmax": sample_by_sample(softmax_relaxation),
    "reinforce": sample_by_sample(reinforce),
    "rloo": rloo,
    "exact": exact,
}
NAIVE = {name: with_gumbel(formula) for name, formula in FORMULAS.items()}
