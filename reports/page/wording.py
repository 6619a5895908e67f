"""What a page calls things: a page about the VAE speaks of images and its decoder, that of another task does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.comparison import Metric


@dataclass(frozen=True)
class Wording:
    """The nouns of a task. A text of the report has their names in braces."""

    image: str
    images: str
    evaluations: str  # of the function whose gradient is estimated
    cost: str
    parameters: str  # those behind the logits
    heading: str  # short for them, in a table
    is_vae: bool

    @property
    def texts(self) -> dict[str, str]:
        """The nouns by their names, for ``str.format``."""
        return {"image": self.image, "images": self.images, "evaluations": self.evaluations, "cost": self.cost,
                "parameters": self.parameters, "Evaluations": self.evaluations[0].upper() + self.evaluations[1:],
                "Images": self.images[0].upper() + self.images[1:]}  # fmt: skip


VAE = Wording("image", "images", "decoder evaluations", "reconstruction cost", "encoder", "Enc.", is_vae=True)
OTHER = Wording("example", "examples", "evaluations of the cost", "cost", "model", "Par.", is_vae=False)


def directions(metrics: Sequence[Metric]) -> dict[str, str]:
    """Return the words for the better direction of some metrics, for ``str.format``; for both, if they differ."""
    found = {metric.sign for metric in metrics if metric.compared} or {1}
    if found == {1}:
        return _LOWER
    return _HIGHER if found == {-1} else _BOTH


_LOWER = {
    "Lower": "Lower", "lower": "lower", "below": "below", "worst": "∞", "Negative": "Negative is better",
    "improvement": "an interval below zero is an improvement",
}  # fmt: skip
_HIGHER = {
    "Lower": "Higher", "lower": "higher", "below": "above", "worst": "−∞", "Negative": "Positive is better",
    "improvement": "an interval above zero is an improvement",
}  # fmt: skip
_BOTH = {
    "Lower": "Each heading says whether lower or higher", "lower": "better", "below": "better", "worst": "∞ or −∞",
    "Negative": "Negative is better where lower is, positive where higher is",
    "improvement": "an interval without zero, on the better side of it, is an improvement",
}  # fmt: skip
