"""Names that every tracking store takes, made of labels that may be any text: of bounded length, and unique."""

import hashlib
import re
from collections.abc import Iterable

OWN = "own"
"""What the run's own estimator is called among the metrics `gradient/<name>/…`."""
LONGEST_RUN = 250
"""A run's name is a column of 250 characters in MLflow's databases."""
LONGEST_METRIC = 200
"""`gradient/<name>/encoder/<metric>` has at most 250 characters."""


def run_name(label: str, seed: int) -> str:
    """Return the name of a run: its label and seed. The end of a label that is too long becomes its hash."""
    name = f"{label} · seed {seed}"
    if len(name) <= LONGEST_RUN:
        return name
    end = f"… {_hash(label)} · seed {seed}"
    return label[: LONGEST_RUN - len(end)] + end


def metric_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return what labels are called among the metrics: `rloo(n_samples=2)` → `rloo-n_samples-2`.

    MLflow takes few characters there, and some of its databases do not tell capitals apart. A label of which nothing is
    left, or whose name is taken or too long, gets its hash.
    """
    names: list[str] = []
    taken = {OWN}
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-")
        if not name.strip(".") or len(name) > LONGEST_METRIC or name.casefold() in taken:
            name = f"{name.strip('.')[:100] or 'label'}-{_hash(label)}"
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
