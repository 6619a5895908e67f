"""Every estimator, in every setting, keeps the contract; impossible arguments are refused in one line."""

import copy
import math
import pickle
import sys

import pytest
import torch
from estimator_cases import ALL, CASES, IDS, examples, make
from families import REFUSED as FAMILY_REFUSED
from transformed import BREAKS

from estimators import REGISTRY, Estimate, Estimator, Pathwise, build, parameters, replace_gradient
from estimators.conformance import CHECKS
from estimators.conformance.checks import check_state
from estimators.reference_problem import cost_for, cubic_cost, example_logits, example_weights, logits_for, run, shapes

LONG = ("check_bias", "check_codes", "check_constant_cost", "check_decoder_gradient", "check_extremes", "check_state")
"""Checks that take longer: at other settings than the defaults they are slow."""


@pytest.mark.parametrize(
    ("name", "params", "check"),
    [
        pytest.param(
            *case,
            check,
            id=f"{name}-{check.__name__}",
            marks=[pytest.mark.slow] * (check.__name__ in LONG and case[1] != {}),
        )
        for case, name in zip(CASES, IDS, strict=True)
        for check in CHECKS
    ],
)
def test_conforms(name, params, check):
    assert check(make(name, **params))


WEIGHTED = ("exact", "sparse_marginal", "unordered_set")
"""Estimators that report a weighted mean of the cost over the codes, each with tests of its own weights."""


@pytest.mark.parametrize(
    "name", [name for name, cls in ALL.items() if name not in WEIGHTED and cls.objective == "mean"]
)
def test_decoder_gradient_is_backpropagation_on_the_sampled_codes(name):
    weights_LK = example_weights(*shapes(make(name))[0]).requires_grad_()
    codes = []

    def cost(z_SBLK):
        codes.append(z_SBLK.detach())
        return cubic_cost(weights_LK)(z_SBLK)

    torch.manual_seed(0)
    estimate = make(name)(logits_for(make(name)).requires_grad_(), cost)
    (gradient_LK,) = torch.autograd.grad(estimate.cost_B.sum(), weights_LK)
    expected_B = cubic_cost(weights_LK)(codes[0]).mean(0)
    (expected_LK,) = torch.autograd.grad(expected_B.sum(), weights_LK)
    torch.testing.assert_close(estimate.cost_B, expected_B, rtol=0, atol=0)
    torch.testing.assert_close(gradient_LK, expected_LK)


@pytest.mark.parametrize(("name", "params"), CASES, ids=IDS)
def test_survives_pickling_and_copying(name, params):
    estimator = make(name, **params)
    for twin in (pickle.loads(pickle.dumps(estimator)) if name in REGISTRY else estimator, copy.deepcopy(estimator)):  # noqa: S301
        assert repr(twin) == repr(estimator)
        one, other = (run(each, logits_for(each), cost_for(each)) for each in (estimator, twin))
        assert torch.equal(one[1], other[1])


def trained(estimator, n_steps=3):
    """The estimator after a few calls in training, its own parameters moved by their optimiser."""
    estimator.prepare(*shapes(estimator)[0], n_context=5)
    optimizer = estimator.control_optimizer()
    for seed in range(n_steps):
        torch.manual_seed(seed)
        logits_BLH = logits_for(estimator).float().requires_grad_()
        estimate = estimator.train()(logits_BLH, cost_for(estimator), torch.ones(4, 5))
        torch.autograd.grad(estimate.cost_B.sum(), logits_BLH, retain_graph=True)  # some state moves here
        if estimate.control_loss is not None:
            estimate.control_loss.backward(inputs=list(estimator.parameters()))
            optimizer.step()
    return estimator


STATEFUL = [name for name, cls in ALL.items() if make(name).state_dict()]


