"""Pictures: the originals once, then what each setting makes of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from reports.contract.stored_run import ORIGINALS, PRIOR_SAMPLES, RECONSTRUCTIONS, TRAVERSALS
from reports.store.frame import Runs

MAX_SETTINGS = 40
KINDS = {RECONSTRUCTIONS: "Reconstructions", PRIOR_SAMPLES: "Prior samples", TRAVERSALS: "Traversals"}


@dataclass(frozen=True)
class Picture:
    """One setting's pictures, as data URIs; empty where it has none."""

    setting: str
    estimator: str
    device: str
    seed: str
    shown: Sequence[tuple[str, str]] = field(repr=False)  # title and data URI


@dataclass(frozen=True)
class Gallery:
    """Originals once, and every setting that was shown them. Runs on different data make several."""

    originals: str = field(repr=False)
    pictures: Sequence[Picture] = field(repr=False)


def pictured(runs: Runs) -> pd.DataFrame:
    """Return the first run with pictures of each setting and device."""
    have = runs.runs[runs.runs["run_key"].isin(runs.images)]
    return have.sort_values(["setting", "device", "seed"], kind="stable").drop_duplicates(["setting", "device"])


def galleries(runs: Runs) -> list[Gallery]:
    """Return the pictures of the first finished seed of each setting and device.

    They are of at most 40 settings, of all estimators in turn.
    """
    have = pictured(runs)
    turn = have.groupby("estimator_label").cumcount().sort_values(kind="stable")
    have = have.loc[turn.index[:MAX_SETTINGS].sort_values()]
    by_originals: dict[str, list[Picture]] = {}
    drawn: set[str] = set()  # estimators with traversals already: they are large, and one is enough
    for row in have.to_dict("records"):
        images = dict(runs.images[str(row["run_key"])])
        if row["estimator_label"] in drawn:
            images.pop(TRAVERSALS, None)
        drawn.add(str(row["estimator_label"]))
        picture = Picture(
            setting=str(row["setting"]),
            estimator=str(row["estimator"]),
            device=str(row["device"]),
            seed=str(row["seed"]),
            shown=[(title, _uri(images[kind])) for kind, title in _titles(images).items()],
        )
        by_originals.setdefault(_uri(images.get(ORIGINALS)), []).append(picture)
    return [Gallery(originals, pictures) for originals, pictures in by_originals.items()]


def _titles(images: Mapping[str, bytes]) -> dict[str, str]:
    """Return the titles of the pictures of a run by their kinds; those of another task have its own names."""
    known = {kind: title for kind, title in KINDS.items() if kind in images}
    others = sorted(kind for kind in images if kind not in KINDS and kind != ORIGINALS)
    return known | {kind: kind.replace("_", " ").capitalize() for kind in others}


def _uri(png: bytes | None) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode() if png else ""
