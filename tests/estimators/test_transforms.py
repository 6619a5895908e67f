"""Every estimator under torch.func: what a loop of backwards gives, or one line that says what to do."""

import re

import pytest
import torch
from paths import ROOT
from torch import func
from transformed import (
    BREAKS,
    EXACT,
    LEARN,
    MIXED_REFUSED,
    ONCE,
    SEED,
    SURROGATE,
    constant_noise,
    plain,
    ready,
    total,
)

from estimators import REGISTRY, Pathwise, build, expect, sample
from estimators.reference_problem import cubic_cost


def one_seed(function):
    """Map over the first argument with the noise of SEED for each example, as a loop that seeds each time."""

    def mapped(*inputs):
        torch.manual_seed(SEED)
        return func.vmap(function, in_dims=(0, None), randomness="same")(*inputs)

    return mapped


@pytest.mark.parametrize("name", REGISTRY)
def test_vmap_and_grad_give_what_a_loop_of_backwards_gives(name, monkeypatch):
    constant_noise(monkeypatch)
    values_B, slopes_BLH, decoder_BLK = plain(name)
    estimator, logits_BLH, weights_LK = ready(name)
    function = total(estimator)

    torch.testing.assert_close(one_seed(function)(logits_BLH, weights_LK), values_B)
    torch.manual_seed(SEED)
    found = func.grad(function, argnums=(0, 1))(logits_BLH[0], weights_LK)
    torch.testing.assert_close(found, (slopes_BLH[0], decoder_BLK[0]))
    of_each = one_seed(func.grad(function, argnums=(0, 1)))(logits_BLH, weights_LK)
    torch.testing.assert_close(of_each, (slopes_BLH, decoder_BLK))

    def of_all(*inputs):
        return one_seed(function)(*inputs).sum()

    expected = (slopes_BLH, decoder_BLK.sum(0))
    torch.testing.assert_close(func.grad(of_all, argnums=(0, 1))(logits_BLH, weights_LK), expected)
    leaves = logits_BLH.requires_grad_(), weights_LK.requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(of_all(*leaves), leaves), expected)


@pytest.mark.parametrize("name", REGISTRY)
def test_jacrev_gives_the_gradient_of_each_cost(name, monkeypatch):
    constant_noise(monkeypatch)
    estimator, logits_BLH, weights_LK = ready(name)

    def costs(logits_BLH):
        torch.manual_seed(SEED)
        return estimator(logits_BLH, cubic_cost(weights_LK)).cost_B

    found = func.jacrev(costs)(logits_BLH)
    cost_B = costs(logits_BLH.requires_grad_())
    expected = [torch.autograd.grad(each, logits_BLH, retain_graph=True)[0] for each in cost_B]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("name", REGISTRY)
def test_forward_mode_gives_the_gradient(name, monkeypatch):
    constant_noise(monkeypatch)
    _, slopes_BLH, _ = plain(name)
    estimator, logits_BLH, weights_LK = ready(name)
    function = total(estimator)

    def slope():
        torch.manual_seed(SEED)
        return func.jacfwd(lambda logits_LH: function(logits_LH, weights_LK), randomness="same")(logits_BLH[0])

    if name in ("imle", "aimle"):
        with pytest.raises(RuntimeError, match=rf"^{name}: expected reverse mode, got forward mode: .* or jacrev\.$"):
            slope()
    else:
        torch.testing.assert_close(slope(), slopes_BLH[0])


@pytest.mark.parametrize("name", [name for name, cls in REGISTRY.items() if issubclass(cls, Pathwise)])
def test_sample_under_vmap_draws_for_each_example(name):
    estimator, logits_BLH, _ = ready(name, 1)

    def codes(logits_LH):
        return sample(logits_LH, estimator)

    many_BLH = logits_BLH.expand(200, -1, -1)
    torch.manual_seed(SEED)
    z_BLK = func.vmap(codes, randomness="different")(many_BLH)
    assert name in ("argmax_ste", "softmax") or len(z_BLK.unique(dim=0)) > 1
    torch.testing.assert_close(z_BLK.sum(-1), torch.ones_like(z_BLK[..., 0]))
    mean_LK = sample(many_BLH, estimator).mean(0)
    assert (z_BLK.mean(0) - mean_LK).abs().max() < 5 * (0.5 / 200) ** 0.5


def test_masks_and_contexts_work_under_vmap():
    logits_BLK, mask_BLK = torch.zeros(3, 2, 4), torch.ones(3, 2, 4, dtype=torch.bool)
    mask_BLK[..., 1] = False

    def loss(logits_LK, mask_LK):
        return expect(logits_LK, lambda z_SLK: z_SLK[..., 0].sum(-1), "rloo", batch_dims=0, mask=mask_LK)

    slopes_BLK = func.vmap(func.grad(loss), randomness="different")(logits_BLK, mask_BLK)
    assert (slopes_BLK[..., 1] == 0).all()
    assert slopes_BLK.isfinite().all()


def test_noise_under_vmap_asks_for_its_kind():
    with pytest.raises(RuntimeError, match="called random operation while in randomness error mode"):
        func.vmap(lambda logits_K: sample(logits_K, "straight_through"))(torch.zeros(3, 4))


