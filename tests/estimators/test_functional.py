"""`sample`, `expect` and `draw_codes`: what the estimators do, in loops and shapes of the user's own."""

import copy
import re
from contextlib import suppress
from functools import partial

import pytest
import torch
from estimator_cases import make
from paths import ROOT
from torch import nn

from estimators import (
    REGISTRY,
    Draw,
    DrawsFirst,
    Estimate,
    OneHotCategoricalPathwise,
    Pathwise,
    build,
    draw_codes,
    expect,
    replace_gradient,
    resolve,
    sample,
)
from estimators.conformance.codes import check_codes, check_shapes_and_dtypes
from estimators.conformance.declaration import check_black_box
from estimators.conformance.repeatability import check_determinism, check_state
from estimators.gumbel import log_prob, one_hot, sample_classes

PATHWISE = [name for name, cls in REGISTRY.items() if issubclass(cls, Pathwise)]
DRAWS_FIRST = [name for name, cls in REGISTRY.items() if issubclass(cls, DrawsFirst) and cls.objective == "mean"]
EXPECTS = [name for name, cls in REGISTRY.items() if cls.objective == "mean"]
LEARNS = ("aimle", "reinforce_ema", "nvil", "rebar", "relax", "double_cv")
ON_CLASSES = [name for name in PATHWISE if name != "igr"]


def logits_of(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()


def cost(z: torch.Tensor) -> torch.Tensor:
    """A cost in which two variables of any number of classes interact, (S, B, 2, K) -> (S, B)."""
    weight_K = torch.arange(1.0, z.shape[-1] + 1, dtype=z.dtype)
    score = (z * weight_K).sum(-1)
    return (score.prod(-1) - 2.5).square()


def named(name: str) -> object:
    """Return what is passed: an object where the estimator learns or must be given values, else the name."""
    if name not in LEARNS and not REGISTRY[name].examples:
        return name
    torch.manual_seed(0)
    estimator = make(name).double()
    estimator.prepare(2, 3, 0)
    return estimator


def n_classes(name: str) -> int:
    """Return the last dimension of the logits: that of igr holds 2(K − 1) numbers."""
    return {"disarm": 2, "igr": 4}.get(name, 3)


def gradient(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
    return found


# --- the same as the estimator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHWISE)
def test_a_sample_is_that_of_the_estimator(name: str) -> None:
    logits, estimator = logits_of(6, 2, 4), build(name)
    torch.manual_seed(1)
    direct = estimator.sample(logits.reshape(12, 1, 4))[0].reshape(6, 2, -1)
    torch.manual_seed(1)
    z = sample(logits, name)
    assert torch.equal(z, direct)
    weight = torch.linspace(-1, 2, z.shape[-1], dtype=z.dtype)
    assert torch.equal(gradient(z * weight, logits), gradient(direct * weight, logits))


@pytest.mark.parametrize("name", EXPECTS)
def test_an_expectation_is_the_estimate(name: str) -> None:
    logits, given = logits_of(5, 2, n_classes(name)), named(name)
    estimator = copy.deepcopy(given) if isinstance(given, nn.Module) else make(name)
    torch.manual_seed(1)
    direct = estimator(logits, cost).cost_B
    torch.manual_seed(1)
    found = expect(logits, cost, given)
    assert found.shape == (5,)
    assert torch.equal(found, direct)
    assert torch.equal(gradient(found, logits), gradient(direct, logits))


@pytest.mark.parametrize("name", DRAWS_FIRST)
def test_codes_that_are_drawn_first_give_the_same(name: str) -> None:
    logits = logits_of(5, 2, n_classes(name))
    torch.manual_seed(1)
    whole = expect(logits, cost, named(name))
    torch.manual_seed(1)
    draw = draw_codes(logits, named(name))
    assert draw.z.shape[1:] == logits.shape
    assert torch.equal(draw.z.sum(-1), torch.ones_like(draw.z[..., 0]))
    loss = draw.loss(cost(draw.z))
    assert torch.equal(loss, whole)
    assert torch.equal(gradient(loss, logits), gradient(whole, logits))


@pytest.mark.parametrize("name", EXPECTS)
def test_the_codes_of_an_estimate_are_those_that_the_cost_saw_first(name: str) -> None:
    logits, seen = logits_of(5, 2, n_classes(name)), []
    given = named(name)
    estimator = given if isinstance(given, nn.Module) else make(name)
    estimate = estimator(logits, lambda z: (seen.append(z), cost(z))[1])
    if name in ("exact", "sparse_marginal"):
        assert estimate.z_SBLK is None
    else:
        assert torch.equal(estimate.z_SBLK, seen[0])


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 1, 3, 5, 4), (0, 4)])
def test_a_sample_has_the_shape_of_its_logits(shape: tuple[int, ...]) -> None:
    logits = logits_of(*shape)
    for name in ("straight_through", "gumbel_softmax"):
        assert sample(logits, name).shape == shape
        assert sample(logits, name, n_samples=1).shape == (1, *shape)
        assert sample(logits, build(name, n_samples=3)).shape == (3, *shape)


