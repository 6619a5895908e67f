"""The file of a plan is small, and damage to it is noticed."""

import gzip
from pathlib import Path

import pytest
from plans import GRID, Load

from harness.storage import checksummed_file
from harness.storage.checksummed_file import DamagedError
from harness.storage.plan import save_plan
from harness.storage.plan_file import make_plan, read_plan, to_bytes


@pytest.mark.parametrize("seeds", [1, 100])
def test_ten_thousand_runs_are_small(folder: Path, load_text: Load, seeds: int) -> None:
    """All values of their own, or a hundred seeds of each."""
    lrs = [f"{n}e-6" for n in range(1, 1 + 100 // seeds)]
    decays = [f"{n}e-5" for n in range(25)]
    text = f"""name: mine
training: {{lr: [{", ".join(lrs)}], weight_decay: [{", ".join(decays)}]}}
estimators: [straight_through, gumbel_softmax, {{name: rloo, n_samples: [2, 4]}}, reinmax]
schedules: [{{kind: exponential, rate: 3e-5, every: 500, floor: 0.5}}]
seeds: {{count: {seeds}}}
"""
    grid = load_text(text)
    assert len(grid.runs) >= 10_000
    save_plan(folder, grid)
    assert (folder / "frozen.json").stat().st_size < 2e6
    found = read_plan(folder / "frozen.json")
    assert [(run.key, run.name) for run in found.runs] == [(run.key, run.name) for run in grid.runs]
    assert found.runs[-1].values == grid.runs[-1].flat()


def test_a_plan_that_is_huge_when_unpacked_is_damaged(
    folder: Path, load_text: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(folder, load_text("name: mine\nestimators: [straight_through]\nseeds: [0]\n"))
    monkeypatch.setattr("harness.storage.plan_file.MAX_BYTES", 100)
    with pytest.raises(DamagedError, match="expected at most 100 bytes"):
        read_plan(folder / "frozen.json")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, gzip.compress(b"[" * 100_000), gzip.compress(b"{}")[:-4]],
    ids=["deep", "deep, packed", "packed and cut"],  # the packed ones hold the time
)
def test_nested_and_cut_plans_are_damaged(folder: Path, content: bytes) -> None:
    checksummed_file.write(folder / "frozen.json", content)
    with pytest.raises(DamagedError, match="expected a plan of format 2"):
        read_plan(folder / "frozen.json")


def test_flipped_bytes_are_noticed(folder: Path, load_text: Load) -> None:
    path = folder / "frozen.json"
    save_plan(folder, load_text("name: mine\nestimators: [straight_through]\nseeds: [0]\n"))
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):  # tests/storage/test_checksummed_file.py flips every bit
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DamagedError):
            read_plan(path)


def test_a_plan_is_read_as_it_was_written(folder: Path, load_text: Load) -> None:
    grid = make_plan(load_text(GRID), "digest")
    checksummed_file.write(folder / "frozen.json", to_bytes(grid))
    assert read_plan(folder / "frozen.json") == grid
