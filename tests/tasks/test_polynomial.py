"""The polynomial task: its gradient, its exact evaluation, its optimum, what it refuses."""

import pytest
import torch
from task_gradients import enumerated_loss, estimated, gradient, largest_z

from estimators import build
from harness.tasks.draws import CodeDraws
from harness.tasks.polynomial import Polynomial


def small(**params: float) -> Polynomial:
    torch.manual_seed(1)
    task = Polynomial(**{"n_latents": 3, "n_categories": 3, "p": 1.5} | params).double()
    torch.nn.init.normal_(task.logits_LK)
    return task


def test_an_unbiased_estimator_has_the_enumerated_gradient_as_its_mean() -> None:
    task, batch = small(), torch.arange(100)
    truth = gradient(task, enumerated_loss(task, batch))
    assert largest_z(task, batch, build("rloo"), truth) < 5
    assert largest_z(task, batch, build("straight_through"), truth) > 5  # the test has power
    torch.testing.assert_close(estimated(task, batch, build("exact")), truth)


def test_the_evaluation_is_the_exact_expectation() -> None:
    task, batch = small(), torch.arange(1)
    values = task.evaluate(batch, CodeDraws({"z": build("rloo")}))
    torch.testing.assert_close(values["cost"].mean(), enumerated_loss(task, batch))
    torch.testing.assert_close(values["gap"], values["cost"] - task.optimum)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_the_optimum_is_the_known_one(p: float) -> None:
    task = Polynomial(p=p)
    assert task.optimum == pytest.approx(0.45**p)
    with torch.no_grad():
        task.logits_LK.copy_(torch.tensor([50.0, -50.0]))
    values = task.evaluate(torch.arange(1), CodeDraws({"z": build("rloo")}))
    assert values["gap"].item() == pytest.approx(0, abs=1e-6)
    assert values["mode_gap"].item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        task.logits_LK[0] = torch.tensor([-50.0, 50.0])  # one variable of 128 at the other value
    assert task.evaluate(torch.arange(1), CodeDraws({"z": build("rloo")}))["mode_gap"].item() == pytest.approx(
        (0.55**p - 0.45**p) / 128, abs=1e-6
    )


def test_more_classes_stand_for_numbers_between_0_and_1() -> None:
    task = Polynomial(n_categories=5, target=0.45)
    torch.testing.assert_close(task.values_K, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert task.optimum == pytest.approx(0.05**2)


def test_every_draw_of_a_batch_has_the_same_logits() -> None:
    task = Polynomial()
    assert task.layers() == {"z": (128, 2)}
    data = task.data(None)
    assert data.steps_per_epoch == 200
    assert task.logits(data.splits(64).train_batch(torch.arange(64))).shape == (64, 128, 2)
    assert task.logits_LK.abs().max() <= 0.01


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"p": 0.5}, "polynomial: expected p >= 1, got 0.5."),
        ({"p": "two"}, "polynomial: expected p > 0, got 'two'."),
        ({"target": float("nan")}, "polynomial: expected target"),
        ({"n_latents": 0}, "polynomial: expected a whole number n_latents >= 1, got 0."),
        ({"n_categories": 1}, "polynomial: expected a whole number n_categories >= 2, got 1."),
    ],
)
def test_impossible_parameters_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Polynomial(**params)