@pytest.mark.parametrize("name", STATEFUL)
def test_the_state_dict_is_all_that_a_checkpoint_needs(name):
    """Whatever an estimator has learned: a new one with its state gives the same bits, in training and out of it."""
    old, new = trained(make(name)), make(name)
    new.prepare(*shapes(new)[0], n_context=5)
    new.load_state_dict(old.state_dict())
    results = []
    for estimator, training in ((each, mode) for mode in (True, False) for each in (old, new)):
        torch.manual_seed(9)
        leaf_BLH = logits_for(estimator).float().requires_grad_()
        cost_B = copy.deepcopy(estimator).train(training)(leaf_BLH, cost_for(estimator), torch.ones(4, 5)).cost_B
        results.append(torch.autograd.grad(cost_B.sum(), leaf_BLH)[0])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[2], results[3])


class Counter(Pathwise):
    """Gets sharper with every call, and keeps the count where no checkpoint looks."""

    name, relaxes = "counter", True

    def __init__(self) -> None:
        super().__init__()
        self.count = self.new_count()

    def new_count(self):
        return torch.zeros(())

    def sample(self, logits_BLK):
        self.count += self.training
        return ((1 + self.count) * logits_BLK).softmax(-1).unsqueeze(0)


class BufferedCounter(Counter):
    def __init__(self) -> None:
        super().__init__()
        del self.count
        self.register_buffer("count", self.new_count())


def test_a_state_that_no_checkpoint_has_is_found():
    with pytest.raises(AssertionError, match=r"^counter: expected the bits .*register_buffer\), got a difference of"):
        check_state(Counter())
    assert "same bits after 20 calls" in check_state(BufferedCounter())


def test_estimators_with_a_state_are_known():
    assert set(STATEFUL) == {"aimle", "reinforce_ema", "nvil", "rebar", "relax", "double_cv"}


def test_score_function_needs_no_differentiable_cost():
    for name in ("reinforce", "rloo", "exact"):
        _, gradient_BLK = run(make(name), example_logits(), lambda z_SBLK: z_SBLK.argmax(-1).sum(-1).double())
        assert gradient_BLK.abs().max() > 0


@pytest.mark.parametrize("name", ["straight_through", "rloo"])
def test_masked_classes_are_never_sampled_and_get_no_gradient(name):
    logits_BLK = example_logits(n_examples=64)
    logits_BLK[..., 1] = -math.inf
    codes = []
    _, gradient_BLK = run(
        make(name), logits_BLK, lambda z: (codes.append(z.detach()), cubic_cost(example_weights())(z))[1]
    )
    assert codes[0][..., 1].sum() == 0
    assert gradient_BLK.isfinite().all()
    assert (gradient_BLK[..., 1] == 0).all()


@pytest.mark.parametrize("name", REGISTRY)
def test_what_is_no_cost_and_no_logits_is_one_line(name):
    estimator, logits_BLH = make(name), logits_for(make(name))
    for wrong, got in ((lambda z: 3.0, "float"), (lambda z: z.detach().argmax(-1).sum(-1), "torch.int64")):
        message = f"^{name}: expected a cost that returns a floating-point tensor \\(S, B\\), got {got}\\.$"
        with pytest.raises(ValueError, match=message):
            run(estimator, logits_BLH, wrong)
    for logits in (logits_BLH[0], logits_BLH.long()):
        with pytest.raises(ValueError, match=f"^{name}: expected floating-point logits of shape \\(B, L, K\\), got"):
            estimator(logits, cost_for(estimator))


@pytest.mark.parametrize("name", [name for name, cls in REGISTRY.items() if not cls.black_box])
def test_a_cost_without_a_derivative_is_refused_where_one_is_needed(name):
    cost = cost_for(make(name))
    with pytest.raises(
        ValueError, match=f"^{name}: expected a cost that is differentiable in the code, got one without"
    ):
        run(make(name), logits_for(make(name)), lambda z_SBLK: cost(z_SBLK.detach()))


