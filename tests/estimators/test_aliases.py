"""Names from papers: each says which estimator it is here, and where that is an identity, it holds."""

import re
from itertools import combinations

import pytest
import torch

from estimators import REGISTRY, build, expect, sample
from estimators.aliases import ALIASES, key_of, meaning_of, names_of, plain, table
from estimators.reference_problem import cost_for, example_logits, example_weights, run
from harness.diagnose import diagnose

SAID = {
    "loorf": "LOORF is rloo here.",
    "VarGrad": "VarGrad is rloo here, if log q is part of the cost, as a number.",
    "U2G": "U2G is disarm here.",
    "LEG": "LEG is indecater here.",
    "zgr-": "ZGR is zgr here, the same as reinmax at tau = 1.",
    "Simple": "SIMPLE is straight_through here, at tau = 1 and for k = 1; subsets of more classes are not here.",
    "concrete": "Concrete is gumbel_softmax here.",
    "soft argmax": "soft-argmax is softmax here.",
    "STE": "STE is straight_through here, where the code is a sample; identity_ste ignores the softmax, argmax_ste the"
    " noise.",
    "GS": "GS is gumbel_softmax here.",
    "ST-GS": "ST-GS is st_gumbel_softmax here.",
    "Rao-Gumbel": "Rao-Gumbel is gumbel_rao here.",
    "Gumbel-max trick": "Gumbel-max trick is no estimator here: it is how codes are drawn; gumbel_softmax and"
    " st_gumbel_softmax have a gradient through it.",
    "I-MLE": "Did you mean 'imle'?",
    "NVIL": "Did you mean 'nvil'?",
    "Gumbel-Softmax": "Did you mean 'gumbel_softmax'?",
    "ST-Gumbel-Softmax": "Did you mean 'st_gumbel_softmax'?",
    "gumbel softmax": "Did you mean 'gumbel_softmax'?",
    "ReinMax": "Did you mean 'reinmax'?",
    "DisARM-SB": "Did you mean 'disarm_sb'?",
}


@pytest.mark.parametrize(("name", "said"), SAID.items())
def test_a_name_is_refused_with_the_key(name, said):
    expected = f"estimator: expected one of {len(REGISTRY)} names, got {name!r}. {said}"
    logits, cost = torch.zeros(2, 2, 3), cost_for(build("rloo"))
    for call in (
        lambda: build(name),
        lambda: sample(logits, name),
        lambda: expect(logits, cost, name),
        lambda: diagnose(logits, cost, [name]),
    ):
        with pytest.raises(ValueError) as refusal:  # noqa: PT011  # the message is compared below, whole
            call()
        assert str(refusal.value) == expected


def test_aliases_are_one_line_each_and_of_estimators_that_exist():
    names = [name for alias in ALIASES for name in alias.names]
    assert len({plain(name) for name in names}) == len(names)
    for alias in ALIASES:
        assert alias.key in REGISTRY or (alias.key is None and alias.note)
        for name in alias.names:
            sentence = alias.sentence(name)
            assert "\n" not in sentence
            assert sentence.endswith(".")
            assert set(re.findall(r"\b[a-z]+_[a-z_]+\b", sentence)) <= set(REGISTRY)  # what a sentence recommends
            assert meaning_of(name.upper().replace("-", " "), REGISTRY) == sentence
            assert key_of(name, REGISTRY) == alias.key
    assert [alias.key for alias in ALIASES if alias.key] == sorted(
        (alias.key for alias in ALIASES if alias.key), key=list(REGISTRY).index
    )


def test_no_alias_hides_a_key():
    keys = {plain(key): key for key in REGISTRY}
    assert len(keys) == len(REGISTRY)
    for alias in ALIASES:
        for name in alias.names:
            assert keys.get(plain(name), alias.key) == alias.key


def test_an_estimator_of_ones_own_may_have_such_a_name():
    own = {"loorf": REGISTRY["reinforce"], "simple": REGISTRY["softmax"]}
    assert build("loorf", own).name == "reinforce"
    assert meaning_of("LOORF", own) == "Did you mean 'loorf'?"
    assert meaning_of("VarGrad", own) == ""  # rloo is not among these
    assert key_of("VarGrad", own) is None


@pytest.mark.parametrize("name", ["", "–", "magic", "x" * 10_000, 3, None, ["rloo"]])
def test_what_is_no_name_has_no_meaning(name):
    assert meaning_of(name, REGISTRY) == ""
    assert key_of(name, REGISTRY) is None


