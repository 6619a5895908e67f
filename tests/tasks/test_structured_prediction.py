"""Structured prediction: nested estimators against enumeration of the codes of both layers."""

import math
from itertools import product

import pytest
import torch
from tasks_by_hand import Draws

from estimators import build
from harness.tasks.nesting import NestedCost
from harness.tasks.splits import Splits
from harness.tasks.structured_prediction import StructuredPrediction

N_DRAWS, N_GROUPS = 20_000, 40
BOUND = 5.0
"""Standard errors: the t-distribution of 40 groups exceeds it in 1 of 80,000 comparisons."""
SHAPE = (4, 2)


def small_task(n_latents: int = 1, n_categories: int = 2, *, scale: float = 3.0) -> StructuredPrediction:
    """Return a task on images of 4 × 2 pixels, in float64, with weights large enough for curved costs."""
    torch.manual_seed(0)
    task = StructuredPrediction(n_latents=n_latents, n_categories=n_categories)
    images = torch.zeros(2, math.prod(SHAPE)), torch.zeros(2, dtype=torch.long)
    task.build(Splits(train=images, test=images, image_shape=SHAPE), dict.fromkeys(("z1", "z2"), n_categories))
    task.double()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.mul_(scale)
    return task


def image() -> torch.Tensor:
    return torch.tensor([[1.0, 0, 1, 1, 0, 1, 1, 0]], dtype=torch.float64)


def all_codes(task: StructuredPrediction) -> torch.Tensor:
    """Return all codes of a layer, (N, L, K)."""
    one = torch.eye(task.n_categories, dtype=torch.float64)
    return torch.stack([torch.stack(code) for code in product(one, repeat=task.n_latents)])


def log_prob(logits: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    return (code * logits.log_softmax(-1)).sum((-2, -1))


def expected_cost(task: StructuredPrediction, x_BD: torch.Tensor) -> torch.Tensor:
    """Return E[cost] by a sum over the codes of both layers, without an estimator."""
    codes = all_codes(task)
    total = torch.zeros(len(x_BD), dtype=torch.float64)
    for z1, z2 in product(codes, codes):
        weight = log_prob(task.logits_1(x_BD), z1) + log_prob(task.logits_2(z1), z2)
        total = total + weight.exp() * task.cost_2(z2.expand(len(x_BD), -1, -1), x_BD)
    return total


def gradient(task: StructuredPrediction, loss: torch.Tensor) -> torch.Tensor:
    """Return the gradient of all parameters, in one vector."""
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(task.parameters()))])


def built(name: str, n_latents: int = 1, n_categories: int = 2):
    torch.manual_seed(1)
    estimator = build(name).double()
    estimator.prepare(n_latents, n_categories, math.prod(SHAPE))
    return estimator


