"""Scalars of a grid file, as the core schema of YAML 1.2 has them."""

import math
from pathlib import Path

import pytest

from estimators import REGISTRY
from harness.grid.load import GridError, load_grid
from harness.grid.yaml_nodes import parse, scalar

NUMBERS = {
    "10": 10, "010": 10, "+10": 10, "-10": -10, "0o12": 10, "0o0": 0, "0xA": 10, "0xa": 10, "0xFf": 255, "00": 0,
    "1e-3": 1e-3, "1E3": 1000.0, ".5": 0.5, "5.": 5.0, "1.E-4": 1e-4, "+.5": 0.5, "-0.0": 0.0, "1e400": math.inf,
    ".inf": math.inf, "+.Inf": math.inf, "-.INF": -math.inf,
}  # fmt: skip
TEXTS = [
    *("yes", "no", "on", "off", "Yes", "NO", "y", "n", "tRUE", "nULL", "1_000", "1:30", "190:20:30", "2026-01-31"),
    *("0o8", "0O12", "-0o12", "+0xA", "0xG", "0b101", "0x", "0o", "1e", "e3", ".", "+", "-", "inf", "nan", ".iNF"),
    *("NaN", "+.nan", "0x" + "f" * 2000, "٣", "1,5", "0xA_0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_numbers(text: str, value: float) -> None:
    found = scalar(text, plain=True)
    assert (found, type(found)) == (value, type(value))
    assert scalar(text, plain=False) == text


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text: str) -> None:
    assert scalar(text, plain=True) == text


def test_words_and_not_a_number() -> None:
    words = {"~": None, "null": None, "Null": None, "NULL": None, "": None, "true": True, "True": True, "FALSE": False}
    assert {text: scalar(text, plain=True) for text in words} == words
    assert math.isnan(scalar(".NaN", plain=True))
    assert parse("a: [0o12, 0xA, '0xA', 010, 1:30, ~, 2026-01-31]").plain() == {
        "a": [10, 10, "0xA", 10, "1:30", None, "2026-01-31"]
    }


def test_one_number_written_in_three_ways_is_a_repeat(tmp_path: Path) -> None:
    path = tmp_path / "seeds.yaml"
    path.write_text("estimators: [straight_through]\nseeds: [010, 0o12, 0xA, 11]\ntraining: {lr: [1e-3, 0.001]}\n")
    with pytest.raises(GridError) as refused:
        load_grid(path, REGISTRY)
    assert [line.partition("seeds.yaml:")[2] for line in refused.value.messages] == [
        "2:14: seeds[1]: expected each value once, got 10. First: seeds[0] on line 2.",
        "2:20: seeds[2]: expected each value once, got 10. First: seeds[0] on line 2.",
    ]
    path.write_text("estimators: [straight_through]\nseeds: [0o12, 0xB]\ntraining: {epochs: 0x3}\n")
    runs = load_grid(path, REGISTRY).runs
    assert [(run.seed, run.n_epochs) for run in runs] == [(10, 3), (11, 3)]