def test_the_names_of_an_estimator_and_the_table():
    assert names_of("rloo")[0] == "LOORF"
    assert "VarGrad" in names_of("rloo")
    assert names_of("vimco")
    assert "| VarGrad | `rloo`, if log q is part of the cost, as a number |" in table()


# Identities. That ZGR is reinmax at tau = 1 is tested with reinmax.


def subset_marginals(logits_K, size):
    """P(k in the subset), subsets of that size with probability ∝ exp(Σ logits): by enumeration, differentiable."""
    subsets = list(combinations(range(len(logits_K)), size))
    weights = torch.stack([logits_K[list(subset)].sum().exp() for subset in subsets])
    inside = torch.tensor([[float(k in subset) for k in range(len(logits_K))] for subset in subsets]).double()
    return (weights / weights.sum()) @ inside


@pytest.mark.parametrize(("size", "same"), [(1, True), (2, False)])
def test_simple_with_one_class_is_straight_through(size, same):
    """SIMPLE, Ahmed, Zeng, Niepert, Van den Broeck (2023), arXiv:2210.01941: ∇f(z) times the slope of the marginals."""
    logits_BLK, codes = example_logits(), []

    def cost(z_SBLK):
        codes.append(z_SBLK)
        return cost_for(build("straight_through"))(z_SBLK)

    _, gradient_BLK = run(build("straight_through"), logits_BLK, cost)
    z_SBLK = codes[0].detach().requires_grad_()
    (slope_SBLK,) = torch.autograd.grad(cost(z_SBLK).sum(), z_SBLK)
    leaf_BLK = logits_BLK.clone().requires_grad_()
    marginals = torch.stack([torch.stack([subset_marginals(x_K, size) for x_K in x_LK]) for x_LK in leaf_BLK])
    (expected_BLK,) = torch.autograd.grad(marginals, leaf_BLK, slope_SBLK[0])
    assert torch.allclose(gradient_BLK, expected_BLK) == same


@pytest.mark.parametrize(("correction", "same"), [(1, True), (0, False)])
def test_vargrad_is_rloo_with_log_q_in_the_cost(correction, same):
    """VarGrad, Richter, Boustati, Nüsken, Ruiz, Akyildiz (2020), arXiv:2010.10436: the slope of ½ Var of the log-ratio,
    codes and samples fixed.
    """
    logits_BLK, codes, weights_LK = example_logits(), [], example_weights()

    def log_ratio(z_SBLK, logits_BLK):
        return (z_SBLK * logits_BLK.log_softmax(-1)).sum((-1, -2)) - (z_SBLK * weights_LK).sum((-1, -2)).exp()

    def cost(z_SBLK):
        codes.append(z_SBLK.detach())
        return log_ratio(z_SBLK, logits_BLK)

    _, gradient_BLK = run(build("rloo", n_samples=4), logits_BLK, cost)
    leaf_BLK = logits_BLK.clone().requires_grad_()
    half_variance_B = log_ratio(codes[0], leaf_BLK).var(0, correction=correction) / 2
    (expected_BLK,) = torch.autograd.grad(half_variance_B.sum(), leaf_BLK)
    assert torch.allclose(gradient_BLK, expected_BLK) == same


def test_arm_is_arsm_with_two_classes(monkeypatch):
    """ARM, Yin, Zhou (2019), arXiv:1807.11143: (f(1[u > σ(−φ)]) − f(1[u < σ(φ)])) (u − ½) for φ, of all latents at
    once.
    """
    logits_BLK, weights_LK = example_logits(n_categories=2), example_weights(3, 2)[:2]
    u_BL = torch.linspace(0.05, 0.95, 8, dtype=torch.float64).view(4, 2)
    log_noise = torch.stack([u_BL, 1 - u_BL], -1).log().unsqueeze(0)  # Dirichlet(1, 1): its first entry is uniform
    monkeypatch.setattr("estimators.arsm.perturb", lambda *_: -log_noise)

    def f(z_SBLK):
        return (1 + (z_SBLK * weights_LK).sum((-1, -2))) ** 3

    _, gradient_BLK = run(build("arsm"), logits_BLK, f)
    phi_BL = logits_BLK[..., 0] - logits_BLK[..., 1]
    first, second = u_BL > (-phi_BL).sigmoid(), u_BL < phi_BL.sigmoid()
    f_1, f_2 = (f(torch.stack([b, ~b], -1).double().unsqueeze(0))[0] for b in (first, second))
    expected_BL = (f_1 - f_2).unsqueeze(-1) * (u_BL - 0.5)
    torch.testing.assert_close(gradient_BLK, torch.stack([expected_BL, -expected_BL], -1))
