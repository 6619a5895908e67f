"""The rule of a sweep that stops when its answer is known: which settings go on, and what is known at the end.

All settings that are still in the race are run at the next seed. With n seeds complete, the paired differences of every
two settings have a lower bound L and an upper bound U (``t_boundary`` at alpha / (J − 1), J settings), and

- setting j is dropped if L(j − i) > 0 for any i in the race: j is certainly worse than i, whichever is the leader,
- j is within the band of the best if U(j − i) ≤ band for all i that are left.

Guarantee. Let b be the best setting, or any one of those that are equal and best. For every other i, the lower bound of
b − i holds at all looks with probability 1 − alpha/(J − 1), so for all i at once with 1 − alpha. Where they hold, b is
never dropped, for b − i ≤ 0; and no j is called within the band that is not, for b is in the race and U(j − b) ≤ band
is L(b − j) ≥ −band. So "the best is ever dropped or the final statement is false" has a probability of at most alpha:
nothing is divided between dropping and equivalence, since the same J − 1 bounds are behind both.
Assumed: independent seeds, differences that are normal or nearly so (docs/statistics.md has what else was tried), and
that runs of the best setting do not fail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reports.statistics.intervals import Interval
from reports.statistics.sequential import AT_LEAST, AT_MOST, t_boundary

ALPHA = 0.05
Within = Literal["all", "any"]
State = Literal["open", "best", "equivalent", "within band", "undecided"]


@dataclass(frozen=True)
class Dropped:
    """A setting that left the race after ``n_seeds``: its difference to the setting ``against`` has ``interval``.

    Each end of the interval fails at any look with probability alpha / (J − 1).
    ``failed``: a run had failed, while the setting ``against`` had no failed run; the interval's ends are infinite.
    """

    setting: int
    n_seeds: int
    against: int
    interval: Interval
    failed: bool


@dataclass(frozen=True)
class Race:
    """What is known after ``n_seeds`` complete seeds. Settings are rows of the values.

    - ``state``: "open", the race goes on; "best", one setting is left; "equivalent", all that are left are within the
      band of the best; "within band", some are; "undecided", no more than that the best is among those that are left
    - ``alive``: the settings that are left; ``near``: those of them that are within the band of the best
    - ``leader``: the setting in ``alive`` with the least mean; ``dropped``: the others, in order
    - ``excess``: for every setting an upper bound of its mean minus that of the best, at the end or when it was
      dropped; infinite where unknown. All of them hold at once, with the guarantee of the rule
    """

    n_seeds: int
    state: State
    alive: tuple[int, ...]
    near: tuple[int, ...]
    leader: int
    dropped: tuple[Dropped, ...]
    excess: tuple[float, ...]

    @property
    def ended(self) -> bool:
        return self.state != "open"


def race(
    values: np.ndarray,
    *,
    band: float = 0.0,
    alpha: float = ALPHA,
    at_least: int = AT_LEAST,
    at_most: int = AT_MOST,
    within: Within = "all",
) -> Race:
    """Return the state of a race after the complete seeds in ``values`` (settings, seeds); lower is better.

    A value is ``inf`` for a failed run, the worst, and anything, such as NaN, after the setting was dropped or the race
    has ended. ``band`` ≥ 0, in the unit of the values. ``within``: the race ends when all settings that are left are
    within the band of the best, or any of them. A pure function of its arguments that begins at the first seed
    each time; seeds after the end are not read. A setting with a failed run is dropped as soon as another has none, at
    ``at_least`` seeds or later; if every one that is left has a failed run, no mean is known, and it ends "undecided".
    Raises ValueError for arguments out of range, fewer than two settings, and a missing value of one that is alive.
    """
    values = np.asarray(values, dtype=float)
    _check(values, band, alpha, within)
    boundary = t_boundary(alpha / (len(values) - 1), at_least, at_most)
    alive = np.ones(len(values), dtype=bool)
    excess = np.full(len(values), math.inf)
    dropped: list[Dropped] = []
    state: State = "open"
    n = 0
    while state == "open" and n < min(values.shape[1], at_most):
        n += 1
        _check_seed(values, n, alive)
        if n < at_least:
            continue
        low, high = _pairwise_bounds(values[:, :n], alive, float(boundary[n - at_least]))
        excess[alive] = high[alive].max(axis=1)
        dropped += _losers(values[:, :n], low, high, alive)
        alive[[one.setting for one in dropped]] = False
        excess[alive] = high[np.ix_(alive, alive)].max(axis=1)
        state = _state(values[alive, :n], excess[alive] <= band, within, last=n == at_most)
    return Race(
        n_seeds=n,
        state=state,
        alive=tuple(int(j) for j in np.flatnonzero(alive)),
        leader=_leader(values[:, :n], alive),
        near=tuple(int(j) for j in np.flatnonzero(alive & (excess <= band))),
        dropped=tuple(dropped),
        excess=tuple(float(one) for one in excess),
    )


def _check(values: np.ndarray, band: float, alpha: float, within: str) -> None:
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"values: expected two settings or more, by seeds, got an array of shape {values.shape}.")
    if not (band >= 0 and math.isfinite(band)):
        raise ValueError(f"band: expected a finite number >= 0, got {band}.")
    if not 0 < alpha <= 0.1:
        raise ValueError(f"alpha: expected 0 < alpha <= 0.1, got {alpha}.")
    if within not in ("all", "any"):
        raise ValueError(f"within: expected 'all' or 'any', got {within!r}.")


def _check_seed(values: np.ndarray, n: int, alive: np.ndarray) -> None:
    bad = np.flatnonzero(alive & ~(values[:, n - 1] > -math.inf))
    if len(bad):
        raise ValueError(
            f"values: expected a number or inf for each setting in the race, got {values[bad[0], n - 1]} for setting "
            f"{bad[0]} at seed {n - 1}. Give complete seeds only."
        )


def _pairwise_bounds(values: np.ndarray, alive: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds L and U of row − column, (J, J): infinite for a pair with failed runs or one not racing.

    Both are 0 on the diagonal. Differences are taken before their mean, so that equal settings differ by exactly 0.
    """
    n_settings, n = values.shape
    usable = np.flatnonzero(alive & np.all(values < math.inf, axis=1))
    low = np.full((n_settings, n_settings), -math.inf)
    high = np.where(alive[:, None] & alive, math.inf, -math.inf)
    for j in usable:
        d = values[j] - values[usable]
        centre, half = d.mean(axis=1), c * d.std(axis=1, ddof=1) / math.sqrt(n)
        low[j, usable], high[j, usable] = centre - half, centre + half
    np.fill_diagonal(low, 0.0)
    np.fill_diagonal(high, 0.0)
    return low, high