def test_arsm_names_its_evaluations_where_they_are_too_many():
    build("arsm").check_shape(20, 141)
    with pytest.raises(
        ValueError, match=r"^arsm: expected at most 10000 evaluations of the cost, got 20030: n_samples"
    ):
        build("arsm", n_samples=5).check_shape(20, 90)


@pytest.mark.parametrize("name", ["straight_through", "argmax_ste", "softmax", "gumbel_softmax", "reinmax", "rloo"])
def test_float16_survives_extreme_logits(name):
    estimator = make(name)
    if estimator.uses_tau:
        estimator.tau = 1e-3
    logits_BLH = torch.tensor([[[1e4, -1e4, 0.0]]], dtype=torch.float16)
    cost_B, gradient_BLH = run(estimator, logits_BLH, lambda z: z.sum((-1, -2)) + z[..., 0, 0])
    assert cost_B.isfinite().all()
    assert gradient_BLH.isfinite().all()
    assert gradient_BLH.dtype == torch.float16


def test_replace_gradient_keeps_every_bit_of_the_value():
    value = torch.tensor([-0.0, 1e-45, 1 / 3, 3e38, math.inf])
    surrogate = torch.tensor([1e30, 7.0, math.inf, math.nan, 0.1], requires_grad=True)
    out = replace_gradient(value, surrogate)
    assert torch.equal(out.detach().view(torch.int32), value.view(torch.int32))
    out.backward(torch.arange(5.0))
    assert surrogate.grad.tolist() == [0, 1, 2, 3, 4]


def test_replace_gradient_stops_the_gradient_of_the_value():
    value, surrogate = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    replace_gradient(value, surrogate).sum().backward()
    assert value.grad is None


# Refusals, each in one line.

