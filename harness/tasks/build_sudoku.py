"""Make sudoku.txt, 50 puzzles with one solution each: `python harness/tasks/build_sudoku.py [OUT]`.

A puzzle is a solved board, drawn by a search in random order, from which numbers are taken away in random order as long
as the solution stays the only one, until 30 are left. Each line is a puzzle, 0 for an empty cell, and its solution,
row by row. Python's Mersenne Twister is frozen, so every machine makes the same file.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

SEED, N_PUZZLES, N_GIVENS = 20_260_117, 50, 30

Board = list[int]
"""81 numbers, row by row; 0 for an empty cell."""


def _peers(cell: int) -> frozenset[int]:
    row, column = divmod(cell, 9)
    box = {(row // 3 * 3 + i) * 9 + column // 3 * 3 + j for i in range(3) for j in range(3)}
    return frozenset({row * 9 + i for i in range(9)} | {i * 9 + column for i in range(9)} | box) - {cell}


PEERS = [_peers(cell) for cell in range(81)]
"""The 20 cells that may not have the number of a cell."""


def solutions(board: Board, shuffled: random.Random | None = None) -> Iterator[Board]:
    """Yield every solution of a board; with a generator of random numbers, in random order."""
    empty = [cell for cell in range(81) if not board[cell]]
    if not empty:
        yield list(board)
        return
    choices = {cell: set(range(1, 10)) - {board[peer] for peer in PEERS[cell]} for cell in empty}
    cell = min(empty, key=lambda one: len(choices[one]))
    numbers = sorted(choices[cell])
    if shuffled is not None:
        shuffled.shuffle(numbers)
    for number in numbers:
        yield from solutions([*board[:cell], number, *board[cell + 1 :]], shuffled)


def has_one_solution(board: Board) -> bool:
    """Return whether a board has exactly one solution."""
    found = solutions(board)
    return next(found, None) is not None and next(found, None) is None


def puzzle(source: random.Random) -> tuple[Board, Board] | None:
    """Return a puzzle and its solution; None if no more numbers could be taken away before N_GIVENS were left."""
    solved = next(solutions([0] * 81, source))
    board = list(solved)
    for cell in source.sample(range(81), 81):
        without = [*board[:cell], 0, *board[cell + 1 :]]
        if has_one_solution(without):
            board = without
        if 81 - board.count(0) == N_GIVENS:
            return board, solved
    return None


def lines(n_puzzles: int = N_PUZZLES) -> Iterator[str]:
    """Yield the first lines of the file."""
    source = random.Random(SEED)  # noqa: S311  # nothing secret
    for _ in range(n_puzzles):
        while (found := puzzle(source)) is None:
            continue
        yield " ".join("".join(map(str, board)) for board in found)


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) == 2 else Path(__file__).with_name("sudoku.txt")
    out.write_text("\n".join(lines()) + "\n")
