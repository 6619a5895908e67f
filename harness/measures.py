"""Measures: what settings are compared by, each with its unit and the direction that is better."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
RESERVED = ("relaxed_loss", "soft_hard_gap")
"""Names that stored runs use for something else."""


@dataclass(frozen=True)
class Measure:
    """A number per example that a task is judged by, stored as `test/<name>` and `val/<name>`.

    name        lower-case letters, digits and underscores
    title       what readers see; by default the name
    unit        such as "nats"; empty for a number without a unit, such as a share
    better      the direction that is better
    band        the smallest difference that matters, in the unit; None if nothing is known about that
    validation  the name of the validation metric that stands for it, where that is not its own name

    Raises ValueError for anything else.
    """

    name: str
    title: str = ""
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    band: float | None = None
    validation: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in RESERVED:
            raise ValueError(f"measure: expected a name such as 'accuracy', got {self.name!r}.")
        if self.better not in ("lower", "higher"):
            raise ValueError(f"measure {self.name}: expected better='lower' or 'higher', got {self.better!r}.")
        if self.band is not None and not (math.isfinite(self.band) and self.band > 0):
            raise ValueError(f"measure {self.name}: expected a band above 0, got {self.band!r}.")

    @property
    def shown(self) -> str:
        """The title, or else the name."""
        return self.title or self.name

    @property
    def metric(self) -> str:
        """The name of the stored test metric."""
        return f"test/{self.name}"

    @property
    def validation_metric(self) -> str:
        """The name of the stored validation metric."""
        return f"val/{self.validation or self.name}"


LOSS = Measure("loss", "loss")
"""The measure of a task that declares none: its loss with one-hot codes."""

VAE_NAME = "categorical_vae"
"""The task of a grid that names none."""
VAE_MEASURES = (
    Measure("neg_elbo", "−ELBO", "nats per image", band=0.5, validation="loss"),
    Measure("neg_bound", "importance-weighted bound", "nats per image", band=0.5, validation="loss"),
)
"""Those of the categorical VAE, the task of a grid that names none."""
