"""The plan of a grid whose runs depend on results: with `tune`, with seeds until the answer is known, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.config import RunConfig
from harness.grid.axes import read_until
from harness.grid.errors import ErrorList
from harness.grid.tune import read_tuned
from harness.grid.yaml_nodes import Node
from harness.search.blocks import Growth
from harness.search.seeds import Until, each_seed, until_decided
from harness.search.tuning import tune

if TYPE_CHECKING:
    from harness.plugins.registry import Registry


def read_growth(
    entries: Mapping[str, Node],
    settings: Sequence[RunConfig],
    seeds: Sequence[int],
    registry: Registry,
    errors: ErrorList,
) -> Growth | None:
    """Return the plan of a grid, if its runs are not all known. `settings` are runs with any seed, each setting once.

    `seeds` are those that every final run has. With an error there is none.
    """
    until = read_until(entries["seeds"], errors)
    if until is None and "tune" not in entries:
        return None
    if until is not None:
        _check_race(entries["seeds"], settings, until, errors)
    final = each_seed(seeds) if until is None else until_decided(until)
    most = len(seeds) if until is None else until.at_most
    stated = {} if until is None else {"until": until.stated()}
    if "tune" not in entries:
        rule = final(settings, ())
        return Growth(rule, len(settings) * len(seeds), len(settings) * most, stated)
    last_seed = max(seeds) if until is None else until.seeds[-1]
    read = read_tuned(entries["tune"], settings, last_seed, registry, errors)
    if read is None:
        return None
    tuning, tuned = read
    n_trials = tuning.trials * len(settings)
    of_default = len(seeds) if tuning.with_default else 0
    rule = tune(tuned, final, seeds if tuning.with_default else ())
    at_most = n_trials + len(settings) * (most + of_default)
    return Growth(rule, n_trials + len(settings) * len(seeds), at_most, {"tune": tuning.stated(), **stated})


def _check_race(node: Node, settings: Sequence[RunConfig], until: Until, errors: ErrorList) -> None:
    """Add an error for settings that cannot be compared until it is decided."""
    tasks = {run.task_label for run in settings}
    if len(settings) == len(tasks):
        errors.add(node.position, "seeds.until", "expected at least two settings to decide between, got one.")
    if len({run.device for run in settings}) > 1:
        errors.add(node.position, "seeds.until", "expected one device, got several. Decide on one of them.")
    if until.band is not None and len(tasks) > 1:
        message = "expected none with several tasks, whose measures have units of their own. Each declares its band."
        errors.add(node.position, "seeds.band", message)