@pytest.mark.parametrize("dim", range(-3, 3))
def test_classes_may_be_along_any_dimension(dim: int) -> None:
    logits = logits_of(3, 4, 5)
    z = sample(logits, "straight_through", dim=dim)
    assert z.shape == logits.shape
    assert torch.equal(z.sum(dim), torch.ones_like(z.sum(dim)))
    several = sample(logits, "straight_through", dim=dim, n_samples=7)
    at = dim if dim < 0 else dim + 1
    assert several.shape == (7, 3, 4, 5)
    assert torch.equal(several.sum(at), torch.ones_like(several.sum(at)))
    torch.manual_seed(1)
    moved = sample(logits.movedim(dim, -1), "reinmax").movedim(-1, dim)
    torch.manual_seed(1)
    assert torch.equal(sample(logits, "reinmax", dim=dim), moved)


@pytest.mark.parametrize(("shape", "batch_dims"), [((7, 3), 1), ((5, 2, 3), 1), ((5, 2, 2, 3), 1), ((4, 5, 2, 3), 2)])
def test_the_cost_sees_the_shape_of_the_logits(shape: tuple[int, ...], batch_dims: int) -> None:
    def measured(z: torch.Tensor) -> torch.Tensor:
        assert z.shape == (4, *shape)
        return z.flatten(1 + batch_dims)[..., 0]

    logits = logits_of(*shape)
    found = expect(logits, measured, "rloo", n_samples=4, batch_dims=batch_dims)
    assert found.shape == shape[:batch_dims]
    assert gradient(found, logits).isfinite().all()
    draw = draw_codes(logits, "rloo", n_samples=4, batch_dims=batch_dims)
    assert draw.loss(measured(draw.z)).shape == shape[:batch_dims]


def test_a_single_example_needs_no_batch() -> None:
    logits = logits_of(2, 3)
    found = expect(logits, cost, "exact", batch_dims=0)
    assert found.shape == ()
    assert torch.allclose(found, expect(logits.unsqueeze(0), cost, "exact")[0])


def test_two_layers_by_nesting_have_the_gradient_of_enumeration() -> None:
    """Over 4,000 draws, for a score function and a pathwise estimator of a linear cost inside a score function."""
    logits_1, weight = logits_of(1, 1, 3), logits_of(3, 2)
    value_K = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def deep(estimator: str):
        def cost_1(z1: torch.Tensor) -> torch.Tensor:
            logits_2 = z1 @ weight  # (S, B, 1, 2)
            return expect(logits_2, lambda z2: (z2 * value_K).sum((-2, -1)), estimator, batch_dims=2)

        return cost_1

    truth = torch.autograd.grad(expect(logits_1, deep("exact"), "exact").sum(), (logits_1, weight))
    for inner in ("rloo", "straight_through"):
        torch.manual_seed(0)
        found = expect(logits_1.expand(4000, 1, 3), deep(inner), "rloo", n_samples=4).mean()
        for one, other in zip(torch.autograd.grad(found, (logits_1, weight)), truth, strict=True):
            assert (one - other).abs().max() < 0.03


