"""Gated experts: the objective against a sum over the experts, the load balance, the measures."""

import math

import pytest
import torch
from tasks_by_hand import Draws
from torch.nn import functional as F

from estimators import build
from harness.config import DataConfig
from harness.tasks.gated_experts import GatedExperts
from harness.tasks.splits import Splits


def small_task(**params: object) -> tuple[GatedExperts, tuple[torch.Tensor, torch.Tensor]]:
    """Return a task with three experts on five images of four pixels, in float64, and the batch."""
    torch.manual_seed(0)
    task = GatedExperts(**({"n_experts": 3, "hidden": 2} | params))  # type: ignore[arg-type]
    batch = torch.rand(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    task.build(Splits(train=batch, test=batch), {"z": 3})
    task.double()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.mul_(2)
    return task, batch


def gradient(task: GatedExperts, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(task.parameters()))])


def expert(task: GatedExperts, x_BD: torch.Tensor, k: int) -> torch.Tensor:
    """Return the class logits of one expert, computed for itself."""
    units = slice(k * task.hidden, (k + 1) * task.hidden)
    hidden = (x_BD @ task.first.weight[units].T + task.first.bias[units]).relu()
    return hidden @ task.second_KHC[k] + task.bias_KC[k]


def expected_cost(task: GatedExperts, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    probs_BK = task.logits(batch).squeeze(1).softmax(-1)
    costs = [F.cross_entropy(expert(task, batch[0], k), batch[1], reduction="none") for k in range(3)]
    return (probs_BK * torch.stack(costs, -1)).sum(-1).mean()


@pytest.mark.parametrize("name", ["exact", "rloo", "rebar", "muprop"])
def test_the_gradient_is_that_of_the_sum_over_the_experts(name: str) -> None:
    task, batch = small_task()
    truth = gradient(task, expected_cost(task, batch))
    n_groups, n_copies = (1, 1) if name == "exact" else (40, 200)
    copies = batch[0].repeat(n_copies, 1), batch[1].repeat(n_copies)
    estimator, groups = build(name), []
    torch.manual_seed(1)
    for _ in range(n_groups):
        groups.append(gradient(task, task.loss(copies, {"z": estimator}).terms["cross_entropy"].mean()))
    found = torch.stack(groups)
    error = found.std(0) / math.sqrt(n_groups) if n_groups > 1 else torch.zeros(())
    assert ((found.mean(0) - truth).abs() <= 5 * error + 1e-12).all()
    assert truth.abs().max() > 0.01


def test_a_soft_code_mixes_the_class_logits() -> None:
    task, batch = small_task()
    z_SBLK = torch.rand(2, 5, 1, 3, dtype=torch.float64)
    mixed = sum(z_SBLK[..., 0, k, None] * expert(task, batch[0], k) for k in range(3))
    expected = torch.stack([F.cross_entropy(one, batch[1], reduction="none") for one in mixed])
    torch.testing.assert_close(task.cost(batch)(z_SBLK), expected)


def test_the_penalty_is_the_load_balance_of_switch() -> None:
    task, batch = small_task(balance=0.5)
    logits = torch.tensor([[2.0, 0, 0], [2, 1, 0], [0, 3, 0], [1, 0, 0], [4, 0, 1]], dtype=torch.float64).unsqueeze(1)
    probs = logits.squeeze(1).softmax(-1)
    expected = 0.5 * 3 * (0.8 * probs[:, 0].mean() + 0.2 * probs[:, 1].mean())
    torch.testing.assert_close(task.penalty(batch, logits).mean(), expected)
    assert task.penalty(batch, torch.zeros(5, 1, 3)).mean() == pytest.approx(0.5)
    task.balance = 0.0
    assert not task.penalty(batch, logits).any()


def test_measures_are_of_the_most_probable_expert() -> None:
    task, batch = small_task()
    found = task.evaluate(batch, Draws())
    assert set(found) == {"cross_entropy", "balance", "accuracy", "busiest"}
    chosen = task.logits(batch).squeeze(1).argmax(-1)
    right = [expert(task, x[None], k).argmax().item() == y for x, y, k in zip(*batch, chosen.tolist(), strict=True)]
    assert found["accuracy"].tolist() == [float(one) for one in right]
    assert found["busiest"] == torch.bincount(chosen).max() / 5


def test_an_estimator_may_ask_for_other_numbers_of_logits() -> None:
    task = GatedExperts(n_experts=3)
    splits = task.data(DataConfig(train_size=50))
    estimator = build("igr")
    task.build(splits, {"z": estimator.n_outputs(3)})
    loss = task.loss(splits.train_batch(torch.arange(10)), {"z": estimator})
    assert sum(term.mean() for term in loss.terms.values()).isfinite()


@pytest.mark.parametrize("params", [{"n_experts": 1}, {"hidden": 0}, {"balance": math.nan}, {"balance": True}])
def test_impossible_parameters_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"gated_experts: expected .*{next(iter(params))}"):
        GatedExperts(**params)  # type: ignore[arg-type]
