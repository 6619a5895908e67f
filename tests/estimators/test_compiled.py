"""Compiled training steps of the estimators that learn from call to call: gradients and state of plain steps.

The backend is one that splits forward from backward and computes again in the backward pass, as the default one does.
"""

import pytest
import torch
from estimator_cases import make
from paths import ROOT
from transformed import BREAKS, LEARN

from estimators import REGISTRY
from estimators.reference_problem import cost_for, logits_for, shapes

WITH_BUFFERS = [name for name in REGISTRY if any(True for _ in make(name).buffers())]
LONG = ("aimle", "rebar", "relax")
N_STEPS = 4


def steps(name, *, compile):
    """Return, of each training step, the gradients of the logits and of the parameters, and the state after it."""
    torch.manual_seed(0)
    estimator = make(name)
    estimator.prepare(*shapes(estimator)[0], 3 if estimator.uses_context else 0)
    logits_BLK, cost = logits_for(estimator), cost_for(estimator)
    context_BX = torch.randn(len(logits_BLK), 3)

    def loss(logits_BLK):
        estimate = estimator(logits_BLK, cost, context_BX)
        return estimate.cost_B.sum(), estimate.control_loss

    if compile:
        torch.compiler.reset()
        loss = torch.compile(loss, fullgraph=name not in BREAKS, backend="aot_eager")
    found = []
    for seed in range(N_STEPS):
        leaf_BLK = logits_BLK.clone().requires_grad_()
        estimator.zero_grad()
        torch.manual_seed(seed)
        total, control_loss = loss(leaf_BLK)
        (total if control_loss is None else total + control_loss).backward()
        state = [each.clone() for each in estimator.state_dict().values()]
        found.append([leaf_BLK.grad, *(each.grad for each in estimator.parameters()), *state])
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
        for name in dict.fromkeys((*WITH_BUFFERS, *LEARN))
    ],
)
def test_compiled_training_steps_are_the_plain_ones(name):
    for compiled, plain in zip(steps(name, compile=True), steps(name, compile=False), strict=True):
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("name", BREAKS)
def test_training_of_these_takes_more_than_one_graph_and_evaluation_does_not(name):
    estimator = make(name)
    estimator.prepare(*shapes(estimator)[0])
    logits_BLK, cost = logits_for(estimator).requires_grad_(), cost_for(estimator)

    def gradient():
        torch.compiler.reset()
        loss = torch.compile(
            lambda logits_BLK: estimator(logits_BLK, cost).cost_B.sum(), fullgraph=True, backend="eager"
        )
        return torch.autograd.grad(loss(logits_BLK), logits_BLK)[0]

    with pytest.raises(torch._dynamo.exc.Unsupported):
        gradient()
    estimator.eval()
    assert gradient().isfinite().all()


def test_the_pages_say_which_do_not_compile_to_one_graph():
    named = " and ".join(f"`{name}`" for name in BREAKS)
    assert (
        f"With `fullgraph=True`, {named} compile in evaluation mode only" in (ROOT / "estimators/README.md").read_text()
    )
    rows = (ROOT / "docs/use-in-your-own-model.md").read_text().splitlines()
    column = {row.split("|")[1].strip(): row.split("|")[-2].strip() for row in rows if row.startswith("| `")}
    assert column[", ".join(f"`{name}`" for name in BREAKS)] == "in evaluation mode"