@pytest.mark.parametrize("name", LEARN)
def test_what_learns_is_refused_under_a_transform(name):
    estimator, logits_BLH, weights_LK = ready(name)
    function = total(estimator.train())
    message = (
        f"^{name}: expected evaluation mode under torch.func and is_grads_batched, got training: .* Call estimator"
    )
    state = {key: value.clone() for key, value in estimator.state_dict().items()}
    for transformed in (func.grad(function), one_seed(function)):
        with pytest.raises(ValueError, match=message):
            transformed(logits_BLH, weights_LK)
    torch.testing.assert_close(estimator.state_dict(), state)


NO_BATCH = ("gumbel_rao", "reinmax_rao")


@pytest.mark.parametrize("name", REGISTRY)
def test_a_batch_of_gradients_is_that_of_each_or_one_line(name):
    """As `torch.autograd.functional.jacobian(vectorize=True)` asks for it."""
    estimator, logits_BLH, weights_LK = ready(name)
    logits_BLH.requires_grad_()

    def costs():
        torch.manual_seed(SEED)
        return estimator(logits_BLH, cubic_cost(weights_LK)).cost_B

    def rows(cost_B):
        return torch.autograd.grad(cost_B, logits_BLH, torch.eye(3, dtype=cost_B.dtype), is_grads_batched=True)[0]

    if name in NO_BATCH:
        with pytest.raises(RuntimeError, match=rf"^{name}: expected one gradient in the backward pass, got a batch"):
            rows(costs())
        return
    for row, found in enumerate(rows(costs())):
        torch.testing.assert_close(found, torch.autograd.grad(costs()[row], logits_BLH)[0])


def test_what_learns_backward_is_refused_for_a_batch_of_gradients():
    estimator, logits_BLH, weights_LK = ready("aimle")
    cost_B = estimator.train()(logits_BLH.requires_grad_(), cubic_cost(weights_LK)).cost_B
    with pytest.raises(ValueError, match=r"^aimle: expected evaluation mode under torch.func and is_grads_batched"):
        torch.autograd.grad(cost_B, logits_BLH, torch.eye(3, dtype=cost_B.dtype), is_grads_batched=True)


def test_what_is_not_prepared_is_refused_under_a_transform():
    context_BX = torch.ones(2, 5)
    for name, message in (
        ("relax", "prepare\\(n_latents"),
        ("nvil", "prepare\\(n_latents, n_categories, n_context\\)"),
    ):
        estimator = build(name).eval()

        def loss(logits_BLK, estimator=estimator):
            return estimator(logits_BLK, lambda z_SBLK: z_SBLK.sum((-1, -2)), context_BX).cost_B.sum()

        with pytest.raises(ValueError, match=f"^{name}: expected an estimator that is prepared under .*{message}"):
            func.grad(loss)(torch.zeros(2, 2, 3))
        assert not list(estimator.parameters())[1:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muprop", "rebar", "relax", "double_cv", "gumbel_entmax", "sparse_marginal"])
def test_compiles_to_one_graph_with_a_decoder(name):
    torch.compiler.reset()
    estimator, logits_BLH, weights_LK = ready(name)
    estimator.train(name == "double_cv")

    def step(logits_BLH, weights_LK):
        estimate = estimator(logits_BLH, cubic_cost(weights_LK))
        return estimate.cost_B.sum(), estimate.control_loss

    found = []
    for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaves = [each.clone().requires_grad_() for each in (logits_BLH, weights_LK)]
        torch.manual_seed(SEED)
        value, control_loss = function(*leaves)
        found.append([value, *torch.autograd.grad(value, leaves, retain_graph=True)])
        if control_loss is not None:
            found[-1] += torch.autograd.grad(control_loss, estimator.eta)
    torch.testing.assert_close(*found)


def test_the_page_says_of_every_estimator_what_it_does():
    page = (ROOT / "docs" / "use-in-your-own-model.md").read_text()
    rows = re.findall(
        r"^\| (`.*`) \| (.*) \| (.*) \| (.*) \| (.*) \|$", page.split("## Derivatives of other kinds")[1], re.M
    )
    told = {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert sum(len(re.findall(r"`\w+`", row[0])) for row in rows) == len(told)
    assert set(told) == set(REGISTRY)
    for name, (transforms, second, mixed, compiled) in told.items():
        assert compiled == ("in evaluation mode" if name in BREAKS else "yes"), name
        assert transforms.startswith("yes, after `eval()`" if name in LEARN else "yes"), name
        assert second.startswith("yes" if name in EXACT else "of the surrogate" if name in SURROGATE else "error"), name
        kind = (
            "error" if name in MIXED_REFUSED and name not in ONCE else "decoder" if name in ONCE else "in either order"
        )
        assert mixed.startswith(kind), name
        assert ("torch.func" in mixed) == (name in NO_BATCH), name
    batched = next(line for line in page.splitlines() if line.startswith("`is_grads_batched`"))
    assert all(f"`{name}`" in batched for name in (*NO_BATCH, "aimle"))
