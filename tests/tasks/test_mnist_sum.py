"""Sums of digits: the objective against enumeration, what is trained on, and that it is learned."""

import math
from itertools import product

import pytest
import torch
from tasks_by_hand import Draws

from estimators import build
from harness.config import DataConfig
from harness.tasks.fit import reason_to_skip
from harness.tasks.mnist_sum import MnistSum
from harness.tasks.splits import Splits, n_examples


def small_task(**params: object) -> tuple[MnistSum, tuple[torch.Tensor, ...]]:
    """Return a task on two pairs of images of three pixels, in float64, and the batch."""
    torch.manual_seed(0)
    task = MnistSum(hidden=4, **params)  # type: ignore[arg-type]
    digits = torch.tensor([[3, 4], [9, 1]])
    batch = torch.rand(2, 2, 3, dtype=torch.float64), digits.sum(-1), digits
    task.build(Splits(train=batch, test=batch), {"z": 10})
    return task.double(), batch


def gradient(task: MnistSum, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(task.parameters()))])


def objective(task: MnistSum, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the mean probability of a wrong sum and the penalty, by sums over the digits."""
    probs_BNK = task.logits(batch).softmax(-1)
    right = [
        sum(probs_BNK[b, 0, i] * probs_BNK[b, 1, j] for i, j in product(range(10), repeat=2) if i + j == batch[1][b])
        for b in range(2)
    ]
    mean_K = probs_BNK.mean((0, 1))
    kl = (mean_K * (mean_K * 10).log()).sum()
    return 1 - torch.stack(right).mean() + task.balance * kl  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["exact", "rloo", "indecater", "reinforce_ema"])
def test_the_gradient_is_that_of_the_sum_over_all_digits(name: str) -> None:
    task, batch = small_task(balance=0.7)
    truth = gradient(task, objective(task, batch))
    n_groups, n_copies = (1, 1) if name == "exact" else (40, 300)
    copies = tuple(one.repeat(n_copies, *[1] * (one.ndim - 1)) for one in batch)
    estimator, groups = build(name), []
    torch.manual_seed(1)
    for _ in range(n_groups):
        loss = task.loss(copies, {"z": estimator})
        groups.append(gradient(task, loss.terms["mismatch"].mean() + loss.terms["balance"].mean()))
    found = torch.stack(groups)
    error = found.std(0) / math.sqrt(n_groups) if n_groups > 1 else torch.zeros(())
    assert ((found.mean(0) - truth).abs() <= 5 * error + 1e-12).all()
    assert truth.abs().max() > 0.01


def test_the_digits_are_for_the_measures_alone() -> None:
    task, batch = small_task()
    other = batch[0], batch[1], torch.zeros_like(batch[2])
    losses = []
    for each in (batch, other):
        torch.manual_seed(1)
        losses.append(task.loss(each, {"z": build("rloo")}).terms["mismatch"])
    assert torch.equal(*losses)


def test_every_image_is_in_one_example_for_each_pairing() -> None:
    config = DataConfig(train_size=301)
    splits = MnistSum(n_images=3, pairings=2).data(config)
    images, sums, digits = splits.train
    assert images.shape == (200, 3, 784)
    assert torch.equal(digits.sum(-1), sums)
    per_pairing = images.view(2, 300, 784)
    assert all(len(one.unique(dim=0)) >= 299 for one in per_pairing)
    assert not torch.equal(per_pairing[0], per_pairing[1])
    assert n_examples(splits.test) == 333
    again = MnistSum(n_images=3, pairings=2).data(config)
    assert torch.equal(images, again.train[0])


def test_resampled_images_are_drawn_anew_and_keep_their_sums() -> None:
    splits = MnistSum().data(DataConfig(binarization="resampled", train_size=100))
    images, sums, digits = splits.train_batch(torch.arange(5), torch.Generator().manual_seed(0))
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(sums, splits.train[1][:5])
    assert torch.equal(digits, splits.train[2][:5])


def test_measures_are_of_the_most_probable_digits() -> None:
    task, batch = small_task()
    task.logits = lambda batch: torch.nn.functional.one_hot(torch.tensor([[4, 3], [9, 2]]), 10).double()  # type: ignore
    found = task.evaluate(batch, Draws())
    assert set(found) == {"mismatch", "balance", "digit_accuracy", "sum_accuracy"}
    assert found["digit_accuracy"].tolist() == [0.0, 0.5]
    assert found["sum_accuracy"].tolist() == [1.0, 0.0]


def test_pathwise_estimators_are_skipped() -> None:
    for name in ("straight_through", "gumbel_softmax", "rebar", "double_cv"):
        assert reason_to_skip(MnistSum, build(name), [(2, 10)])
    for name in ("rloo", "carms", "arsm", "indecater", "exact"):
        assert not reason_to_skip(MnistSum, build(name), [(2, 10)])


@pytest.mark.slow
def test_it_is_learned_from_sums() -> None:
    """Three passes: most digits are right, where a network that knows nothing has a tenth of them."""
    torch.manual_seed(0)
    task = MnistSum(hidden=64)
    splits = task.data(DataConfig())
    task.build(splits, {"z": 10})
    estimator = build("indecater")
    optimizer = torch.optim.Adam(task.parameters(), lr=2e-3)
    for _ in range(4):
        for index_B in torch.randperm(splits.n_train).split(20):
            terms = task.loss(splits.train_batch(index_B), {"z": estimator}).terms
            optimizer.zero_grad()
            (terms["mismatch"].mean() + terms["balance"].mean()).backward()
            optimizer.step()
    with torch.no_grad():
        assert task.evaluate(splits.test, Draws())["digit_accuracy"].mean() > 0.6


@pytest.mark.parametrize("params", [{"n_images": 0}, {"pairings": 0}, {"hidden": 1.5}, {"balance": -1}])
def test_impossible_parameters_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"mnist_sum: expected .*{next(iter(params))}"):
        MnistSum(**params)  # type: ignore[arg-type]


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="mnist_sum: expected at least 40 images of digits, got 30 with"):
        MnistSum(n_images=40).data(DataConfig(train_size=30))
