"""Learned temperatures and pairs of temperatures: in runs, and in grids that are refused."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from estimators import REGISTRY, Cost, Estimate, Estimator, build
from harness import train
from harness.config import RunConfig, TrainingConfig
from harness.events import EpochDone
from harness.grid.errors import GridError
from harness.grid.load import load_grid
from harness.schedules import Decoupled, Exponential, Learned
from harness.training.learned_tau import LearnedTau, check_learns
from harness.training.state import set_temperatures, start

Make = Callable[..., RunConfig]


class Spread(Estimator):
    """A toy whose control loss is smallest at τ = 3."""

    name = "spread"
    relaxes = False

    def __init__(self, *, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        assert self.tau is not None
        codes_SBLK = logits_BLK.softmax(-1).unsqueeze(0)
        return Estimate(self.evaluate(cost, codes_SBLK)[0], (torch.as_tensor(self.tau) - 3).square())


class Pair(Estimator):
    """A toy with two temperatures, which it notes at every call."""

    name = "pair"
    relaxes = True
    seen: list[tuple[object, object]] = []  # noqa: RUF012

    def __init__(self, *, tau_forward: float = 1.0, tau_backward: float = 1.0) -> None:
        super().__init__()
        self.tau_forward, self.tau_backward = tau_forward, tau_backward

    def forward(self, logits_BLK: Tensor, cost: Cost) -> Estimate:
        self.seen.append((self.tau_forward, self.tau_backward))
        return Estimate(self.evaluate(cost, logits_BLK.softmax(-1).unsqueeze(0))[0])


TOYS = {"spread": Spread, "pair": Pair, **REGISTRY}


def epochs(config: RunConfig) -> list[dict[str, float]]:
    return [event.metrics for event in train.train(config, TOYS) if isinstance(event, EpochDone)]


def test_learning_by_loss_follows_the_gradient_of_the_training_loss(tiny_run: Make) -> None:
    """The first step of Adam goes by lr against the sign of the derivative, which finite differences give."""
    config = tiny_run(schedule=Learned(initial=0.8, lr=0.01))
    state = start(config, REGISTRY, torch.device("cpu"))
    x_BD = torch.rand(50, 784, generator=torch.Generator().manual_seed(0))

    def loss(tau: float) -> float:
        torch.manual_seed(1)
        estimator = build("gumbel_softmax", tau=tau)
        return estimator(state.task.logits(x_BD), state.task.cost(x_BD)).cost_B.mean().item()

    slope = loss(0.85) - loss(0.75)
    set_temperatures(config, state, 1, 1)
    torch.manual_seed(1)
    train.train_step(state, x_BD, None)
    assert state.learned_tau is not None
    assert math.log(state.learned_tau.value / 0.8) == pytest.approx(-0.01 * math.copysign(1, slope), rel=1e-3)


def test_a_run_learns_tau_and_logs_it(tiny_run: Make) -> None:
    learned = epochs(tiny_run(schedule=Learned(initial=0.8, lr=0.05), training=TrainingConfig(epochs=3, batch_size=50)))
    taus = [metrics["tau"] for metrics in learned]
    assert len(set(taus)) == 3
    assert all(0 < tau < 2 for tau in taus)


def test_learning_by_variance_minimises_the_control_loss(tiny_run: Make) -> None:
    schedule = Learned(initial=1.0, through="variance", lr=0.1)
    taus = [m["tau"] for m in epochs(tiny_run("spread", schedule=schedule, training=TrainingConfig(epochs=25)))]
    assert taus[-1] == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize(
    ("name", "through", "refused"),
    [
        ("gumbel_softmax", "loss", None),
        ("straight_through", "loss", None),
        ("gumbel_softmax", "variance", "control_loss"),
        ("spread", "variance", None),
        ("spread", "loss", "reported cost"),
    ],
)
def test_an_estimator_that_cannot_learn_tau_is_refused(name: str, through: str, refused: str | None) -> None:
    estimator, schedule = TOYS[name](), Learned.model_validate({"through": through})
    if refused is None:
        return check_learns(estimator, schedule)
    with pytest.raises(ValueError, match=f"^{name}: expected a {refused} with a gradient for tau, .* got none"):
        check_learns(estimator, schedule)
    return None


def test_a_learned_tau_stays_positive() -> None:
    learned = LearnedTau(Learned(initial=0.1, lr=10.0), torch.device("cpu"))
    for _ in range(20):
        learned.optimizer.zero_grad()
        learned.tau().backward()
        learned.optimizer.step()
    assert 0 < learned.value < 0.1


def test_the_estimator_gets_both_temperatures_of_a_pair(tiny_run: Make) -> None:
    backward = Exponential(initial=1.0, rate=0.1, floor=0.1)
    Pair.seen.clear()
    metrics = epochs(tiny_run("pair", schedule=Decoupled(forward=0.3, backward=backward)))
    steps = [pair for pair in Pair.seen if pair[1] != 1.0]
    assert {forward for forward, _ in Pair.seen} == {0.3}
    assert min(backward for _, backward in steps) == pytest.approx(math.exp(-0.7))  # 8 steps
    assert metrics[-1]["tau_backward"] == pytest.approx(math.exp(-0.7))
    assert metrics[-1]["tau_forward"] == 0.3


GRID = "seeds: [0]\nschedules:\n  - {kind: constant}\n  - {kind: decoupled, forward: [0.5, 1]}\n"


def test_each_estimator_accepts_the_schedules_of_its_own_temperatures(tmp_path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("estimators: [pair, straight_through, reinforce]\n" + GRID)
    grid = load_grid(path, TOYS)
    assert [run.label for run in grid.runs] == [
        "pair · decoupled(0.5, 1)",
        "pair · decoupled(1, 1)",
        "straight_through · constant(1)",
        "reinforce",
    ]
    assert grid.notes == (
        "pair has tau_forward and tau_backward: 2 schedules instead of 3",
        "straight_through has tau: 1 schedule instead of 3",
        "reinforce ignores tau: 1 schedule instead of 3",
    )
    assert not grid.runs[0].estimator.params


def test_a_pair_without_a_schedule_is_two_parameters(tmp_path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("estimators: [{name: pair, tau_forward: [0.5, 1]}]\nseeds: [0]\n")
    runs = load_grid(path, TOYS).runs
    assert [run.label for run in runs] == ["pair(tau_forward=0.5)", "pair"]
    assert runs[0].build_estimator(TOYS).extra_repr() == "tau_forward=0.5, tau_backward=1.0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "estimators: [straight_through]\nseeds: [0]\nschedules: [{kind: learned, through: variance}]\n",
            "3:13: schedules[0]: straight_through: expected a control_loss with a gradient for tau, "
            "for a schedule learned through variance, got none. Use another kind of schedule.",
        ),
        (
            "estimators: [straight_through]\nseeds: [0]\nschedules: [decoupled]\n",
            "1:14: estimators[0]: expected a schedule of tau, got 'none'. Add constant to schedules.",
        ),
        (
            "estimators: [{name: pair, tau_forward: 2}]\n" + GRID,
            "1:40: estimators[0].tau_forward: expected no tau_forward here, got 2. A schedule of the grid sets it.",
        ),
    ],
)
def test_impossible_pairs_of_estimator_and_schedule_are_one_line(text: str, problem: str, tmp_path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(GridError) as error:
        load_grid(path, TOYS)
    assert list(error.value.messages) == [f"{path}:{problem}"]
