"""The option unimix: any estimator at the logits of (1 − ε)π + ε/K, with the exact chain rule through the mixing."""

import copy
import math
import pickle
from itertools import product

import pytest
import torch
from estimator_cases import ALL, make

from estimators import (
    REGISTRY,
    Estimator,
    OneHotCategoricalPathwise,
    Pathwise,
    build,
    draw_codes,
    expect,
    parameters,
    sample,
    with_unimix,
)
from estimators.conformance.checks import CHECKS, QUICK
from estimators.draws_first import DrawsFirst
from estimators.reference_problem import (
    MAX_Z,
    bias_scores,
    cost_for,
    cubic_cost,
    example_weights,
    logits_for,
    run,
    shapes,
)
from estimators.unimix import mixed_logits

EPS = 0.01
OWN_LAW = {"decoupled_st_gs", "gaussian_softmax", "igr", "perturbed_argmax", "sparse_marginal"}
MIXED = [name for name in ALL if name not in OWN_LAW]
SLOW = ("check_bias", "check_codes", "check_constant_cost", "check_decoder_gradient", "check_extremes", "check_state")


def by_hand(logits_LK, unimix):
    """log((1 − ε)π + ε/K) of the allowed classes, one number at a time; a wrong variant is off in each test below."""
    rows = []
    for logits_K in logits_LK:
        allowed = [k for k in range(len(logits_K)) if logits_K[k] > -math.inf]
        total = sum(logits_K[k].exp() for k in allowed)
        mixed = [(1 - unimix) * logits_K[k].exp() / total + unimix / len(allowed) for k in allowed]
        row = [torch.tensor(-math.inf, dtype=logits_LK.dtype)] * len(logits_K)
        for k, prob in zip(allowed, mixed, strict=True):
            row[k] = prob.log()
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("masked", [(), (1,), (0, 2)])
def test_the_law_is_the_definition(masked):
    logits_LK = torch.linspace(-2, 3, 8, dtype=torch.float64).sin().view(2, 4).mul(3)
    logits_LK[:, list(masked)] = -math.inf
    logits_LK.requires_grad_()
    weights = torch.linspace(0.3, 1, 8, dtype=torch.float64).view(2, 4)
    found = []
    for function in (mixed_logits, by_hand):
        out_LK = function(logits_LK, 0.2)
        found += [out_LK.detach(), torch.autograd.grad((out_LK.exp() * weights).sum(), logits_LK)[0]]
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])
    torch.testing.assert_close(found[0].exp().sum(-1), torch.ones(2, dtype=torch.float64))
    assert (found[1][:, list(masked)] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n_categories", [1, 2, 1000])
def test_extreme_logits_give_finite_logits_and_gradients(dtype, n_categories):
    logits_K = torch.linspace(-1e4, 1e4, n_categories, dtype=torch.float64).to(dtype).requires_grad_()
    mixed_K = mixed_logits(logits_K, EPS)
    assert mixed_K.dtype == dtype
    (gradient_K,) = torch.autograd.grad(mixed_K.sum(), logits_K)
    assert mixed_K.isfinite().all()
    assert gradient_K.isfinite().all()
    floor = math.log(EPS / n_categories) - 0.07  # the spacing of bfloat16 there
    assert mixed_K.min() >= floor


def test_one_allowed_class_keeps_all():
    logits_K = torch.tensor([-math.inf, 2.0, -math.inf], requires_grad=True)
    mixed_K = mixed_logits(logits_K, 0.5)
    assert mixed_K.tolist() == [-math.inf, 0.0, -math.inf]
    assert torch.autograd.grad(mixed_K[1], logits_K)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", MIXED)
def test_it_is_the_estimator_at_the_mixed_logits_and_the_chain_rule(name):
    """For the same noise: the same cost, and the gradient is the Jacobian of the mixing times the estimator's."""
    plain, mixed = make(name), make(name, unimix=0.3)
    logits_BLK = logits_for(plain)
    cost_B, gradient_BLK = run(mixed, logits_BLK, cost_for(plain))
    leaf_BLK = logits_BLK.clone().requires_grad_()
    at_BLK = torch.stack([by_hand(logits_LK, 0.3) for logits_LK in leaf_BLK])
    expected_B, upstream_BLK = run(plain, at_BLK.detach(), cost_for(plain))
    torch.testing.assert_close(cost_B, expected_B)
    torch.testing.assert_close(gradient_BLK, torch.autograd.grad(at_BLK, leaf_BLK, upstream_BLK)[0])
    torch.testing.assert_close(mixed.class_logits(logits_BLK), at_BLK.detach())
    kl_B, expected_kl_B = mixed.kl(logits_BLK), plain.kl(at_BLK.detach())
    assert (kl_B is None and expected_kl_B is None) or torch.equal(kl_B, expected_kl_B)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize(
    "check", [pytest.param(each, marks=[pytest.mark.slow] * (each.__name__ in SLOW)) for each in CHECKS]
)
def test_conforms(name, check):
    assert check(make(name, unimix=EPS))


@pytest.mark.parametrize("name", MIXED)
def test_passes_what_is_checked_before_a_sweep(name):
    for check in QUICK:
        assert check(make(name, unimix=EPS), model=shapes(make(name))[0])


def expected_by_loops(logits_LK, cost, unimix):
    """E[cost] and its gradient under (1 − ε)π + ε/K, code by code, without the package."""
    leaf_LK = logits_LK.clone().requires_grad_()
    probs_LK = by_hand(leaf_LK, unimix).exp()
    total = 0.0
    for classes in product(range(leaf_LK.shape[1]), repeat=leaf_LK.shape[0]):
        z_LK = torch.nn.functional.one_hot(torch.tensor(classes), leaf_LK.shape[1]).double()
        total = (
            total + math.prod(probs_LK[latent, k] for latent, k in enumerate(classes)) * cost(z_LK[None, None])[0, 0]
        )
    return total.detach(), torch.autograd.grad(total, leaf_LK)[0]


def test_exact_is_enumeration_of_the_mixed_law():
    logits_LK, cost = 3 * logits_for(build("exact"))[0], cubic_cost(example_weights())
    found = run(build("exact", unimix=0.2), logits_LK[None], cost)
    expected = expected_by_loops(logits_LK, cost, 0.2)
    torch.testing.assert_close(found[0][0], expected[0])
    torch.testing.assert_close(found[1][0], expected[1])
    for wrong in (0.0, 0.19):  # the test sees another ε
        assert not torch.allclose(found[1][0], expected_by_loops(logits_LK, cost, wrong)[1], rtol=1e-3)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "rebar", "disarm_sb", "unordered_set", "indecater", "vimco"])
