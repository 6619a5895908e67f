"""The Sudoku task: its gradient, its puzzles, the solved board, what it refuses."""

import itertools

import pytest
import torch
from task_gradients import all_codes, enumerated_loss, gradient, largest_z

from estimators import build
from harness.tasks.build_sudoku import has_one_solution, lines, solutions
from harness.tasks.draws import CodeDraws
from harness.tasks.sudoku import Sudoku, puzzles, units


def solved(task: Sudoku) -> torch.Tensor:
    """Return the codes of the solutions of a task's puzzles."""
    _, solution_NL = puzzles()
    return torch.nn.functional.one_hot(solution_NL[: len(task.givens_N81)] - 1, 9).float()


def test_an_unbiased_estimator_has_the_enumerated_gradient_as_its_mean() -> None:
    """All cells but two or three are given."""
    torch.manual_seed(0)
    task = Sudoku(n_puzzles=1, n_givens=80).double()
    task.givens_N81[0, :2] = torch.tensor([0, 0])
    (empty,) = torch.nonzero(task.givens_N81[0] == 0, as_tuple=True)
    torch.nn.init.normal_(task.logits_NLK)
    codes_CLK = solved(task).double().repeat(9 ** len(empty), 1, 1)
    codes_CLK[:, empty] = all_codes(len(empty), 9)
    truth = gradient(task, enumerated_loss(task, torch.arange(1), codes_CLK))
    batch = torch.zeros(20, dtype=torch.long)
    assert truth.abs().max() > 0.1
    assert largest_z(task, batch, build("rloo"), truth) < 5
    assert largest_z(task, batch, build("straight_through"), truth) > 5  # the test has power


def test_the_cost_of_a_code_is_the_number_of_pairs_of_equal_digits() -> None:
    task = Sudoku(n_puzzles=2)
    digit_BL = torch.randint(9, (2, 81), generator=torch.Generator().manual_seed(0))
    z_SBLK = torch.nn.functional.one_hot(digit_BL, 9).float().unsqueeze(0)
    pairs = [
        sum(
            digits[first] == digits[second]
            for unit in units()
            for first, second in itertools.combinations(unit.nonzero().flatten().tolist(), 2)
        )
        for digits in digit_BL.tolist()
    ]
    assert task.cost(torch.arange(2))(z_SBLK).tolist() == [pairs]


def test_a_solved_board_violates_nothing_and_another_one_does() -> None:
    task, batch = Sudoku(), torch.arange(50)
    z_BLK = solved(task)
    assert not task.cost(batch)(z_BLK.unsqueeze(0)).any()
    assert not task.measure(batch, z_BLK)["violations"].any()
    assert task.measure(batch, z_BLK)["solved"].all()
    z_BLK[0, 40] = z_BLK[0, 40].roll(1)
    found = task.measure(batch, z_BLK)
    assert found["violations"][0] == 3  # in a row, a column and a box
    assert found["solved"].tolist() == [False] + [True] * 49


def test_logits_that_point_at_the_solution_are_measured_as_solved() -> None:
    task = Sudoku(n_puzzles=4)
    with torch.no_grad():
        task.logits_NLK.copy_(100 * solved(task))
    values = task.evaluate(torch.arange(4), CodeDraws({"z": build("rloo")}))
    assert {name: one.tolist() for name, one in values.items()} == {
        "cost": [0] * 4,
        "violations": [0] * 4,
        "solved": [1] * 4,
    }


def test_each_puzzle_has_one_solution_and_this_is_it() -> None:
    for givens, solution in zip(*(boards.tolist() for boards in puzzles()), strict=True):
        assert has_one_solution(givens)
        assert next(solutions(givens)) == solution
        assert 81 - givens.count(0) == 30


def test_the_solver_finds_two_solutions_where_there_are_two() -> None:
    board = puzzles()[0][0].tolist()
    without = next(
        cell for cell in range(81) if board[cell] and not has_one_solution([*board[:cell], 0, *board[cell + 1 :]])
    )
    board[without] = 0
    assert sum(1 for _ in itertools.islice(solutions(board), 2)) == 2


def test_the_generator_makes_the_stored_puzzles() -> None:
    stored = ["".join(map(str, board)) for board in puzzles()[0][:3].tolist()]
    assert [line.split()[0] for line in lines(3)] == stored


def test_more_givens_are_numbers_of_the_solution() -> None:
    stored_NL, solution_NL = puzzles()
    more_NL = Sudoku(n_givens=60).givens_N81
    assert ((more_NL > 0).sum(-1) == 60).all()
    assert torch.equal(more_NL[more_NL > 0], solution_NL[more_NL > 0])
    assert torch.equal(more_NL[stored_NL > 0], stored_NL[stored_NL > 0])


def test_givens_are_always_drawn_and_their_logits_get_no_gradient() -> None:
    torch.manual_seed(0)
    task, batch = Sudoku(n_puzzles=2), torch.arange(2).repeat(3)  # three draws of each puzzle
    estimator = build("gumbel_softmax")
    z_SBLK = CodeDraws({"z": build("rloo")})(task.logits(batch), n_samples=3)
    given_NL = task.givens_N81
    drawn_SBL = z_SBLK.argmax(-1) + 1
    assert torch.equal(torch.where(given_NL.repeat(3, 1) > 0, drawn_SBL, 0)[0], given_NL.repeat(3, 1))
    task.loss(batch, {"z": estimator}).terms["cost"].sum().backward()
    gradient_NLK = task.logits_NLK.grad
    assert gradient_NLK.isfinite().all()
    assert not gradient_NLK[given_NL > 0].any()
    assert gradient_NLK[given_NL == 0].any(-1).all()


def test_an_evaluation_sees_every_puzzle_once() -> None:
    data = Sudoku(n_puzzles=7).data(None)
    assert isinstance(data.train, torch.Tensor)
    assert data.train.bincount().tolist() == [100] * 7
    assert torch.equal(data.test, torch.arange(7))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_puzzles": 51}, "sudoku: expected at most 50 puzzles, got n_puzzles=51."),
        ({"n_puzzles": 0}, "sudoku: expected a whole number n_puzzles >= 1, got 0."),
        ({"n_givens": 29}, "sudoku: expected a whole number n_givens >= 30, got 29."),
        ({"n_givens": 81}, "sudoku: expected an empty cell, n_givens of at most 80, got 81."),
    ],
)
def test_impossible_parameters_are_refused(params: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sudoku(**params)