REFUSED = [
    *FAMILY_REFUSED,
    *((name, {"tau": bad}, f"{name}: expected tau > 0, got {bad!r}.")
      for name, cls in REGISTRY.items() if cls.uses_tau
      for bad in (0.0, 0, -1.0, math.nan, math.inf, True, "1", None, [1.0])),
    *((name, {"n_samples": bad}, f"{name}: expected a whole number n_samples >= {cls.min_samples}, got {bad!r}.")
      for name, cls in REGISTRY.items() if "n_samples" in parameters(cls)
      for bad in (cls.min_samples - 1, -3, 2.0, math.nan, True, "4", None)),
    *(("gumbel_entmax", {"alpha": bad}, f"gumbel_entmax: expected alpha > 1, got {bad!r}.")
      for bad in (1.0, 0.5, math.inf, math.nan, "1.5", True)),
    *(("exact", {"max_codes": bad}, f"exact: expected a whole number max_codes >= 1, got {bad!r}.")
      for bad in (0, 1e4, True, "many")),
    ("rloo", {"n_sample": 4}, "rloo: expected parameters among n_samples, got 'n_sample'. Did you mean 'n_samples'?"),
    ("softmax", {"n_samples": 2}, "softmax: expected parameters among tau, got 'n_samples'."),
    ("gumbel_sofmax", {}, f"estimator: expected one of {len(REGISTRY)} names, got 'gumbel_sofmax'."
                          " Did you mean 'gumbel_softmax'?"),
    ("magic", {}, f"estimator: expected one of {len(REGISTRY)} names, got 'magic'. Known: {', '.join(REGISTRY)}."),
    (3, {}, f"estimator: expected one of {len(REGISTRY)} names, got 3. Known: {', '.join(REGISTRY)}."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(name, params, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  # the message is compared below, whole
        build(name, **{**examples(name), **params})
    assert str(refusal.value) == message


def test_every_parameter_of_every_estimator_has_a_refusal():
    tested = {(name, key) for name, params, _ in REFUSED for key in params}
    assert {(name, key) for name, cls in REGISTRY.items() for key in parameters(cls)} <= tested


def test_tau_is_checked_wherever_it_is_set():
    estimator = build("gumbel_softmax")
    estimator.tau = 0.25
    assert estimator.tau == 0.25
    with pytest.raises(ValueError, match=r"^gumbel_softmax: expected tau > 0, got 0\.0\.$"):
        estimator.tau = 0.0
    with pytest.raises(ValueError, match=r"^rloo: expected no tau, got 1\.0\. It has no temperature\.$"):
        build("rloo").tau = 1.0
    assert build("rloo").tau is None


def test_exact_refuses_more_codes_than_it_may_enumerate():
    estimator = build("exact")
    estimator.check_shape(7, 4)
    with pytest.raises(ValueError, match=r"<= max_codes = 16384, got 4\^8 = 65536\. Use fewer"):
        estimator.check_shape(8, 4)
    with pytest.raises(ValueError, match=r"got 10\^200\. Use fewer"):
        estimator.check_shape(200, 10)
    with pytest.raises(ValueError, match="max_codes"):
        estimator(torch.zeros(1, 8, 4), cubic_cost(torch.zeros(8, 4)))
    build("exact", max_codes=65536).check_shape(8, 4)


@pytest.mark.parametrize("name", [name for name, cls in REGISTRY.items() if "n_samples" in parameters(cls)])
def test_many_samples_are_evaluated_in_parts_that_are_not_kept(name, monkeypatch):
    """The same cost and gradients, for a decoder too, and no more than so many codes at a time."""
    estimator, found = make(name, n_samples=8), []
    weights_LK = example_weights(*shapes(estimator)[0]).requires_grad_()
    logits_BLH = logits_for(estimator, 3).requires_grad_()
    for codes_in_graph in (10_000, 6):
        monkeypatch.setattr("estimators.base.CODES_IN_GRAPH", codes_in_graph)
        sizes = []

        def cost(z_SBLK, sizes=sizes):
            sizes.append(z_SBLK.shape[:2].numel())
            return cubic_cost(weights_LK)(z_SBLK)

        torch.manual_seed(0)
        cost_B = copy.deepcopy(estimator)(logits_BLH, cost).cost_B
        found.append([cost_B.detach(), *torch.autograd.grad(cost_B.sum(), [logits_BLH, weights_LK])])
        values_only = name in ("arsm", "indecater")  # their further codes, bounded by another number
        assert values_only or codes_in_graph > 6 or max(sizes) <= 6
    torch.testing.assert_close(*found)


def test_exact_is_the_same_in_one_call_or_many(monkeypatch):
    weights_LK, logits_BLK = example_weights(4, 3), example_logits(2, 4, 3)
    whole = run(build("exact"), logits_BLK, cubic_cost(weights_LK))
    monkeypatch.setattr("estimators.base.CODES_IN_GRAPH", 20)
    sizes = []
    pieces = run(build("exact"), logits_BLK, lambda z: (sizes.append(len(z)), cubic_cost(weights_LK)(z))[1])
    assert sum(sizes) == 81
    assert max(sizes) <= 10
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other)


# A class that is not complete is refused where it is written.


def test_a_minimal_estimator_needs_a_name_relaxes_and_sample():
    class Mine(Pathwise):
        """My relaxation.

        More about it.
        """

        name = "mine"
        relaxes = True

        def __init__(self, *, tau: float = 2.0) -> None:
            super().__init__()
            self.tau = tau

        def sample(self, logits_BLK):
            return (logits_BLK / self.tau).softmax(-1).unsqueeze(0)

    assert (Mine.title, Mine.reference, Mine.unbiased, Mine.uses_tau) == ("My relaxation", "–", False, True)
    assert parameters(Mine) == {"tau": 2.0}
    assert build("mine", {"mine": Mine}, tau=1.0).tau == 1.0


def _define(**members):
    return type("Mine", (Pathwise,), {"sample": lambda self, logits_BLK: logits_BLK, **members})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"relaxes": True}, "Mine: expected a class attribute name such as 'my_estimator', got None."),
        ({"name": "My", "relaxes": True}, "Mine: expected a class attribute name such as 'my_estimator', got 'My'."),
        ({"name": "mine"}, "mine: expected a class attribute relaxes (True: soft codes; False: one-hot), got none."),
        ({"name": "mine", "relaxes": True, "__init__": lambda self, tau=1.0: None},
         "mine: expected keyword-only constructor arguments with defaults, got 'tau=1.0'."
         " Write __init__(self, *, tau=...)."),
        ({"name": "mine", "relaxes": True, "__init__": lambda self, *, tau: None},
         "mine: expected keyword-only constructor arguments with defaults, got 'tau'."
         " Write __init__(self, *, tau=...)."),
    ],
)  # fmt: skip
def test_an_incomplete_class_is_refused(members, message):
    with pytest.raises(TypeError) as refusal:
        _define(**members)
    assert str(refusal.value) == message


