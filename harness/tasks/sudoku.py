"""Sudoku: constraints between many categorical variables, without any training data."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from estimators.arguments import check_count
from harness.measures import Measure
from harness.tasks.splits import Batch, Splits
from harness.tasks.task import Cost, OneLayerTask

if TYPE_CHECKING:
    from harness.config import DataConfig

EXCLUDED = -1e4
"""The logit of a number that a given excludes. Its probability is 0, and products with it remain numbers."""
PASSES = 100
"""Passes over the puzzles in an epoch: 100 updates with all puzzles in a batch."""
MIN_GIVENS = 30
"""The given numbers of the puzzles as they are stored."""


class Sudoku(OneLayerTask):
    """Sudoku: a search for the one board that violates no constraint, by its gradient.

    Minimises  E ½ Σ (n_ud − 1)²  for each puzzle, n_ud how often digit d occurs in unit u, one of 27 rows, columns and
    boxes. That is the number of pairs of equal digits in a unit, smooth in soft codes. Each puzzle has logits of its
    own, 81 cells of 9 classes. The logits of the givens are fixed.
    Optimum     0: each puzzle has exactly one solution.
    Measures    of the most probable board: how many of the 243 digits of all units are missing (as many are there once
                too often), and whether none is. The mean over puzzles is the share of solved ones.
    Reference   cost, measure and learning rate as Gourevitch, Durmus, Moulines, Olsson, Janati (2026), "Categorical
                Reparameterization with Denoising Diffusion models", arXiv:2601.00781, and its public code.
    Departures  the factor ½; puzzles of our own (`build_sudoku.py`); initial logits from N(0, 0.01²), so that no
                digit is tied with another.

    n_puzzles   the first so many of the 50 stored puzzles, all of which are optimised at the same time
    n_givens    given numbers, 30 to 80: more are easier. They are taken from the solution in a fixed random order

    Raises ValueError for others.
    """

    name = "sudoku"
    reference = "after Gourevitch, Durmus, Moulines, Olsson, Janati (2026), arXiv:2601.00781"
    measures = (
        Measure("violations", "violated constraints of the most probable board", "of 243", band=1.0),
        Measure("solved", "share of puzzles solved", better="higher", band=0.02),
    )
    measured_on: ClassVar[Literal["samples", "mode"]] = "mode"
    n_latents = 81
    n_categories = 9

    def __init__(self, *, n_puzzles: int = 50, n_givens: int = 36) -> None:
        super().__init__()
        n_puzzles = check_count(self.name, "n_puzzles", n_puzzles)
        n_givens = check_count(self.name, "n_givens", n_givens, at_least=MIN_GIVENS)
        stored_N81, solution_N81 = puzzles()
        if n_puzzles > len(stored_N81):
            raise ValueError(f"{self.name}: expected at most {len(stored_N81)} puzzles, got n_puzzles={n_puzzles}.")
        if n_givens > 80:
            raise ValueError(f"{self.name}: expected an empty cell, n_givens of at most 80, got {n_givens}.")
        self.givens_N81: Tensor
        self.units_UL: Tensor
        self.register_buffer("givens_N81", _with_more(stored_N81, solution_N81, n_givens)[:n_puzzles])
        self.register_buffer("units_UL", units())
        self.logits_NLK = nn.Parameter(0.01 * torch.randn(n_puzzles, self.n_latents, self.n_categories))

    def data(self, config: DataConfig | None) -> Splits:
        """Return the numbers of the puzzles. An epoch has each PASSES times, in a random order."""
        numbers_N = torch.arange(len(self.givens_N81))
        return Splits(train=numbers_N.repeat(PASSES), validation=numbers_N, test=numbers_N)

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of the puzzles, with those of the givens fixed."""
        number_B = cast(Tensor, batch)
        given_BL1 = self.givens_N81[number_B].unsqueeze(-1)
        digit_K = torch.arange(1, 10, device=given_BL1.device)
        excluded_BLK = (given_BL1 > 0) & (given_BL1 != digit_K)
        return self.logits_NLK[number_B].masked_fill(excluded_BLK, EXCLUDED)

    def cost(self, batch: Batch) -> Cost:
        """Return the number of pairs of equal digits in a unit."""
        return lambda z_SBLK: (self._counts(z_SBLK) - 1).square().sum((-2, -1)) / 2

    def measure(self, batch: Batch, z_BLK: Tensor) -> dict[str, Tensor]:
        """Return the number of missing digits, and 1 for a solved puzzle, else 0."""
        missing_B = (self._counts(z_BLK) == 0).sum((-2, -1))
        return {"violations": missing_B, "solved": missing_B == 0}

    def _counts(self, z_xLK: Tensor) -> Tensor:
        """Return how often each digit occurs in each unit, (…, 27, 9)."""
        return self.units_UL @ z_xLK


@cache
def puzzles() -> tuple[Tensor, Tensor]:
    """Return the stored puzzles, 0 for an empty cell, and their solutions: whole numbers (50, 81)."""
    words = files("harness.tasks").joinpath("sudoku.txt").read_text(encoding="ascii").split()
    boards = torch.tensor([[int(digit) for digit in word] for word in words])
    return boards[::2], boards[1::2]


def units() -> Tensor:
    """Return the cells of the nine rows, columns and boxes: 1 or 0, (27, 81)."""
    row_L, column_L = torch.arange(81) // 9, torch.arange(81) % 9
    box_L = row_L // 3 * 3 + column_L // 3
    return torch.cat([torch.arange(9).unsqueeze(-1) == place_L for place_L in (row_L, column_L, box_L)]).float()


def _with_more(stored_NL: Tensor, solution_NL: Tensor, n_givens: int) -> Tensor:
    """Return puzzles with `n_givens` given numbers, by numbers of the solutions in a fixed random order."""
    order_NL = torch.rand(stored_NL.shape, generator=torch.Generator().manual_seed(0)) + (stored_NL > 0)
    shown_NL = order_NL.argsort(-1, descending=True).argsort(-1) < n_givens
    return solution_NL * shown_NL