def test_unbiased_estimators_stay_unbiased_for_the_mixed_law(name):
    cost_z, gradient_z = bias_scores(build(name, unimix=0.2))
    assert cost_z.abs().max() < MAX_Z
    assert gradient_z.abs().max() < MAX_Z


def test_the_statistical_test_notices_a_gradient_without_the_chain_rule(monkeypatch):
    logits = mixed_logits
    monkeypatch.setattr("estimators.unimix.mixed_logits", lambda x, eps: x + (logits(x, eps) - x).detach())
    mixed = build("rloo", unimix=0.2)
    with torch.no_grad():
        cost_N, gradient_N = None, None
    from estimators.reference_problem import N_REPLICAS, z_scores

    logits_LK = logits_for(mixed)[0]
    cost_N, gradient_N = run(mixed, logits_LK.expand(N_REPLICAS, -1, -1), cost_for(mixed))
    expected = expected_by_loops(logits_LK, cost_for(mixed), 0.2)
    assert z_scores(cost_N, expected[0]).abs() < MAX_Z
    assert z_scores(gradient_N, expected[1]).abs().max() > 2 * MAX_Z


# What an estimator has, it keeps.


@pytest.mark.parametrize("name", MIXED)
def test_it_declares_what_the_estimator_does(name):
    plain, mixed = make(name), make(name, unimix=EPS)
    for fact in (*Estimator.__annotations__, "title"):
        if fact not in ("n_samples", "control_lr"):
            assert getattr(type(mixed), fact) == getattr(ALL[name], fact), fact
    assert parameters(type(mixed)) == {**parameters(ALL[name]), "unimix": 0.0}
    for key in ("n_samples", "control_lr", "tau", *parameters(ALL[name])):
        assert str(getattr(mixed, key)) == str(getattr(plain, key)), key
    for kind in (Pathwise, DrawsFirst):
        assert isinstance(mixed, kind) == isinstance(plain, kind)
    for shape in shapes(plain):
        assert mixed.n_cost_evals(*shape) == plain.n_cost_evals(*shape)


