"""Bias and noise of a gradient estimator, computed from block means.

The draws of an estimator are averaged in N_BLOCKS blocks; the truth is as many blocks, all the same where it is exact.
Everything below is a function of the inner products between blocks. A product of two *different* blocks has no noise
floor: its mean is the product of the means (a U-statistic; Hoeffding 1948, doi:10.1214/aoms/1177730196). Intervals are
jackknife ones over blocks with Student's t (Efron and Stein 1981, doi:10.1214/aos/1176345462).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

N_BLOCKS = 32
CONFIDENCE = 0.95
N_FLIPS = 9_999
EQUAL = 1e-12
"""Blocks that differ by less than this share of their squared length are equal."""
RESOLUTION = 1e-7
"""Inner products in float64 do not resolve smaller relative errors."""
MOST_EQUAL = 0.75
"""If a larger share of the blocks is equal, differing draws are too rare for an interval or a test."""

METRICS: Mapping[str, str] = {
    "relative_bias": "‖E ĝ − ∇‖ / ‖∇‖, the Monte Carlo noise floor subtracted; 0 where that leaves nothing",
    "relative_bias_low": f"lower end of its {CONFIDENCE:.0%} interval",
    "relative_bias_high": f"upper end of its {CONFIDENCE:.0%} interval",
    "p_value": "of the test that the bias is zero: signs of the blocks' errors flipped at random",
    "cosine": "between E ĝ and ∇, the noise floor subtracted",
    "cosine_low": f"lower end of its {CONFIDENCE:.0%} interval",
    "cosine_high": f"upper end of its {CONFIDENCE:.0%} interval",
    "variance": "trace of the covariance of one draw",
    "mse": "E ‖ĝ − ∇‖², the variance and the squared bias",
    "snr": "‖E ĝ‖ / √variance, the signal-to-noise ratio",
}
"""What `quality` returns, in words."""
_INTERVALS = ("relative_bias_low", "relative_bias_high", "p_value", "cosine_low", "cosine_high")


def quality(
    gram: Array,
    draws_per_block: int,
    mean_square: float | None = None,
    *,
    noisy: bool = True,
    rounding: float = 0.0,
) -> dict[str, float]:
    """Return all METRICS; NaN or ∞ where one is undefined (no noise, no gradient, or only noise).

    `gram` (2J, 2J) holds the inner products of the J block means of the estimator and then the J of the truth.
    Squared norms, hence the variance and the MSE, are in the units of `gram`. `mean_square` is that of single draws, if
    it is known; otherwise the spread of the blocks tells the variance, less sharply. `rounding` is the length, relative
    to the true gradient's, below which an error is one of rounding: no bias; from 1 on there is no gradient to compare.
    Equal blocks of an estimator that is `noisy` say that its draws were too few: no interval then, and no p-value.
    """
    if not np.isfinite(gram).all():
        return dict.fromkeys(METRICS, np.nan)
    n_blocks, rounding = len(gram) // 2, max(rounding, RESOLUTION)
    errors = _errors(gram)
    bias2, norm2, mean2, _ = _moments(gram)
    n_draws, square = draws_per_block, np.trace(gram[:n_blocks, :n_blocks]) / n_blocks
    if mean_square is not None:
        n_draws, square = 1, mean_square
    variance = n_draws * (square - mean2) if square - mean2 > EQUAL * square else 0.0
    found = {"variance": float(variance), "mse": float(variance + max(0.0, bias2))}
    with np.errstate(divide="ignore", invalid="ignore"):
        found["snr"] = float(np.sqrt(np.float64(max(0.0, mean2)) / np.float64(variance)))
    if norm2 <= 0 or rounding >= 1:
        return dict.fromkeys(METRICS, np.nan) | found
    found |= _bias(gram, bias2, norm2, rounding) | _direction(gram)
    found["p_value"] = _p_value(errors)
    if noisy and _share_of_equal_blocks(gram[:n_blocks, :n_blocks]) > MOST_EQUAL:
        found |= dict.fromkeys(_INTERVALS, np.nan)
    if errors.mean() <= rounding**2 * norm2 and bias2 <= rounding**2 * norm2:
        found |= {"relative_bias": 0.0, "relative_bias_low": 0.0, "relative_bias_high": rounding, "p_value": 1.0}
    return {name: found[name] for name in METRICS}


def _bias(gram: Array, bias2: float, norm2: float, rounding: float) -> dict[str, float]:
    """Return the relative bias and its interval.

    The upper end starts from a square of at least 0: noise may make its estimate, and both ends, negative.
    """
    low, high = _interval(gram, _relative_squared_bias)
    return {
        "relative_bias": float(np.sqrt(max(0.0, bias2) / norm2)),
        "relative_bias_low": float(np.sqrt(max(0.0, low))),
        "relative_bias_high": max(float(np.sqrt(max(high, (high - low) / 2))), rounding),
    }


def _direction(gram: Array) -> dict[str, float]:
    low, high = _interval(gram, _cosine)
    values = {"cosine": _cosine(gram), "cosine_low": low, "cosine_high": high}
    return {name: float(np.clip(value, -1, 1)) for name, value in values.items()}


def _share_of_equal_blocks(blocks: Array) -> float:
    """Return the share of the blocks that are equal to the most frequent one."""
    length2 = np.diag(blocks)
    distance2 = length2[:, None] + length2 - 2 * blocks
    equal = distance2 <= EQUAL * np.maximum(length2[:, None], length2)
    return float(equal.mean(1).max())


def relative_standard_error(truth_gram: Array) -> float:
    """Return the standard error of a truth that is itself an average, relative to its norm: 0 for an exact one."""
    n_blocks = len(truth_gram)
    norm2 = _off_diagonal(truth_gram)
    error2 = max(0.0, np.trace(truth_gram) / n_blocks - norm2) / n_blocks
    return float(np.sqrt(error2 / norm2)) if norm2 > 0 else np.nan


def _errors(gram: Array) -> Array:
    """Return inner products of the errors: block mean of the estimator minus block mean of the truth."""
    n_blocks = len(gram) // 2
    mean, truth, cross = gram[:n_blocks, :n_blocks], gram[n_blocks:, n_blocks:], gram[:n_blocks, n_blocks:]
    return mean - cross - cross.T + truth


def _moments(gram: Array) -> tuple[float, float, float, float]:
    """Return unbiased estimates of ‖E ĝ − ∇‖², ‖∇‖², ‖E ĝ‖² and (E ĝ)·∇."""
    n_blocks = len(gram) // 2
    mean, truth, cross = gram[:n_blocks, :n_blocks], gram[n_blocks:, n_blocks:], gram[:n_blocks, n_blocks:]
    return _off_diagonal(_errors(gram)), _off_diagonal(truth), _off_diagonal(mean), _off_diagonal(cross)


def _off_diagonal(square: Array) -> float:
    n_blocks = len(square)
    return float((square.sum() - np.trace(square)) / (n_blocks * (n_blocks - 1)))


def _relative_squared_bias(gram: Array) -> float:
    bias2, norm2, _, _ = _moments(gram)
    return bias2 / norm2 if norm2 > 0 else np.nan


def _cosine(gram: Array) -> float:
    _, norm2, mean2, product = _moments(gram)
    return float(product / np.sqrt(mean2 * norm2)) if mean2 > 0 and norm2 > 0 else np.nan


def _interval(gram: Array, statistic: Callable[[Array], float]) -> tuple[float, float]:
    from scipy.special import stdtrit  # not at the top: a third of a worker's start

    n_blocks = len(gram) // 2
    kept = (np.delete(np.arange(2 * n_blocks), [i, n_blocks + i]) for i in range(n_blocks))
    without = np.array([statistic(gram[np.ix_(rest, rest)]) for rest in kept])
    error = np.sqrt((n_blocks - 1) * without.var())
    half = stdtrit(n_blocks - 1, (1 + CONFIDENCE) / 2) * error
    centre = statistic(gram)
    return centre - half, centre + half


def _p_value(errors: Array) -> float:
    """Return how often random signs of the errors make their mean at least as long; 1 if there is no error at all.

    With no bias the errors of blocks are symmetric about 0, or nearly so: each is the mean of many draws.
    """
    cross = errors - np.diag(np.diag(errors))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(N_FLIPS, len(errors)))
    flipped = np.einsum("fi,ij,fj->f", signs, cross, signs, optimize=True)
    slack = 1e-9 * np.abs(cross).sum()
    return float((1 + (flipped >= cross.sum() - slack).sum()) / (1 + N_FLIPS))