def z_scores(task: StructuredPrediction, outer: str, inner: str, n_draws: int = N_DRAWS) -> dict[str, float]:
    """Return the largest |mean − truth|/standard error of the gradient of each of the three linear layers."""
    truth = gradient(task, expected_cost(task, image()).mean())
    sizes = task.n_latents, task.n_categories
    estimators = {"z1": built(outer, *sizes), "z2": built(inner, *sizes)}
    groups = []
    torch.manual_seed(2)
    for _ in range(N_GROUPS):
        batch = image().expand(n_draws // N_GROUPS, -1)
        loss = task.loss((batch, torch.zeros(len(batch))), estimators)
        groups.append(gradient(task, loss.terms["cost"].mean()))
    found = torch.stack(groups)
    z = (found.mean(0) - truth).abs() / (found.std(0) / math.sqrt(N_GROUPS) + 1e-12)
    n_first, n_second = (sum(one.numel() for one in layer.parameters()) for layer in (task.first, task.second))
    parts = z.split([n_first, n_second, len(z) - n_first - n_second])
    return {name: part.max().item() for name, part in zip(("first", "second", "decoder"), parts, strict=True)}


def test_exact_estimators_give_the_gradient_of_the_sum_over_both_layers() -> None:
    task = small_task(2, 3)
    x_BD = torch.cat([image(), 1 - image()])
    loss = task.loss((x_BD, torch.zeros(2)), {"z1": build("exact"), "z2": build("exact")}).terms["cost"].mean()
    truth = expected_cost(task, x_BD).mean()
    assert torch.allclose(loss, truth, rtol=1e-12)
    assert torch.allclose(gradient(task, loss), gradient(task, truth), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("outer", ["rloo", "carms", "indecater", "muprop", "rebar", "double_cv", "reinforce_ema"])
@pytest.mark.parametrize("inner", ["rloo", "muprop", "rebar"])
def test_unbiased_estimators_nest_to_an_unbiased_gradient_of_both_layers(outer: str, inner: str) -> None:
    """Also those outside that couple values and slopes of the cost, which is noisy: its slope is right on average."""
    assert max(z_scores(small_task(), outer, inner).values()) < BOUND


@pytest.mark.parametrize("outer", ["rloo", "muprop", "double_cv"])
def test_the_first_layer_is_unbiased_whatever_slope_the_second_has_if_only_values_count(outer: str) -> None:
    """MuProp and double control variates subtract any slope and add its mean back, also a wrong one."""
    z = z_scores(small_task(2, 3), outer, "straight_through")
    assert max(z["first"], z["decoder"]) < BOUND
    assert z["second"] > 2 * BOUND


def test_rebar_needs_the_true_slope_of_the_second_layer() -> None:
    z = z_scores(small_task(2, 3), "rebar", "straight_through", 5 * N_DRAWS)
    assert z["decoder"] < BOUND
    assert min(z["first"], z["second"]) > 2 * BOUND


def test_a_pathwise_estimator_outside_an_unbiased_one_is_biased_in_its_own_layer_alone() -> None:
    z = z_scores(small_task(), "straight_through", "rloo")
    assert max(z["second"], z["decoder"]) < BOUND
    assert z_scores(small_task(), "straight_through", "exact")["first"] > 2 * BOUND


def test_a_relaxation_is_biased_in_all_layers() -> None:
    assert min(z_scores(small_task(), "gumbel_softmax", "exact").values()) > 2 * BOUND


# --- where straight-through is exact ----------------------------------------------------------------------------------


def nested_gradient(outer: str, inner: str, transition_KK: torch.Tensor, n_draws: int) -> torch.Tensor:
    """Return gradients (n_draws, parameters) of a chain whose cost is linear in every code.

    One variable in each layer; the classes of the second have the probabilities z1 · transition, linear in z1.
    """
    torch.manual_seed(3)
    logits_1 = torch.tensor([0.4, -0.3, 0.1], dtype=torch.float64).expand(n_draws, 1, 3).clone().requires_grad_()
    table = transition_KK.log().expand(n_draws, 3, 3).clone().requires_grad_()
    value_K = torch.tensor([2.0, -1.0, 0.3], dtype=torch.float64)

    def logits_2(z1_SBLK: torch.Tensor) -> torch.Tensor:
        return torch.einsum("sblk,bkj->sblj", z1_SBLK, table.softmax(-1)).log()

    below = NestedCost(build(inner), logits_2, lambda z2: (z2 * value_K).sum((-2, -1)))
    build(outer)(logits_1, below).cost_B.sum().backward()
    return torch.cat([logits_1.grad.flatten(1), table.grad.flatten(1)], 1)


@pytest.mark.parametrize(
    ("outer", "inner"), [("straight_through",) * 2, ("straight_through", "exact"), ("rloo", "straight_through")]
)
def test_straight_through_is_exact_on_average_where_the_expected_cost_is_linear_in_each_code(
    outer: str, inner: str
) -> None:
    """In the second layer if the cost is linear in its code; in the first if also the law of the second is in z1."""
    transition = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.7, 0.2]], dtype=torch.float64)
    truth = nested_gradient("exact", "exact", transition, 1)[0]
    found = nested_gradient(outer, inner, transition, 5_000)
    error = found.std(0) / math.sqrt(len(found))
    assert truth.abs().min() > 1e-3
    assert ((found.mean(0) - truth).abs() <= BOUND * error + 1e-12).all()


# --- the task ---------------------------------------------------------------------------------------------------------