@pytest.mark.parametrize("name", MIXED)
def test_survives_pickling_and_copying(name):
    mixed = make(name, unimix=EPS)
    twins = [copy.deepcopy(mixed), *([pickle.loads(pickle.dumps(mixed))] if name in REGISTRY else [])]  # noqa: S301
    for twin in twins:
        assert repr(twin) == repr(mixed)
        assert twin.inner is not mixed.inner
        one, other = (run(each, logits_for(each), cost_for(each)) for each in (mixed, twin))
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("name", ["reinforce_ema", "nvil", "rebar", "relax", "double_cv"])
def test_estimators_that_learn_train_and_restore(name):
    old, new = build(name, unimix=EPS), build(name, unimix=EPS)
    for each in (old, new):
        each.prepare(2, 3, n_context=5)
    optimizer = old.control_optimizer()
    before = {key: value.clone() for key, value in old.state_dict().items()}
    for seed in range(3):
        torch.manual_seed(seed)
        estimate = old.train()(logits_for(old).float().requires_grad_(), cost_for(old), torch.ones(4, 5))
        if estimate.control_loss is not None:
            estimate.control_loss.backward(inputs=list(old.parameters()))
            optimizer.step()
    assert any(not torch.equal(before[key], value) for key, value in old.state_dict().items())
    new.load_state_dict(old.state_dict())
    found = []
    for each in (old, new):
        torch.manual_seed(9)
        leaf_BLK = logits_for(each).float().requires_grad_()
        each(leaf_BLK, cost_for(each), torch.ones(4, 5)).cost_B.sum().backward()
        found.append(leaf_BLK.grad)
    assert torch.equal(*found)


def test_temperatures_and_arguments_are_those_of_the_estimator():
    mixed = build("gumbel_softmax", tau=0.5, unimix=EPS)
    mixed.tau = 0.25
    assert (mixed.tau, mixed.inner.tau) == (0.25, 0.25)
    with pytest.raises(ValueError, match=r"^gumbel_softmax: expected tau > 0, got 0\.0\.$"):
        mixed.tau = 0.0
    with pytest.raises(ValueError, match=r"^rloo: expected no tau, got 1\.0\. It has no temperature\.$"):
        build("rloo", unimix=EPS).tau = 1.0
    log_tau = torch.zeros((), dtype=torch.float64, requires_grad=True)
    mixed.tau = log_tau.exp()  # a learned one
    mixed(logits_for(mixed), cost_for(mixed)).cost_B.sum().backward()
    assert log_tau.grad.abs() > 0


def test_the_context_reaches_those_that_use_it():
    torch.manual_seed(0)
    mixed = build("nvil", unimix=EPS).eval()
    mixed.prepare(2, 3, n_context=5)
    for layer in mixed.modules():
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.ones_(layer.weight)
    gradients = []
    for context_BX in (torch.zeros(4, 5), torch.ones(4, 5)):
        leaf_BLK = logits_for(mixed).float().requires_grad_()
        torch.manual_seed(0)
        gradients += torch.autograd.grad(mixed(leaf_BLK, cost_for(mixed), context_BX).cost_B.sum(), leaf_BLK)
    assert not torch.equal(*gradients)


# The library's other doors.


def test_codes_of_every_class_appear_however_certain_the_logits_are():
    logits = torch.tensor([100.0, 0.0, 0.0, -math.inf]).expand(20_000, 1, 4)
    torch.manual_seed(0)
    for z in (
        sample(logits, "reinmax", unimix=0.3),
        draw_codes(logits, "rloo", unimix=0.3).z.flatten(0, 1),
        OneHotCategoricalPathwise(logits=logits, estimator="reinmax", unimix=0.3).rsample(),
    ):
        found_K = z.mean((0, 1))
        assert found_K[3] == 0
        torch.testing.assert_close(found_K[:3], torch.tensor([0.8, 0.1, 0.1]), atol=0.012, rtol=0)


def test_a_mask_leaves_the_share_to_the_allowed_classes():
    logits, mask = torch.zeros(20_000, 3, requires_grad=True), torch.tensor([True, False, True])
    torch.manual_seed(0)
    z = sample(logits, "straight_through", mask=mask, unimix=0.9)
    assert z[:, 1].sum() == 0
    z.square().sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 1] == 0).all()


