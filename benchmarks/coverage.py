"""How often the intervals of the report hold the truth, and how often its tests reject a true null hypothesis.

    python benchmarks/coverage.py --repetitions 5000

Simulated sweeps: the values of a method and of its baseline share an effect of the seed, three times as wide as the
noise of either, and the analysis sees their differences only. The differences are normal, heavy-tailed (Student's t
with 3 degrees of freedom) or skewed (lognormal, σ = 1), each with mean 0. Intervals and tests are the functions of
reports.statistics, or vectorised forms of them that tests/reports/test_statistics_coverage.py holds against them.
Coverage of a share and the level of the sign test are exact, by enumeration. Writes results/coverage.md and
coverage.json; no figure depends on the machine.
"""

import argparse
import functools
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import scipy.integrate
import scipy.optimize
import scipy.stats

from reports import statistics as st
from reports.statistics import intervals, paired

SIZES = (3, 5, 6, 8, 10, 20)
SEED_EFFECT = 3.0
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # quantile functions of differences with mean 0
    "normal": scipy.stats.norm.ppf,
    "heavy (t3)": lambda p: scipy.stats.t.ppf(p, 3),
    "skewed": lambda p: np.exp(scipy.stats.norm.ppf(p)) - math.exp(0.5),
}
Ends = tuple[np.ndarray, np.ndarray]


