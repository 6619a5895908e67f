"""Every estimator differentiated twice: the right number, or one line that says that there is none.

h is the step of central differences of first derivatives, with one noise.
"""

import gc
import weakref

import pytest
import torch
from estimator_cases import make
from torch import func
from transformed import EXACT, MIXED_REFUSED, ONCE, SEED, SURROGATE, constant_noise, gradient, ready, smooth, total

from estimators import REGISTRY
from estimators.reference_problem import cubic_cost

TWICE = r"^{}: expected one derivative, got a second one: .* Leave out create_graph, or take gumbel_softmax, .*\.$"

READS_LOGITS_BACKWARD = ("gumbel_rao", "disarm_sb", "carms")
"""Logits that change in place after the call are torch's own error."""


def differences(function, inputs, of, to, h=1e-6):
    """Return the derivative of Σ v · gradient `of` in the input `to`, v fixed: by differences, with one noise."""
    found = torch.zeros_like(inputs[to])
    for place in range(found.numel()):
        for sign in (1, -1):
            moved = [each.clone() for each in inputs]
            moved[to].view(-1)[place] += sign * h
            slope, _ = gradient(function, moved, of)
            found.view(-1)[place] += sign * (direction(slope) * slope).sum() / (2 * h)
    return found


def direction(like):
    return torch.linspace(-1, 2, like.numel(), dtype=like.dtype).view_as(like)


def twice(function, inputs, of, to):
    """Return the same by a second backward; zeros where torch says that there is none."""
    slope, leaves = gradient(function, inputs, of, create_graph=True)
    return torch.autograd.grad((direction(slope) * slope).sum(), leaves[to], materialize_grads=True)[0]


def twice_by_func(function, inputs, of, to):
    def directed(*inputs):
        slope = func.grad(function, argnums=of)(*inputs)
        return (direction(slope) * slope).sum()

    torch.manual_seed(SEED)
    return func.grad(directed, argnums=to)(*inputs)


def problem(name):
    estimator, logits_BLH, weights_LK = ready(name, 1)
    return total(estimator), (logits_BLH, weights_LK)


BOTH = pytest.mark.parametrize("derivative", [twice, twice_by_func])


@BOTH
@pytest.mark.parametrize("name", REGISTRY)
def test_second_derivative_in_the_logits(name, derivative):
    function, inputs = problem(name)
    if name in EXACT:
        torch.testing.assert_close(derivative(function, inputs, 0, 0), differences(function, inputs, 0, 0))
    elif name in SURROGATE:
        estimator, logits_BLH, weights_LK = ready(name, 1)
        code = smooth(name, estimator, logits_BLH)
        inputs = logits_BLH, weights_LK
        expected = twice(lambda theta, weights_LK: cubic_cost(weights_LK)(code(theta)).sum(), inputs, 0, 0)
        torch.testing.assert_close(derivative(function, inputs, 0, 0), expected)
    else:
        with pytest.raises(RuntimeError, match=TWICE.format(name)):
            derivative(function, inputs, 0, 0)


@BOTH
@pytest.mark.parametrize("name", REGISTRY)
def test_second_derivative_in_logits_and_decoder(name, derivative, monkeypatch):
    """In either order. What has one has the derivative of its gradient at the same code, and its transpose."""
    constant_noise(monkeypatch)
    function, inputs = problem(name)
    if name in MIXED_REFUSED and not (derivative is twice_by_func and name in ("gumbel_rao", "reinmax_rao")):
        for of, to in ((0, 1), (1, 0)):
            if of == 0 or name not in ONCE:  # its estimate of the slope of a slope
                with pytest.raises(RuntimeError, match=TWICE.format(name)):
                    derivative(function, inputs, of, to)
            else:
                assert derivative(function, inputs, of, to).isfinite().all()
        return
    torch.testing.assert_close(derivative(function, inputs, 0, 1), differences(function, inputs, 0, 1))
    hessian = torch.stack([of_one(function, inputs, place) for place in range(inputs[1].numel())])
    expected = (direction(inputs[1]).view(-1, 1) * hessian.flatten(1)).sum(0).view_as(inputs[0])
    torch.testing.assert_close(derivative(function, inputs, 1, 0), expected)


def of_one(function, inputs, place, h=1e-6):
    """Return the derivative of the logits' gradient in one weight of the decoder, by differences."""
    slopes = []
    for sign in (1, -1):
        moved = inputs[1].clone()
        moved.view(-1)[place] += sign * h
        slopes.append(gradient(function, (inputs[0], moved), 0)[0])
    return (slopes[0] - slopes[1]) / (2 * h)


@pytest.mark.parametrize("name", REGISTRY)
def test_second_derivative_in_the_decoder(name):
    function, inputs = problem(name)
    torch.testing.assert_close(twice(function, inputs, 1, 1), differences(function, inputs, 1, 1))


@pytest.mark.parametrize("name", REGISTRY)
def test_the_weight_of_a_loss_has_its_derivative(name):
    """A gradient is linear in the weights of the costs, whatever it holds fixed beside them."""
    function, inputs = problem(name)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    leaf = inputs[0].clone().requires_grad_()
    torch.manual_seed(SEED)
    (slope,) = torch.autograd.grad(weight * function(leaf, inputs[1]), leaf, create_graph=True)
    if name in (*ONCE, "disarm_sb"):
        with pytest.raises(RuntimeError, match=TWICE.format(name)):
            torch.autograd.grad(slope.sum(), weight)
    else:
        (found,) = torch.autograd.grad((direction(slope) * slope).sum(), weight)
        torch.testing.assert_close(found, (direction(slope) * slope).sum().detach())


@pytest.mark.parametrize("name", REGISTRY)
def test_a_graph_of_the_gradient_changes_no_bit(name):
    function, inputs = problem(name)
    torch.testing.assert_close(
        gradient(function, inputs, 0)[0], gradient(function, inputs, 0, create_graph=True)[0], rtol=0, atol=1e-12
    )


def test_logits_that_change_in_place_after_the_loss_still_have_one_derivative():
    for name in ("reinmax", "rloo", "imle", "aimle"):
        logits_BLK = torch.zeros(2, 1, 3, requires_grad=True)
        shifted_BLK = logits_BLK + 1
        cost_B = make(name)(shifted_BLK, lambda z_SBLK: z_SBLK[..., 0].sum(-1)).cost_B
        shifted_BLK.add_(1)
        cost_B.sum().backward()
        assert logits_BLK.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in READS_LOGITS_BACKWARD])
def test_logits_that_take_in_the_result_in_place_are_freed(name):
    """As in a residual stream. A graph that holds the tensor itself would then hold itself."""
    estimator, logits_BLH, weights_LK = ready(name)
    stream_BLH = logits_BLH.detach().clone().requires_grad_() * 1.0
    cost_B = estimator(stream_BLH, cubic_cost(weights_LK)).cost_B
    stream_BLH += cost_B[:, None, None]
    held = weakref.ref(stream_BLH)
    stream_BLH.sum().backward()
    del stream_BLH, cost_B
    gc.collect()
    assert held() is None