def test_a_sample_without_its_first_dimension_is_refused():
    cls = _define(name="mine", relaxes=True)
    with pytest.raises(
        ValueError, match=r"^mine: expected sample of shape \(S, B, L, K\) = \(1, 4, 2, 3\), got \(4, 2, 3\)\."
    ):
        cls()(example_logits(), cubic_cost(example_weights()))


# The package.


def test_registry_is_read_only_and_its_keys_are_the_names():
    assert all(cls.name == name for name, cls in REGISTRY.items())
    with pytest.raises(TypeError):
        REGISTRY["mine"] = Estimator


def test_every_class_is_abstract_or_final():
    def descendants(cls):
        return {cls}.union(*(descendants(child) for child in cls.__subclasses__()))

    for cls in descendants(Estimator):
        if cls.__module__.startswith("estimators."):
            assert bool(cls.__abstractmethods__) != getattr(cls, "__final__", False), cls
    assert Estimate.__final__


SECTIONS = ("Approximates", "Requires", "Bias", "Reference", "Departures")


@pytest.mark.parametrize("cls", REGISTRY.values(), ids=list(REGISTRY))
def test_docstring_follows_the_template(cls):
    lines = [line for line in cls.__doc__.splitlines() if line.startswith(tuple(f"    {word} " for word in SECTIONS))]
    assert [line.split()[0] for line in lines] == list(SECTIONS)
    assert cls.__doc__.splitlines()[0].rstrip(".") == cls.title


def test_a_missing_entmax_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "entmax", None)
    with pytest.raises(ValueError, match=r"^gumbel_sparsemax: expected the package entmax, got none"):
        build("gumbel_sparsemax")


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY)
def test_compiles_to_the_same_gradient_and_to_few_graphs(name):
    torch.compiler.reset()
    estimator, graphs = make(name), []
    logits_BLK, cost = logits_for(estimator), cost_for(estimator)
    estimator.prepare(*shapes(estimator)[0])
    state = copy.deepcopy(estimator.state_dict())

    def step(logits_BLK):
        return estimator(logits_BLK, cost).cost_B.sum()

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(step, fullgraph=name not in BREAKS, backend=count)
    for k in range(8):
        if estimator.uses_tau:
            estimator.tau = 1.0 / (k + 1)
        gradients = []
        for function in (step, compiled):
            leaf_BLK = logits_BLK.clone().requires_grad_()
            estimator.load_state_dict(state)  # a running mean moves with every call
            torch.manual_seed(k)
            gradients += torch.autograd.grad(function(leaf_BLK), leaf_BLK)
        torch.testing.assert_close(*gradients)
    assert len(graphs) <= BREAKS.get(name, 2)  # a second one when tau first changes, and no more


@pytest.mark.parametrize("name", REGISTRY)
def test_a_cost_can_be_added_to_in_place(name):
    """As in `loss += kl`."""
    estimator = make(name)
    estimator.prepare(*shapes(estimator)[0])
    logits_BLK = logits_for(estimator).requires_grad_()
    cost_B = estimator(logits_BLK, cost_for(estimator)).cost_B
    cost_B += 1
    cost_B.sum().backward()
    assert logits_BLK.grad.isfinite().all()