def differences(shape: str, repetitions: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return (repetitions, n) differences of a method and a baseline that share the effect of the seed."""
    seed_effect = SEED_EFFECT * rng.normal(size=(repetitions, n))
    baseline = seed_effect + rng.normal(size=(repetitions, n))
    method = baseline + SHAPES[shape](rng.random((repetitions, n)))
    return method - baseline


@functools.cache
def truth(shape: str, statistic: str) -> float:
    """Return the population's mean, median, IQM, pseudomedian or P(better)."""
    quantile = SHAPES[shape]
    if statistic == "mean":
        return 0.0
    if statistic == "median":
        return float(quantile(np.array(0.5)))
    if statistic == "iqm":
        return 2 * scipy.integrate.quad(quantile, 0.25, 0.75)[0]
    if statistic == "P(better)":
        return float(scipy.optimize.brentq(lambda p: quantile(np.array(p)), 1e-6, 1 - 1e-6))
    if shape != "skewed":
        return 0.0
    # The pseudomedian of exp(Z): P(X + Y <= 2m) = E[Phi(log(2m − X))] = 1/2.
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    x, weights = np.exp(z), weights / weights.sum()

    def below(m: float) -> float:
        rest = np.maximum(2 * m - x, 1e-300)
        return float(weights @ scipy.stats.norm.cdf(np.log(rest))) - 0.5

    return float(scipy.optimize.brentq(below, 0.5, 3.0)) - math.exp(0.5)


def t_ends(d: np.ndarray, confidence: float = 0.95) -> Ends:
    n = d.shape[1]
    half = scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * d.std(axis=1, ddof=1) / math.sqrt(n)
    return d.mean(axis=1) - half, d.mean(axis=1) + half


def bootstrap_ends(d: np.ndarray, statistic: str, method: str, rng: np.random.Generator, resamples: int) -> Ends:
    """Return the bootstrap intervals, 50 samples sharing their draws (memory)."""
    chunks = [
        intervals.bootstrap_ends(part, statistic, rng=rng, method=method, n_resamples=resamples)
        for part in np.array_split(d, max(1, len(d) // 50))
    ]
    return np.concatenate([low for low, _ in chunks]), np.concatenate([high for _, high in chunks])


def each(function: Callable[[np.ndarray], st.Interval], d: np.ndarray) -> Ends:
    found = [function(row) for row in d]
    return np.array([one.low for one in found]), np.array([one.high for one in found])


def methods(rng: np.random.Generator, resamples: int) -> dict[tuple[str, str], Callable[[np.ndarray], Ends]]:
    """Return the intervals under test by statistic and name; ★ marks the one that the report uses."""

    def bootstrap(statistic: str, method: str) -> Callable[[np.ndarray], Ends]:
        return lambda d: bootstrap_ends(d, statistic, method, rng, resamples)

    return {
        ("mean", "Student's t ★"): t_ends,
        ("mean", "bootstrap, percentile"): bootstrap("mean", "percentile"),
        ("mean", "bootstrap, BCa"): bootstrap("mean", "BCa"),
        ("median", "sign test ★"): lambda d: each(st.median_interval, d),
        ("median", "signed rank"): lambda d: each(st.signed_rank_interval, d),
        ("median", "bootstrap, percentile"): bootstrap("median", "percentile"),
        ("pseudomedian", "signed rank ★"): lambda d: each(st.signed_rank_interval, d),
        ("iqm", "trimmed t ★"): lambda d: each(st.iqm_interval, d),
        ("iqm", "bootstrap, percentile"): bootstrap("iqm", "percentile"),
        ("iqm", "bootstrap, BCa"): bootstrap("iqm", "BCa"),
        ("P(better)", "Clopper-Pearson ★"): lambda d: each(st.improvement_interval, d),
    }


def coverage(
    repetitions: int, resamples: int, seed: int = 0, sizes: Sequence[int] = SIZES, *, leave_out: str = "no such name"
) -> list[dict]:
    """Return a row per statistic, interval, shape and n: the share that holds the truth, and the median width."""
    rows = []
    rng = np.random.default_rng(seed)
    for shape in SHAPES:
        for n in sizes:
            d = differences(shape, repetitions, n, rng)
            for (statistic, name), function in methods(rng, resamples).items():
                if leave_out in name:
                    continue
                low, high = function(d)
                target = truth(shape, statistic)
                rows.append(
                    {
                        "statistic": statistic,
                        "interval": name,
                        "shape": shape,
                        "n": n,
                        "coverage": float(np.mean((low <= target) & (target <= high))),
                        "median_width": float(np.median(high - low)),
                        "finite": float(np.mean(np.isfinite(high - low))),
                    }
                )
    return rows


def share_coverage(n: int, name: str, ties: float = 0.0) -> dict:
    """Return the exact coverage of an interval of P(better) = p at n pairs, over p in [0, 1], with a share of ties."""
    p = np.linspace(0, 1, 1001)
    half_wins = np.arange(2 * n + 1)
    low, high = getattr(intervals, name)(half_wins / 2, n)
    win, tie, loss = p * (1 - ties), np.full_like(p, ties), (1 - p) * (1 - ties)
    mass = np.ones((1, len(p)))
    for _ in range(n):  # the distribution of 2·wins + ties, a pair at a time
        longer = np.zeros((len(mass) + 2, len(p)))
        longer[:-2] += mass * loss
        longer[1:-1] += mass * tie
        longer[2:] += mass * win
        mass = longer
    truth_ = p * (1 - ties) + ties / 2
    held = (low[:, None] <= truth_ + 1e-12) & (truth_ <= high[:, None] + 1e-12)
    covered = (mass * held).sum(axis=0)
    return {
        "interval": name,
        "n": n,
        "ties": ties,
        "least": float(covered.min()),
        "mean": float(covered.mean()),
        "at_half": float(covered[500]),
        "mean_width": float((mass * (high - low)[:, None]).sum(axis=0).mean()),
    }


def wilcoxon_rows(d: np.ndarray) -> np.ndarray:
    """Return `wilcoxon` along the last axis, for values without ties."""
    n = d.shape[-1]
    ranks = np.argsort(np.argsort(np.abs(d), axis=-1), axis=-1) + 1
    positive = (ranks * (d > 0)).sum(axis=-1)
    below = np.cumsum(paired._rank_sums(np.arange(1, n + 1)))
    return np.minimum(1, 2 * below[np.minimum(positive, n * (n + 1) // 2 - positive)])


def any_rejected(shape: str, repetitions: int, n: int, comparisons: int, rng: np.random.Generator) -> float:
    """Return the family-wise error of Wilcoxon with Holm: methods against one baseline, all of the same distribution.

    Holm rejects something exactly where the smallest p is at most .05 / comparisons.
    """
    noise = SHAPES[shape](rng.random((repetitions, comparisons + 1, n)))
    seed_effect = SEED_EFFECT * rng.normal(size=(repetitions, 1, n))
    values = seed_effect + noise
    p = wilcoxon_rows(values[:, 1:] - values[:, :1])
    return float(np.mean(p.min(axis=1) * comparisons <= 0.05 + 1e-12))


def false_equivalent(d: np.ndarray, band: float) -> float:
    """Return the rate of "equivalent" where the true mean is on the edge of the band: the worse of the two edges."""
    rates = []
    for edge in (-band, band):
        low, high = t_ends(d + edge, 0.9)
        rates.append(float(np.mean((-band < low) & (high < band))))
    return max(rates)


def levels(repetitions: int, seed: int = 1, sizes: Sequence[int] = SIZES) -> list[dict]:
    """Return a row per test, shape and n: the rate at which a true null hypothesis is rejected at 5 %."""
    rows = []
    rng = np.random.default_rng(seed)
    for shape in SHAPES:
        sd = math.sqrt({"normal": 1.0, "heavy (t3)": 3.0, "skewed": (math.e - 1) * math.e}[shape])
        for n in sizes:
            d = differences(shape, repetitions, n, rng)
            low, high = t_ends(d)
            found = {f"Wilcoxon + Holm, {m}": any_rejected(shape, repetitions, n, m, rng) for m in (1, 5, 10)}
            found["Student's t"] = float(np.mean((low > 0) | (high < 0)))
            found |= {f"equivalence, band {b:g} sd": false_equivalent(d, b * sd) for b in (0.5, 1, 2)}
            rows += [{"test": test, "shape": shape, "n": n, "rejected": rate} for test, rate in found.items()]
    return rows


def friedman_levels(repetitions: int, seed: int = 2) -> list[dict]:
    """Return the level of Friedman's test in both forms, χ² as the report uses it and Iman and Davenport's F."""
    rows = []
    rng = np.random.default_rng(seed)
    for k in (4, 10):
        for n_blocks in (3, 6, 10, 20):
            tables = rng.normal(size=(repetitions, n_blocks, k))
            ranks = scipy.stats.rankdata(tables, axis=2).mean(axis=1)
            chi2 = 12 * n_blocks / (k * (k + 1)) * np.sum((ranks - (k + 1) / 2) ** 2, axis=1)
            f_form = (n_blocks - 1) * chi2 / np.maximum(n_blocks * (k - 1) - chi2, 1e-9)
            p_f = scipy.stats.f.sf(f_form, k - 1, (k - 1) * (n_blocks - 1))
            rejected = {"chi2": np.array([st.friedman(table) for table in tables]) <= 0.05, "F": p_f <= 0.05}
            nemenyi = st.critical_difference(k, n_blocks) if n_blocks >= 6 else math.inf
            rejected["nemenyi"] = np.ptp(ranks, axis=1) > nemenyi
            rates = {name: float(np.mean(hits)) for name, hits in rejected.items()}
            rows.append({"methods": k, "blocks": n_blocks, **rates})
    return rows


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def pivot(rows: Sequence[dict], keys: Sequence[str], value: str, heading: str) -> list[str]:
    """Return a Markdown table: a line per combination of keys, a column per n."""
    import record

    sizes = sorted({row["n"] for row in rows})
    lines: dict[str, dict[int, str]] = {}
    for row in rows:
        text = "†" if row.get("finite", 1) == 0 else percent(row[value])
        lines.setdefault(" · ".join(row[key] for key in keys), {})[row["n"]] = text
    table = [[name, *(cells[n] for n in sizes)] for name, cells in lines.items()]
    return record.table([heading, *(f"n = {n}" for n in sizes)], table)


def page(figures: dict, repetitions: int, resamples: int) -> list[str]:
    import record

    error = math.sqrt(0.95 * 0.05 / repetitions)
    by_name = sorted(
        figures["coverage"], key=lambda row: list(methods(None, 0)).index((row["statistic"], row["interval"]))
    )
    shares = [
        [f"{row['interval']}, {row['ties']:.0%} ties", str(row["n"])]
        + [percent(row[name]) for name in ("least", "mean", "at_half")]
        + [f"{row['mean_width']:.2f}"]
        for row in figures["shares"]
    ]

    def nemenyi(row: dict) -> str:
        return percent(row["nemenyi"]) if row["blocks"] >= 6 else "refused"

    friedman = [
        [f"{row['methods']} methods", str(row["blocks"]), percent(row["chi2"]), percent(row["F"]), nemenyi(row)]
        for row in figures["friedman"]
    ]
    return [
        f"{repetitions} repetitions a figure: a Monte Carlo standard error of {100 * error:.2f} points at 95 % or 5 %. "
        f"Bootstraps of {resamples} resamples. Differences by seed, with mean 0; ★ marks what the report uses.",
        "",
        "## Coverage of nominal 95 % intervals, in per cent",
        "† no interval: with so few pairs its ends are infinite. *iqm* and *median* are those of the population.",
        "",
        *pivot(by_name, ("statistic", "interval", "shape"), "coverage", "interval"),
        "",
        "## Intervals of P(better) and of a performance profile: exact coverage, in per cent",
        "Over true shares p from 0 to 1: the least, the mean, and that at ½ (which decides how often ½ is left out "
        "although it is true); and the mean width.",
        "",
        *record.table(["interval", "n", "least", "mean", "at ½", "width"], shares),
        "",
        "## Rejections of a true null hypothesis at 5 %, in per cent",
        "Wilcoxon with Holm: any rejection among so many methods compared with one baseline, all alike. "
        "Student's t: the mean difference is 0. "
        'Equivalence: "equivalent" where the mean lies on the edge of the band, the worse edge.',
        "",
        *pivot(figures["levels"], ("test", "shape"), "rejected", "test"),
        "",
        "## Friedman's test and Nemenyi's critical difference: rejections at 5 %, in per cent",
        "",
        *record.table(["", "blocks", "χ² form ★", "F form", "Nemenyi, any pair"], friedman),
    ]


def simulate(repetitions: int, resamples: int) -> dict:
    names = ("clopper_pearson", "wilson")
    shares = [share_coverage(n, name, ties) for ties in (0.0, 0.2) for name in names for n in (3, 4, 5, 6, 8, 10, 20)]
    return {
        "repetitions": repetitions,
        "resamples": resamples,
        "coverage": coverage(repetitions, resamples),
        "shares": shares,
        "levels": levels(repetitions),
        "friedman": friedman_levels(repetitions),
    }


def main() -> None:
    import record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5_000)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    began = time.perf_counter()
    figures = simulate(options.repetitions, options.resamples)
    lines = page(figures, options.repetitions, options.resamples)
    record.write("coverage", "Coverage of the intervals and level of the tests", lines, figures)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