def test_control_losses_of_both_layers_are_added_and_train_both() -> None:
    task = small_task()
    estimators = {name: built("rebar").train() for name in ("z1", "z2")}
    loss = task.loss((image(), torch.zeros(1)), estimators)
    own = {name: [*one.parameters()] for name, one in estimators.items()}
    slopes = torch.autograd.grad(loss.control_loss, [*own["z1"], *own["z2"]], retain_graph=True)
    assert all(slope.abs().max() > 0 for slope in slopes)
    assert not any(one.requires_grad for one in torch.autograd.grad(loss.terms["cost"], list(task.parameters())))
    assert task.loss((image(), torch.zeros(1)), {name: built("rloo") for name in estimators}).control_loss is None


@pytest.mark.parametrize("outer", ["indecater", "arsm"])
def test_an_estimator_that_evaluates_values_only_leaves_the_control_loss_of_its_one_call_with_a_gradient(
    outer: str,
) -> None:
    task, inner = small_task(2, 3), built("rebar", 2, 3).train()
    loss = task.loss((image(), torch.zeros(1)), {"z1": built(outer, 2, 3), "z2": inner})
    assert loss.control_loss is not None
    assert torch.autograd.grad(loss.control_loss, list(inner.parameters()))[0] != 0


def test_the_measure_is_the_log_mean_likelihood_and_falls_to_the_true_one() -> None:
    task = small_task()
    with torch.no_grad():
        task.decoder.weight.mul_(4)
    codes = all_codes(task)
    logits_1 = task.logits_1(image())
    terms = [
        log_prob(logits_1, z1) + log_prob(task.logits_2(z1), z2) - task.cost_2(z2[None], image())
        for z1, z2 in product(codes, codes)
    ]
    truth = -torch.stack(terms).logsumexp(0).item()
    test = image().expand(100, -1), torch.zeros(100)
    torch.manual_seed(0)
    with torch.no_grad():
        one, many = (task.test_measures(test, Draws(1, m))["nll"] for m in (1, 2_500))
        cost = task.evaluate(test, Draws(50))["cost"].mean().item()
    assert abs(many - truth) < 0.02
    assert one > truth + 0.1
    assert abs(cost - expected_cost(task, image()).item()) < 0.5


def test_shapes_sizes_and_names() -> None:
    task = StructuredPrediction()
    images = torch.zeros(1, 784), torch.zeros(1)
    task.build(Splits(train=images, test=images, image_shape=(28, 28)), {"z1": 10, "z2": 10})
    assert task.layers() == {"z1": (20, 10), "z2": (20, 10)}
    assert [tuple(one.shape) for one in task.parameters() if one.ndim == 2] == [(200, 392), (200, 200), (392, 200)]
    assert task.upper.tolist() == list(range(392))
    colour = StructuredPrediction(n_latents=200, n_categories=2)
    images = torch.zeros(1, 3 * 5 * 4), torch.zeros(1)
    colour.build(Splits(train=images, test=images, image_shape=(3, 5, 4)), {"z1": 2, "z2": 2})
    assert (len(colour.upper), len(colour.lower)) == (3 * 2 * 4, 3 * 3 * 4)
    assert len({*colour.upper.tolist(), *colour.lower.tolist()}) == 60


def test_pictures_keep_the_upper_half_and_complete_it() -> None:
    task = small_task().float()
    x = image().float().expand(2, -1)
    with torch.no_grad():
        ((name, shown),) = task.pictures((x, torch.zeros(2)), Draws(), None)
    assert name == "completions"
    assert shown.shape == (2, 8, 8)
    assert torch.equal(shown[:, :, :4], x[:, None, :4].expand(2, 8, 4))
    assert torch.equal(shown[:, 0], x)
    assert ((shown >= 0) & (shown <= 1)).all()


@pytest.mark.parametrize("params", [{"n_latents": 0}, {"n_categories": 1}, {"n_latents": 2.0}, {"n_categories": True}])
def test_impossible_sizes_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="structured_prediction: expected a whole number n_"):
        StructuredPrediction(**params)  # type: ignore[arg-type]
