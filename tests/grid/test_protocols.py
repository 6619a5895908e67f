"""The published protocols: a short grid is the whole one with fewer epochs, and what has to be fitted to these."""

from typing import Any

import pytest
import yaml
from paths import ROOT

FOLDER = ROOT / "experiments"
SHORT = sorted(path.stem for path in FOLDER.glob("*-short.yaml"))
FITTED = {"lr", "lr_warmup", "batch_size", "epochs"}


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert found["name"] == name
    return found


def names(grid: dict[str, Any]) -> list[str]:
    return [one if isinstance(one, str) else one["name"] for one in grid["estimators"]]


def test_there_are_short_grids() -> None:
    assert len(SHORT) == 12


@pytest.mark.parametrize("short", SHORT)
def test_a_short_grid_has_the_models_data_and_estimators_of_the_whole_one(short: str) -> None:
    one, whole = read(short), read(short.removesuffix("-short"))
    for section in ("task", "data", "model"):
        assert one.get(section) == whole.get(section)
    assert names(one) == names(whole)
    assert one["training"]["epochs"] == 20
    kept = [{key: value for key, value in grid["training"].items() if key not in FITTED} for grid in (one, whole)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("short", [name for name in SHORT if name.startswith("reinmax")])
def test_a_short_run_of_reinmax_is_the_begin_of_the_whole_one(short: str) -> None:
    one, whole = read(short), read(short.removesuffix("-short"))
    assert one["estimators"] == whole["estimators"]
    assert one["training"] | {"epochs": 160} == whole["training"]
    assert all(estimator["schedule"]["kind"] == "constant" for estimator in one["estimators"])