def test_draws_and_expectations_have_the_gradient_of_the_object():
    logits = logits_for(build("rloo"))
    found = []
    for function in (
        lambda leaf: build("rloo", unimix=0.2)(leaf, cost_for(build("rloo"))).cost_B,
        lambda leaf: expect(leaf, cost_for(build("rloo")), "rloo", unimix=0.2),
        lambda leaf: (draw := draw_codes(leaf, "rloo", unimix=0.2)).loss(cost_for(build("rloo"))(draw.z)),
    ):
        leaf = logits.clone().requires_grad_()
        torch.manual_seed(0)
        found += torch.autograd.grad(function(leaf).sum(), leaf)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_distribution_is_of_the_mixed_law_as_a_whole():
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    for given in ({"logits": logits}, {"probs": logits.softmax(-1)}):
        law = OneHotCategoricalPathwise(**given, estimator="straight_through", unimix=0.2)
        expected = 0.8 * logits.softmax(-1) + 0.2 / 3
        torch.testing.assert_close(law.probs, expected)
        torch.testing.assert_close(law.log_prob(torch.eye(3)), expected[0].log())
        assert law.rsample().requires_grad


# None, and what is refused.


def test_no_unimix_is_the_estimator_itself():
    for name in REGISTRY:
        for params in ({}, {"unimix": 0}, {"unimix": 0.0}):
            assert type(make(name, **params)) is REGISTRY[name]


@pytest.mark.parametrize("bad", [1, 1.0, -0.1, math.nan, math.inf, True, False, "0.01", None, [0.01]])
def test_impossible_shares_are_one_line(bad):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  # the message is compared below, whole
        build("rloo", unimix=bad)
    assert str(refusal.value) == f"rloo: expected 0 <= unimix < 1, got {bad!r}."


def test_estimators_with_a_law_of_their_own_refuse_it():
    refused = set()
    for name in REGISTRY:
        try:
            make(name, unimix=EPS)
        except ValueError as error:
            refused.add(name)
            rule = "expected no unimix, since its codes do not follow softmax(logits)"
            assert str(error) == f"{name}: {rule}, got 0.01."  # noqa: PT017
    assert refused == OWN_LAW
    with pytest.raises(
        ValueError, match=r"^rloo: expected parameters among n_samples, got 'unimx'\. Did you mean 'uni"
    ):
        build("rloo", unimx=0.01)


class Shares(Pathwise):
    """Has a parameter of that name, which means something else."""

    name, relaxes = "shares", True

    def __init__(self, *, unimix: str = "half") -> None:
        super().__init__()
        self.unimix = unimix

    def sample(self, logits_BLK):
        return logits_BLK.softmax(-1).unsqueeze(0)


def test_a_parameter_of_that_name_stays_the_estimators_own():
    built = build("shares", {"shares": Shares}, unimix="third")
    assert (type(built), built.unimix) == (Shares, "third")


def test_an_object_of_ones_own_can_be_wrapped():
    class Mine(Pathwise):
        name, relaxes = "mine", True

        def sample(self, logits_BLK):
            return logits_BLK.softmax(-1).unsqueeze(0)

    z = with_unimix(Mine(), 0.3).sample(torch.tensor([[[50.0, 0.0]]]))
    torch.testing.assert_close(z, torch.tensor([[[[0.85, 0.15]]]]))
    assert with_unimix(mine := Mine(), 0) is mine
    with pytest.raises(ValueError, match=r"^shares: expected no unimix, since it has a parameter of that name"):
        with_unimix(Shares(), 0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["straight_through", "gumbel_softmax", "rloo", "carms"])
def test_compiles_without_a_break_to_the_same_gradient(name):
    torch.compiler.reset()
    estimator = build(name, unimix=EPS)
    logits_BLK, cost = logits_for(estimator), cost_for(estimator)
    gradients = []
    for step in (lambda x: estimator(x, cost).cost_B.sum(), torch.compile(
        lambda x: estimator(x, cost).cost_B.sum(), fullgraph=True, backend="aot_eager"
    )):  # fmt: skip
        leaf_BLK = logits_BLK.clone().requires_grad_()
        torch.manual_seed(0)
        gradients += torch.autograd.grad(step(leaf_BLK), leaf_BLK)
    torch.testing.assert_close(*gradients)