def _losers(values: np.ndarray, low: np.ndarray, high: np.ndarray, alive: np.ndarray) -> list[Dropped]:
    """Return the settings that leave the race at this look, each with the setting that it is furthest above."""
    n = values.shape[1]
    failed = alive & np.any(values == math.inf, axis=1)
    against = np.argmax(low, axis=1)
    found = []
    for j in np.flatnonzero(alive):
        if failed[j] and not np.all(failed[alive]):
            leader = _leader(values, alive)
            found.append(Dropped(int(j), n, leader, Interval(-math.inf, math.inf), failed=True))
        elif low[j, against[j]] > 0:
            i = int(against[j])
            found.append(Dropped(int(j), n, i, Interval(float(low[j, i]), float(high[j, i])), failed=False))
    return found


def _leader(values: np.ndarray, alive: np.ndarray) -> int:
    """Return the setting in the race with the fewest failed runs; among equals, with the least mean of the others."""
    finite = values < math.inf
    n_finite = np.where(alive, finite.sum(axis=1), -1)
    mean = np.where(finite, values, 0.0).sum(axis=1) / np.maximum(n_finite, 1)
    return int(np.lexsort((mean, -n_finite))[0])


def _state(values: np.ndarray, near: np.ndarray, within: Within, *, last: bool) -> State:
    if len(values) == 1:
        return "best"
    if np.all(near):
        return "equivalent"
    if within == "any" and np.any(near):
        return "within band"
    if last or np.all(np.any(values == math.inf, axis=1)):
        return "undecided"
    return "open"
