"""How often a sweep that stops when its answer is known is wrong, and how many runs it saves.

    python benchmarks/stopping.py

Simulated sweeps of J settings under the rule of reports.statistics.racing, in a vectorised form that
tests/reports/test_statistics_race.py holds against it. Differences of two settings have a standard deviation of 1, the
unit of means and band. An effect of the seed would cancel, so there is none. Means: one setting is better than all
others by 2; spread, like those of the estimators in experiments/README.md; or all equal. Then the boundary itself
against others, and skewed differences. Writes results/stopping.md and stopping.json; no figure depends on the machine.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats

from reports.statistics import t_boundary
from reports.statistics.sequential import AT_LEAST, AT_MOST

ALPHA = 0.05
LONGEST = 60  # seeds of the largest fixed design that is looked at
REPETITIONS = {2: 20_000, 5: 10_000, 20: 2_000, 60: 600}
LOGNORMAL_SD = math.sqrt((math.e - 1) * math.e)


def lognormal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return (np.exp(rng.standard_normal(shape)) - math.exp(0.5)) / LOGNORMAL_SD


NOISE: dict[str, Callable[[tuple[int, ...], np.random.Generator], np.ndarray]] = {  # standard deviation 1
    "normal": lambda shape, rng: rng.standard_normal(shape),
    "heavy (t3)": lambda shape, rng: rng.standard_t(3, shape) / math.sqrt(3),
    "skewed": lognormal,
}


def means_of(name: str, n_settings: int) -> np.ndarray:
    """Return the means; setting 0 is the best. Spread: quantiles of a lognormal with median 4 and σ = 1."""
    if name == "equal":
        return np.zeros(n_settings)
    if name == "one better":
        return np.where(np.arange(n_settings) == 0, 0.0, 2.0)
    middle = (np.arange(1, n_settings) - 0.5) / (n_settings - 1)
    return np.concatenate([[0.0], 4 * np.exp(scipy.stats.norm.ppf(middle))])


def sweeps(noise: str, means: str, n_settings: int, repetitions: int, rng: np.random.Generator) -> np.ndarray:
    """Return values (repetitions, settings, seeds)."""
    x = NOISE[noise]((repetitions, n_settings, LONGEST), rng) / math.sqrt(2)
    return (x + means_of(means, n_settings)[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Rule:
    """Limits of t for the looks from ``first`` on, a band, and whether all or any must be within it."""

    limits: np.ndarray
    first: int = AT_LEAST
    band: float = 0.0
    within: str = "all"


@dataclass
class Found:
    """What a rule came to in each repetition: settings left, whether it was decided, those within the band, runs."""

    alive: np.ndarray
    near: np.ndarray
    decided: np.ndarray
    runs: np.ndarray


def races(x: np.ndarray, rules: Sequence[Rule]) -> list[Found]:
    """Run each rule on the sweeps x (repetitions, settings, seeds); a rule ends at its last limit."""
    repetitions, n_settings, _ = x.shape
    found = [
        Found(*np.ones((2, repetitions, n_settings), bool), np.zeros(repetitions, bool), np.zeros(repetitions, int))
        for _ in rules
    ]
    for n, (mean, error) in enumerate(running_differences(x), start=1):
        for rule, so_far in zip(rules, found, strict=True):
            if n >= rule.first + len(rule.limits):
                continue
            so_far.runs += np.where(so_far.decided, 0, so_far.alive.sum(axis=1))
            if n >= rule.first:
                with np.errstate(invalid="ignore"):  # an infinite limit times no error, on the diagonal
                    half = rule.limits[n - rule.first] * error
                look(mean - half, mean + half, rule, so_far)
    return found


def running_differences(x: np.ndarray):
    """Yield, for n = 1, 2, …, the mean difference of every two settings and its standard error, (repetitions, J, J)."""
    total = np.zeros((len(x), x.shape[1], x.shape[1]), np.float32)
    squares = np.zeros_like(total)
    for n in range(1, x.shape[2] + 1):
        d = x[:, :, None, n - 1] - x[:, None, :, n - 1]
        total += d
        squares += d * d
        mean = total / n
        yield mean, np.sqrt(np.maximum(squares / n - mean * mean, 0) / max(n - 1, 1))


def look(low: np.ndarray, high: np.ndarray, rule: Rule, so_far: Found) -> None:
    """Apply the rule at one look to the repetitions that are not decided yet."""
    on = ~so_far.decided
    losing = np.any((low > 0) & so_far.alive[:, None, :], axis=2)
    so_far.alive &= ~(losing & on[:, None])
    near = so_far.alive & ~np.any((high > rule.band) & so_far.alive[:, None, :], axis=2)
    so_far.near[on] = near[on]
    enough = np.any(near, axis=1) if rule.within == "any" else np.all(near | ~so_far.alive, axis=1)
    so_far.decided |= on & enough


def one_look(x: np.ndarray, level: float, band: float, within: str, truth: np.ndarray) -> list[float]:
    """Return, for a fixed design of n = 2, 3, … seeds, the share of sweeps that it decides rightly."""
    shares = []
    for n, (mean, error) in enumerate(running_differences(x), start=1):
        if n < 2:
            continue
        limit = -scipy.special.stdtrit(n - 1, level)
        so_far = Found(*np.ones((2, len(x), x.shape[1]), bool), np.zeros(len(x), bool), np.zeros(len(x), int))
        look(mean - limit * error, mean + limit * error, Rule(np.array([limit]), n, band, within), so_far)
        shares.append(float(np.mean(so_far.decided & ~is_false(so_far, truth, band))))
    return shares


def is_false(found: Found, truth: np.ndarray, band: float) -> np.ndarray:
    """Whether the best, setting 0, was dropped, or a setting called within the band is not."""
    too_far = found.near & (truth > band + 1e-9) & found.decided[:, None]
    return ~found.alive[:, 0] | np.any(too_far, axis=1)


ENDS = ((0.0, "all"), (0.5, "all"), (0.5, "any"))


def table(repetitions: dict[int, int], noises: Sequence[str] = tuple(NOISE), *, seed: int = 0) -> list[dict]:
    """Return a row per number of settings, means, noise and way to end."""
    rows = []
    for n_settings, repeat in repetitions.items():
        level = ALPHA / (n_settings - 1)
        for means in ("one better", "spread", "equal"):
            for noise in noises:
                rng = np.random.default_rng([seed, n_settings, len(means), len(noise)])
                x = sweeps(noise, means, n_settings, repeat, rng)
                truth = means_of(means, n_settings)
                rules = [Rule(t_boundary(level), band=band, within=within) for band, within in ENDS]
                for rule, found in zip(rules, races(x[:, :, :AT_MOST], rules), strict=True):
                    row = {"settings": n_settings, "means": means, "noise": noise, "repetitions": repeat}
                    row |= {"band": rule.band, "within": rule.within} | summary(found, truth, rule.band)
                    row |= same_power(x, level, rule, truth, row["right"])
                    rows.append(row)
    return rows


def summary(found: Found, truth: np.ndarray, band: float) -> dict:
    false = is_false(found, truth, band)
    return {
        "dropped_best": float(np.mean(~found.alive[:, 0])),
        "false": float(np.mean(false)),
        "right": float(np.mean(found.decided & ~false)),
        "runs": float(np.mean(found.runs)),
    }


def same_power(x: np.ndarray, level: float, rule: Rule, truth: np.ndarray, right: float) -> dict:
    """Return the seeds of the smallest fixed design that decides as many sweeps rightly; half a point is forgiven.

    None where the rule decides next to none, or where there is nothing to decide: equal means and no band.
    """
    if right < 0.1 or (rule.band == 0 and truth[1] == truth[0]):
        return {"fixed_seeds": None}
    shares = one_look(x, level, rule.band, rule.within, truth)
    enough = [n for n, share in enumerate(shares, start=2) if share >= right - 0.005]
    return {"fixed_seeds": enough[0] if enough else math.inf}


def boundaries(repetitions: dict[int, int], seed: int = 1) -> list[dict]:
    """Return a row per boundary and number of settings: widths, and runs and share decided for spread means."""
    from stopping_boundaries import BOUNDARIES

    rows = []
    for n_settings, repeat in repetitions.items():
        rng = np.random.default_rng([seed, n_settings])
        spread_x, equal_x = (
            sweeps("normal", means, n_settings, repeat, rng)[:, :, :AT_MOST] for means in ("spread", "equal")
        )
        limits = {name: function(ALPHA / (n_settings - 1)) for name, function in BOUNDARIES.items()}
        rules = [Rule(one) for one in limits.values()]
        spread, equal = races(spread_x, rules), races(equal_x, rules)
        for name, alike, apart in zip(limits, equal, spread, strict=True):
            row = {"settings": n_settings, "boundary": name, "dropped_best": float(np.mean(~alike.alive[:, 0]))}
            row |= {"runs": float(np.mean(apart.runs)), "decided": float(np.mean(apart.decided))}
            rows.append(row | {f"width_{n}": limits[name][n - AT_LEAST] / math.sqrt(n) for n in (3, 5, 10, 30)})
    return rows


def edges(repetitions: dict[int, int], band: float = 0.5, seed: int = 4) -> list[dict]:
    """Return how often a final statement is false where all others are worse by a little more than the band.

    The case in which both mistakes have a chance: the best can be dropped, and a setting be called within the band.
    """
    rows = []
    for n_settings, repeat in repetitions.items():
        truth = np.where(np.arange(n_settings) == 0, 0.0, band * (1 + 1e-4))
        rules = [Rule(t_boundary(ALPHA / (n_settings - 1)), band=band, within=within) for within in ("all", "any")]
        for noise in NOISE:
            x = NOISE[noise]((repeat, n_settings, AT_MOST), np.random.default_rng([seed, n_settings, len(noise)]))
            x = x / math.sqrt(2) + truth[:, None]
            for rule, found in zip(rules, races(x, rules), strict=True):
                row = {"settings": n_settings, "noise": noise, "within": rule.within, "repetitions": repeat}
                rows.append(row | summary(found, truth, band))
    return rows


def levels(repetitions: int, seed: int = 2) -> list[dict]:
    """Return a row per nominal alpha: how often t crosses its boundary at any look, the mean being 0."""
    alphas = [ALPHA / (n_settings - 1) for n_settings in (2, 5, 20, 60)] + [ALPHA / 2 / 59]
    looks = np.arange(AT_LEAST, AT_MOST + 1)
    crossed = {name: np.zeros(len(alphas)) for name in ("normal", "heavy (t3)")}
    rng = np.random.default_rng(seed)
    for name, hits in crossed.items():
        for _ in range(repetitions // 50_000):
            x = NOISE[name]((50_000, AT_MOST), rng)
            total, squares = np.cumsum(x, axis=1)[:, AT_LEAST - 1 :], np.cumsum(x * x, axis=1)[:, AT_LEAST - 1 :]
            t = total / np.sqrt(np.maximum(squares - total * total / looks, 1e-12) * looks / (looks - 1))
            hits += [np.count_nonzero(np.any(t > t_boundary(alpha), axis=1)) for alpha in alphas]
    return [
        {"alpha": alpha, "repetitions": repetitions}
        | {name: float(hits[k] / repetitions) for name, hits in crossed.items()}
        for k, alpha in enumerate(alphas)
    ]


def skew(repetitions: dict[int, int], seed: int = 3) -> list[dict]:
    """Return how often the best is dropped where the others fall far behind at times and the best never does.

    The best has no noise, the others are lognormal, with a mean that is worse by ``gap``.
    """
    from stopping_boundaries import sign_limits

    rows = []
    for n_settings, repeat in repetitions.items():
        alpha = ALPHA / (n_settings - 1)
        firsts = (3, 5, 10, 20)
        rules = [Rule(t_boundary(alpha, first), first) for first in firsts]
        noise = lognormal((repeat, n_settings, AT_MOST), np.random.default_rng([seed, n_settings]))
        for gap in (0.0, 0.1, 0.25, 0.5, 1.0):
            x = noise + gap
            x[:, 0] = 0
            row = {"settings": n_settings, "gap": gap}
            for first, found in zip(firsts, races(x, rules), strict=True):
                row[f"at_least_{first}"] = float(np.mean(~found.alive[:, 0]))
            losses = np.cumsum(x[:, 1:] < 0, axis=2)
            row["signs"] = float(np.mean(np.any(losses >= sign_limits(alpha), axis=(1, 2))))
            rows.append(row)
    return rows


def main() -> None:
    import record
    from stopping_page import page

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the repetitions")
    options = parser.parse_args()
    began = time.perf_counter()

    def part(full: dict[int, int]) -> dict[int, int]:
        return {settings: max(10, round(repeat * options.share)) for settings, repeat in full.items()}

    figures = {
        "sweeps": table(part(REPETITIONS)),
        "edges": edges(part(REPETITIONS)),
        "levels": levels(max(50_000, round(2_000_000 * options.share))),
        "boundaries": boundaries(part({2: 10_000, 5: 5_000, 20: 1_000, 60: 200})),
        "skew": skew(part({2: 5_000, 5: 3_000, 20: 600, 60: 150})),
    }
    record.write("stopping", "Sweeps that stop when the answer is known", page(figures, LONGEST), figures)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
