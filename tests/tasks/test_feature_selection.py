"""The feature selection task: its gradient, its data, its measures, what it refuses."""

import math

import pytest
import torch
from task_gradients import enumerated_loss, estimated, gradient, largest_z

from estimators import build
from harness.tasks.draws import CodeDraws
from harness.tasks.feature_selection import LAWS, FeatureSelection


def some(**params: object) -> FeatureSelection:
    torch.manual_seed(0)
    return FeatureSelection(**{"n_hidden": 4, "n_train": 50} | params).double()


def batch_of(task: FeatureSelection, n: int) -> tuple[torch.Tensor, ...]:
    """Return the first two training examples, again and again."""
    return tuple(one[:2].double().repeat(n // 2, *([1] * (one.ndim - 1))) for one in task.data(None).train)


@pytest.mark.parametrize("per_example", [False, True])
def test_an_unbiased_estimator_has_the_enumerated_gradient_as_its_mean(per_example: bool) -> None:
    task = some(law="xor", per_example=per_example)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    batch = batch_of(task, 100)
    truth = gradient(task, enumerated_loss(task, batch))
    assert largest_z(task, batch, build("rloo"), truth) < 5
    assert largest_z(task, batch, build("straight_through"), truth) > 5  # the test has power
    torch.testing.assert_close(estimated(task, batch, build("exact")), truth)


def test_the_laws_are_those_of_the_docstring() -> None:
    x = torch.tensor([[1.0, -2.0, 0.5, 0.0, 2.0, 1.0, -1.0, 0.5, 7.0, 3.0]])
    expected = {
        "xor": -2.0,
        "orange_skin": 1 + 4 + 0.25 - 4,
        "additive": -10 * math.sin(0.2) + 2 + 0.5 + 1 - 2.4,
        "switch": 1 + 4 + 0.25 - 4,
    }
    assert {name: law.logit(x).item() for name, law in LAWS.items()} == pytest.approx(expected)
    x[0, 9] = -3.0
    assert LAWS["switch"].logit(x).item() == pytest.approx(-10 * math.sin(0.4) + 1 - 1 + math.exp(-0.5) - 2.4)


@pytest.mark.parametrize("name", LAWS)
def test_a_label_depends_on_the_relevant_features_and_on_no_other(name: str) -> None:
    torch.manual_seed(0)
    law, x_ND = LAWS[name], torch.randn(500, 12)
    relevant_ND = law.relevant(x_ND)
    assert (relevant_ND.sum(-1) == law.n_relevant).all()
    for feature in range(12):
        changed_ND = x_ND.clone()
        changed_ND[:, feature] = -2 * x_ND[:, feature] + 0.1
        differs_N = (law.logit(changed_ND) - law.logit(x_ND)).abs() > 1e-5
        assert not differs_N[~relevant_ND[:, feature]].any()
        relevant_N = relevant_ND[:, feature]
        assert not relevant_N.any() or differs_N[relevant_N].float().mean() > 0.9


def test_switch_has_two_groups_of_examples() -> None:
    x_ND, _ = some(law="switch", per_example=True).data(None).test
    assert 0.45 < (x_ND[:, 9] > 0).double().mean() < 0.55
    assert x_ND[:, 9].abs().mean() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("name", [name for name in LAWS if name != "switch"])
def test_logits_that_point_at_the_relevant_features_recall_them_all(name: str) -> None:
    task = some(law=name)
    with torch.no_grad():
        task.logits_LK.copy_(100 * torch.eye(10)[: task.n_latents])
    batch = batch_of(task, 4)
    assert task.evaluate(batch, CodeDraws({"z": build("rloo")}))["recall"].tolist() == [1] * 4
    with torch.no_grad():
        task.logits_LK[1] = task.logits_LK[0]  # twice the same counts once
    assert task.evaluate(batch, CodeDraws({"z": build("rloo")}))["recall"].tolist() == pytest.approx(
        [1 - 1 / task.n_latents] * 4
    )


def test_one_selection_for_all_recalls_at_most_three_fifths_of_switch() -> None:
    task = some(law="switch")
    x_ND, y_N = task.data(None).test
    z_LK = torch.eye(10)[[0, 1, 2, 3, 9]]
    recall_N = task.double().measure((x_ND.double(), y_N), z_LK.double().expand(len(x_ND), -1, -1))["recall"]
    assert sorted(set(recall_N.tolist())) == pytest.approx([0.2, 1.0])
    assert recall_N.mean() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("law", LAWS)
def test_the_true_law_has_no_excess_loss_and_any_other_has_some(law: str) -> None:
    task = some(law=law, per_example=True)
    x_ND, y_N = task.data(None).test
    batch, z_NLK = (x_ND.double(), y_N.double()), torch.zeros(len(x_ND), task.n_latents, 10).double()

    class Truth(torch.nn.Module):
        def forward(self, seen_ND: torch.Tensor) -> torch.Tensor:
            return LAWS[law].logit(batch[0]).unsqueeze(-1) + shift

    task.predictor, shift = Truth(), 0.0
    right = task.measure(batch, z_NLK)
    assert right["excess_loss"].abs().max() < 1e-9
    shift = 0.1
    wrong = task.measure(batch, z_NLK)
    assert (wrong["excess_loss"] >= 0).all()
    assert wrong["excess_loss"].mean() > 1e-4
    assert right["accuracy"].double().mean() > 0.6


def test_the_predictor_sees_the_selected_features_only() -> None:
    for per_example in (False, True):
        task = some(law="xor", per_example=per_example)
        x_BD, y_B = batch_of(task, 2)
        z_SBLK = torch.eye(10, dtype=torch.double)[[3, 5]].expand(1, 2, -1, -1)
        before = task.cost((x_BD, y_B))(z_SBLK)
        other_BD = torch.randn_like(x_BD)
        other_BD[:, [3, 5]] = x_BD[:, [3, 5]]
        torch.testing.assert_close(task.cost((other_BD, y_B))(z_SBLK), before)
        assert (task.cost((other_BD.roll(1, -1), y_B))(z_SBLK) != before).all()


def test_the_data_are_the_same_for_the_same_seed() -> None:
    first, second, third = (some(law="xor"), some(law="xor"), some(law="xor"))
    torch.manual_seed(1)
    one = first.data(None)
    torch.manual_seed(1)
    same = second.data(None)
    assert all(torch.equal(*pair) for pair in zip(one.train, same.train, strict=True))
    assert not torch.equal(one.train[0], third.data(None).train[0])
    assert [len(split[0]) for split in (one.train, one.validation, one.test)] == [50, 2_000, 5_000]


def test_the_data_of_the_test_do_not_depend_on_the_number_of_training_examples() -> None:
    few, many = (some(n_train=n_train) for n_train in (50, 500))
    found = []
    for task in (few, many):
        torch.manual_seed(3)
        found.append(task.data(None))
    assert len(found[0].train[0]) != len(found[1].train[0])
    for name in ("validation", "test"):
        for one, other in zip(getattr(found[0], name), getattr(found[1], name), strict=True):
            assert torch.equal(one, other)


def test_the_context_of_an_estimator_are_the_features() -> None:
    task = some()
    batch = batch_of(task, 4)
    assert torch.equal(task.context(batch), batch[0])
    assert task.layers() == {"z": (4, 10)}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"law": "xnor"}, "expected law to be one of xor, orange_skin, additive, switch, got 'xnor'."),
        ({"n_selected": 11}, "expected n_selected of at most 10 features, got 11."),
        ({"n_selected": 0}, "expected a whole number n_selected >= 1, got 0."),
        ({"n_features": 9}, "expected a whole number n_features >= 10, got 9."),
        ({"per_example": 1}, "expected per_example: true or false, got 1."),
        ({"n_hidden": 0}, "expected a whole number n_hidden >= 1, got 0."),
        ({"n_train": 0}, "expected a whole number n_train >= 1, got 0."),
    ],
)
def test_impossible_parameters_are_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"feature_selection: {message}"):
        FeatureSelection(**params)
