"""Unique names of bounded length that every tracking store accepts, made from labels that may be any text."""

import hashlib
import re
from collections.abc import Iterable

OWN = "own"
"""The name of the run's own estimator in the metrics `gradient/<name>/…`."""
MAX_RUN_NAME = 250
"""MLflow's databases store at most 250 characters of a run's name."""
MAX_METRIC_NAME = 200
"""`gradient/<name>/encoder/<metric>` must have at most 250 characters."""


def run_name(label: str, seed: int) -> str:
    """Return the name of a run: its label and seed. The end of a label that is too long is replaced by a hash."""
    name = f"{label} · seed {seed}"
    if len(name) <= MAX_RUN_NAME:
        return name
    end = f"… {_hash(label)} · seed {seed}"
    return label[: MAX_RUN_NAME - len(end)] + end


def metric_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the names of labels in metrics: `rloo(n_samples=2)` → `rloo-n_samples-2`.

    MLflow allows few characters there, and some of its databases ignore case. A hash is added to a name that would be
    empty, too long or the same as another.
    """
    names: list[str] = []
    taken = {OWN}
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-")
        if not name.strip(".") or len(name) > MAX_METRIC_NAME or name.casefold() in taken:
            name = f"{name.strip('.')[:100] or 'label'}-{_hash(label)}"
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