@pytest.mark.parametrize(
    "name", ["rloo", "carms", "arsm", "indecater", "unordered_set", "muprop", "rebar", "double_cv"]
)
def test_an_unbiased_estimator_stays_so_outside_a_noisy_layer(name: str) -> None:
    """The cost of one code differs from call to call then, and its slope too."""
    weight, value_K = logits_of(3, 2).detach(), torch.tensor([1.0, -2.0], dtype=torch.float64)

    def cost_1(inner: str):
        def measured(z1: torch.Tensor) -> torch.Tensor:
            return expect(z1 @ weight, lambda z2: (z2 * value_K).sum((-2, -1)).square(), inner, batch_dims=2)

        return measured

    logits = logits_of(1, 1, 3)
    truth = gradient(expect(logits, cost_1("exact"), "exact"), logits)
    many = logits.detach().expand(40_000, 1, 3).clone().requires_grad_()
    estimator = build(name, **({"n_samples": 2} if name == "unordered_set" else {})).double()
    torch.manual_seed(0)
    found = gradient(expect(many, cost_1("rloo"), estimator.eval()), many)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - truth[0]).abs() <= 5 * error + 1e-12).all()
    assert (error < 0.05).all()


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ON_CLASSES)
def test_forbidden_classes_are_never_drawn_and_get_no_gradient(name: str) -> None:
    logits = logits_of(200, 5)
    mask = torch.rand(200, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    mask[:, 2] = True
    z = sample(logits, name, mask=mask)
    assert not z[~mask].any()
    assert torch.allclose(z.sum(-1), torch.ones_like(z.sum(-1)))
    found = gradient(z * torch.arange(5), logits)
    assert found.isfinite().all()
    assert not found[~mask].any()


@pytest.mark.parametrize("name", [name for name in EXPECTS if name not in ("igr", "disarm")])
def test_a_mask_is_a_law_over_the_allowed_classes(name: str) -> None:
    logits, mask = logits_of(4, 2, 3), torch.tensor([True, False, True])
    found = gradient(expect(logits, cost, named(name), mask=mask), logits)
    assert found.isfinite().all()
    assert not found[..., 1].any()
    if name == "exact":
        small = logits.detach()[..., [0, 2]].requires_grad_()

        def same(z: torch.Tensor) -> torch.Tensor:
            return cost(torch.stack([z[..., 0], torch.zeros_like(z[..., 0]), z[..., 1]], -1))

        assert torch.allclose(found[..., [0, 2]], gradient(expect(small, same, "exact"), small))


# --- an estimator of the user's own ----------------------------------------------------------------------------------


class HalfBaseline(DrawsFirst):
    """REINFORCE with half of the mean cost of the batch as its baseline: biased, but a score function."""

    name = "half_baseline"

    def draw(self, logits_BLK):
        class_SBL = sample_classes(logits_BLK, 1)
        z_SBLK = one_hot(class_SBL, like=logits_BLK)

        def estimate(cost_SB):
            score_SB = (cost_SB.detach() - cost_SB.detach().mean() / 2) * log_prob(logits_BLK, class_SBL)
            return Estimate(replace_gradient(cost_SB, cost_SB + score_SB.to(cost_SB.dtype)).mean(0), z_SBLK=z_SBLK)

        return Draw(z_SBLK, estimate)


def test_a_class_that_draws_first_works_everywhere() -> None:
    assert not HalfBaseline.uses_context
    assert HalfBaseline.black_box
    logits, mine = logits_of(5, 2, 3), HalfBaseline()
    torch.manual_seed(1)
    whole = expect(logits, cost, mine)
    torch.manual_seed(1)
    draw = draw_codes(logits, mine)
    assert torch.equal(gradient(draw.loss(cost(draw.z)), logits), gradient(whole, logits))
    for check in (check_shapes_and_dtypes, check_codes, check_determinism, check_state, check_black_box):
        check(mine)


# --- estimators that learn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rebar", "relax", "double_cv", "nvil"])
@pytest.mark.parametrize("scale", [1.0, -1.0, 7.0])
def test_backward_trains_an_estimator_too_whatever_the_sign_of_the_loss(name: str, scale: float) -> None:
    logits, context = logits_of(6, 2, 3), torch.randn(6, 4, dtype=torch.float64)
    torch.manual_seed(0)
    estimator = build(name).double()
    estimator.prepare(2, 3, n_context=4)
    other = copy.deepcopy(estimator)
    torch.manual_seed(1)
    estimate = estimator(logits, cost, context)
    estimate.control_loss.backward()
    torch.manual_seed(1)
    (scale * expect(logits, cost, other, context=context).mean()).backward()
    for mine, theirs in zip(estimator.parameters(), other.parameters(), strict=True):
        assert torch.allclose(theirs.grad, abs(scale) * mine.grad)
    assert any(parameter.grad.any() for parameter in other.parameters())


def test_a_baseline_moves_once_for_each_draw_and_not_under_evaluation() -> None:
    estimator, logits = build("reinforce_ema").double(), logits_of(6, 2, 3)
    draw = draw_codes(logits, estimator)
    assert not estimator.mean.weight
    draw.loss(cost(draw.z))
    moved = estimator.mean.weight.clone()
    assert moved > 0
    estimator.eval()
    expect(logits, cost, estimator)
    assert torch.equal(estimator.mean.weight, moved)


def test_codes_may_be_drawn_in_a_rollout_without_gradients() -> None:
    logits = logits_of(5, 2, 3)
    for name in DRAWS_FIRST:
        if name != "disarm":
            torch.manual_seed(1)
            whole = expect(logits, cost, named(name))
            torch.manual_seed(1)
            with torch.no_grad():
                draw = draw_codes(logits, named(name))
                costs = cost(draw.z)
            assert not draw.z.requires_grad
            assert torch.allclose(gradient(draw.loss(costs), logits), gradient(whole, logits)), name


def test_a_draw_is_of_logits_that_do_not_change() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    draw = draw_codes(logits, "rloo")
    with torch.no_grad():
        logits += 1
    with pytest.raises(ValueError, match=r"expected the logits unchanged between the draw and its loss, .+ Draw again"):
        draw.loss(torch.zeros(4, 2))


def test_a_wrong_estimator_of_the_users_own_is_told_by_sample_too() -> None:
    class Detached(Pathwise):
        name, relaxes = "detached", False

        def sample(self, logits_BLK):
            return logits_BLK.detach().unsqueeze(0)

    with pytest.raises(ValueError, match="detached: expected a code with a gradient, got one that is detached"):
        sample(logits_of(2, 3), Detached())


# --- torch's ways ----------------------------------------------------------------------------------------------------


def test_estimators_without_a_state_are_built_once() -> None:
    resolve._BUILT.clear()
    for tau in (0.5, 0.5, 0.7):
        sample(logits_of(2, 3), "gumbel_softmax", tau=tau)
    assert len(resolve._BUILT) == 2
    for step in range(200):
        sample(logits_of(2, 3), "gumbel_softmax", tau=1 + step / 1000)
    assert len(resolve._BUILT) <= resolve.MOST_BUILT
    sample(logits_of(2, 3), "straight_through", tau=1.0)
    with pytest.raises(ValueError, match="expected tau > 0, got True"):  # though True == 1.0
        sample(logits_of(2, 3), "straight_through", tau=True)


def test_a_learned_temperature_gets_its_gradient() -> None:
    tau = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    z = sample(logits_of(4, 3), "gumbel_softmax", tau=tau)
    z.square().sum().backward()
    assert tau.grad is not None
    assert tau.grad != 0


def test_nothing_is_recorded_without_gradients() -> None:
    logits = logits_of(4, 2, 3)
    with torch.no_grad():
        assert not sample(logits, "reinmax").requires_grad
        for name in EXPECTS:
            assert not expect(logits_of(4, 2, n_classes(name)), cost, named(name)).requires_grad, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_have_the_dtype_of_the_logits(dtype: torch.dtype) -> None:
    logits = torch.randn(4, 2, 3, dtype=dtype, requires_grad=True)
    for name in ("straight_through", "gumbel_softmax", "reinmax"):
        assert sample(logits, name).dtype == dtype
    loss = expect(logits, cost, "rloo")
    assert gradient(loss, logits).dtype == dtype


def test_under_autocast_logits_are_narrow_and_gradients_arrive() -> None:
    layer = nn.Linear(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = sample(layer(torch.randn(8, 5)), "reinmax")
        loss = (z * torch.arange(4)).sum()
    loss.backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["straight_through", "reinmax", "gumbel_softmax"])
def test_a_compiled_sample_is_the_same_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    resolve._BUILT.clear()
    logits = logits_of(4, 3)
    compiled = torch.compile(lambda logits: sample(logits, name, tau=0.9), fullgraph=True, backend="eager")
    torch.manual_seed(1)
    found = compiled(logits)
    torch.manual_seed(1)
    assert torch.allclose(found, sample(logits, name, tau=0.9))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rloo", "carms", "reinmax"])
def test_a_compiled_expectation_is_the_same_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    logits = logits_of(4, 2, 3)
    compiled = torch.compile(lambda logits: expect(logits, cost, name), fullgraph=True, backend="eager")
    torch.manual_seed(1)
    found = compiled(logits)
    torch.manual_seed(1)
    plain = expect(logits, cost, name)
    assert torch.allclose(found, plain)
    assert torch.allclose(gradient(found, logits), gradient(plain, logits))


class Gated(nn.Module):
    """A model with a hard gate and an estimator that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 4)
        self.estimator = build("rebar")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return expect(self.gate(x), lambda z: (z * torch.arange(4.0)).sum(-1).square(), self.estimator).mean()


def test_a_model_with_an_estimator_is_copied_and_restored() -> None:
    model, x = Gated(), torch.randn(8, 5)
    twin = copy.deepcopy(model)
    loaded = Gated()
    loaded.load_state_dict(model.state_dict())
    losses = []
    for each in (model, twin, loaded):
        torch.manual_seed(1)
        losses.append(each(x))
        losses[-1].backward()
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(model.estimator.eta.grad, loaded.estimator.eta.grad)


def _train_on_rank(rank: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Gated())
    torch.manual_seed(10 + rank)
    model(torch.randn(8, 5)).backward()
    torch.save([parameter.grad for parameter in model.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_their_gradients(tmp_path) -> None:
    from stores_that_fail import free_port

    torch.multiprocessing.spawn(_train_on_rank, (free_port(), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = []
    for rank in (0, 1):
        torch.manual_seed(0)
        model = Gated()
        torch.manual_seed(10 + rank)
        model(torch.randn(8, 5)).backward()
        alone.append([parameter.grad for parameter in model.parameters()])
    for one, other, *own in zip(first, second, *alone, strict=True):
        assert torch.equal(one, other)
        assert torch.allclose(one, (own[0] + own[1]) / 2, atol=1e-6)


# --- distributions ---------------------------------------------------------------------------------------------------


def test_a_distribution_samples_by_the_estimator() -> None:
    logits = logits_of(4, 3)
    law = OneHotCategoricalPathwise(logits=logits, estimator="reinmax", tau=1.2)
    assert law.has_rsample
    assert law.rsample().shape == (4, 3)
    assert law.rsample((2, 5)).shape == (2, 5, 4, 3)
    assert law.expand((6, 4)).rsample((2,)).shape == (2, 6, 4, 3)
    torch.manual_seed(1)
    z = law.rsample()
    torch.manual_seed(1)
    assert torch.equal(z, sample(law.logits, "reinmax", tau=1.2))
    assert gradient(z * torch.arange(3), logits).any()
    plain = torch.distributions.OneHotCategorical(logits=logits)
    assert torch.equal(law.log_prob(z.detach()), plain.log_prob(z.detach()))


@pytest.mark.parametrize("kind", [torch.distributions.Categorical, torch.distributions.OneHotCategorical])
def test_logits_may_be_those_of_a_distribution(kind) -> None:
    logits = logits_of(4, 3)
    torch.manual_seed(1)
    z = sample(kind(logits=logits), "straight_through")
    torch.manual_seed(1)
    assert torch.equal(z, sample(kind(logits=logits).logits, "straight_through"))
    assert expect(kind(logits=logits), lambda z: z[..., 0], "exact").shape == (4,)


# --- what cannot be --------------------------------------------------------------------------------------------------

FREE = torch.ones(4, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: sample(x, "rloo"), r"sample: expected a pathwise estimator, got rloo, .+ Use expect\("),
        (lambda x: sample(x, "reinmx"), r"estimator: expected one of 41 names, got 'reinmx'\. Did you mean"),
        (lambda x: sample(x, "reinmax", taau=1), r"reinmax: expected parameters among tau, n_samples, got 'taau'"),
        (lambda x: sample(x, "reinmax", tau=0), r"reinmax: expected tau > 0, got 0\."),
        (lambda x: sample(x, REGISTRY["reinmax"]), r"sample: expected the name of an estimator or an object, got <"),
        (lambda x: sample(x, build("reinmax"), tau=1), r"sample: expected no parameters beside an object, got tau"),
        (lambda x: sample(x, "reinmax", dim=2), r"sample: expected a dimension of the logits \(4, 3\), got dim=2\."),
        (lambda x: sample(x.long(), "reinmax"), r"sample: expected floating-point logits .+, got torch\.int64"),
        (lambda x: sample([1.0], "reinmax"), r"sample: expected floating-point logits of shape \(…, K\), got list\."),
        (lambda x: sample(x.sum(), "reinmax"), r"sample: expected floating-point logits .+, got torch\.float64 \(\)\."),
        (lambda x: sample(x, "reinmax", mask=FREE.float()), r"sample: expected a mask of booleans, True"),
        (lambda x: sample(x, "reinmax", mask=FREE[:3]), r"sample: expected a mask that broadcasts .+ \(3, 3\) for"),
        (lambda x: sample(x, "reinmax", mask=~FREE), r"sample: expected an allowed .+ forbids all classes of one\."),
        (lambda x: sample(x, "igr", mask=FREE), r"sample: expected no mask for igr, whose logits are not those of"),
        (lambda x: expect(x, lambda z: z, "rloo"), r"expect: expected costs of shape .+ = \(4, 4\), got \(4, 4, 3\)\."),
        (lambda x: expect(x, lambda z: z.sum(), "rloo"), r"expect: expected costs of shape .+ = \(4, 4\), got \(\)"),
        (lambda x: sample(x, "reinmax", tau=[0.5]), r"reinmax: expected tau > 0, got \[0\.5\]"),
        (lambda x: sample(x[:0, :0], "reinmax"), r"sample: expected at least one class, got logits of shape \(0, 0\)"),
        (lambda x: expect(x, cost, build("nvil"), context=torch.zeros(3, 7)), r"expect: expected a context of"),
        (lambda x: OneHotCategoricalPathwise(logits=x, estimator="rloo"), r"expected a pathwise .+ got rloo"),
        (lambda x: OneHotCategoricalPathwise(logits=x, estimator="nvil"), r"expected a pathwise .+ got nvil"),
        (lambda x: OneHotCategoricalPathwise(logits=x, estimator="igr"), r"expected a pathwise .+ got igr"),
        (lambda x: OneHotCategoricalPathwise(logits=x, estimator="reinmax", foo=3), r"reinmax: expected parameters"),
        (lambda x: expect(x, lambda z: 1.0, "rloo"), r"expect: expected costs as a floating-point tensor .+ float\."),
        (lambda x: expect(x, cost, "vimco"), r"expect: expected an estimator of E\[cost\], got vimco, which"),
        (lambda x: expect(x, cost, "rebar", tau=1.0), r"expect: expected an object of rebar, .+\('rebar', tau=1\.0\)"),
        (lambda x: expect(x, cost, "rloo", batch_dims=2), r"expect: expected batch_dims from 0 to 1 for logits"),
        (lambda x: expect(x[0], cost, "rloo"), r"expect: expected batch_dims from 0 to 0 .+ got 1\. Pass batch_dims=0"),
        (lambda x: expect(x, cost, "disarm"), r"disarm: expected n_categories = 2, got 3\. Use disarm_sb\."),
        (
            lambda x: expect(x, lambda z: z.detach()[..., 0], "reinmax"),
            r"reinmax: expected a cost that is differentiable in the code, .+ such as rloo",
        ),
        (lambda x: draw_codes(x, "rebar"), r"draw_codes: expected an estimator that needs no more .+ rebar\. It lear"),
        (lambda x: draw_codes(x, "nvil"), r"draw_codes: expected an object of nvil, which learns from call to call"),
        (lambda x: sample(x, "vimco"), r"sample: expected a pathwise estimator, got vimco, .+ Call an object: build\("),
        (lambda x: draw_codes(x, "reinmax"), r"draw_codes: expected an estimator that needs no more .+ reinforce, "),
        (lambda x: draw_codes(x, "rloo").loss(torch.ones(4, 3)), r"draw_codes: expected costs of shape .+ got \(4, 3"),
        (lambda x: draw_codes(x, "rloo").loss(torch.ones(4, 4).long()), r"draw_codes: expected costs as a floating"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call(logits_of(4, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("function", [sample, draw_codes])
def test_what_a_message_advises_works(function, name: str) -> None:
    """One message leads to a call that runs; for an estimator that learns, it builds the object."""
    logits = logits_of(4, 2, n_classes(name)).float()
    if issubclass(REGISTRY[name], Pathwise if function is sample else DrawsFirst):
        return
    given = REGISTRY[name].examples
    with pytest.raises(ValueError, match=rf"^{function.__name__}: expected .+, got {name}[,.]") as caught:
        function(logits, name, **given)
    names = {"logits": logits, "logits_BLK": logits, "cost": cost, "build": build, "expect": partial(expect, **given)}
    advice = re.search(r"(estimator = )?(build|expect)\(.+", str(caught.value)).group().rstrip(".")
    exec(advice, names)  # noqa: S102 our own message


NOT_SHOWN = (
    "identity_ste", "imle", "aimle", "perturbed_argmax", "gumbel_sparsemax", "gumbel_entmax", "sparse_marginal",
    "arsm", "disarm_sb",
)  # fmt: skip
"""Estimators whose gradient may be finite at logits that are not, as the page says."""


@pytest.mark.parametrize("bad", [(0.0, torch.nan, 1.0), (0.0, torch.inf, 1.0), (-torch.inf,) * 3])
@pytest.mark.parametrize("name", [name for name in EXPECTS if name not in ("igr", "disarm", *NOT_SHOWN)])
def test_logits_that_are_no_numbers_show_in_the_gradient(name: str, bad: tuple[float, ...]) -> None:
    logits = torch.tensor([[[0.0, 1.0, 2.0], bad]], dtype=torch.float64, requires_grad=True)
    found = gradient(expect(logits, cost, named(name)), logits)
    assert found[0, 1].isnan().any()


def test_the_page_names_where_they_do_not_show() -> None:
    (told,) = re.findall(r"it may be finite with (.*?): with these", PAGES[0].read_text(), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", told)) == set(NOT_SHOWN)


# --- the page --------------------------------------------------------------------------------------------------------

PAGES = (ROOT / "docs" / "use-in-your-own-model.md", ROOT / "README.md")
BLOCKS = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
BLOCKS = [block for block in BLOCKS if re.search(r"from estimators import .*(sample|expect|draw_codes)", block)]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.partition("\n")[0] + str(i) for i, block in enumerate(BLOCKS)])
def test_the_blocks_of_the_page_run_and_train(block: str) -> None:
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 our own page
    leaves = [value for value in names.values() if isinstance(value, torch.Tensor) and value.requires_grad]
    trained = [leaf.grad for leaf in leaves if leaf.is_leaf and leaf.grad is not None]
    trained += [p.grad for value in names.values() if isinstance(value, nn.Module) for p in value.parameters()]
    if ".backward()" in block:
        assert trained
    for grad in trained:
        with suppress(AttributeError):  # the control variate's own
            assert grad.isfinite().all()


def test_the_page_has_a_block_for_each_use() -> None:
    assert len(BLOCKS) == 13


def test_the_page_names_every_estimator_that_learns() -> None:
    section = PAGES[0].read_text().partition("## An estimator that learns")[2]
    listed = section.partition(" learn from call to call")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(LEARNS)
    assert set(LEARNS) == {name for name in REGISTRY if make(name).state_dict()}
