"""MuProp, REBAR and RELAX: unbiased at every setting, control variates of mean zero that work, and what trains them.

L=2, K=3, a cubic cost in which the latents interact, 20 000 draws of one logit row, |z| < 5 for every entry, unless
stated otherwise. Seeds and numbers of draws are fixed beforehand.
"""

import copy

import pytest
import torch
from families.control_variates import NAIVE, RelaxedTemplate
from naive_formulas import jacobian, softmax, value_and_slope
from scipy import stats
from torch import nn

from estimators import build
from estimators.gumbel import perturb
from estimators.rebar import relaxation_given
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    bias_scores,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    run,
    z_scores,
)

COST = cubic_cost(example_weights())
ROWS_NLK = example_logits()[0].expand(N_REPLICAS, -1, -1)
NAMES = ["muprop", "rebar", "relax"]
P_VALUE = 1e-6


def quadratic_cost(z_SBLK):
    return 3 + (1 + (z_SBLK * example_weights().to(z_SBLK.dtype)).sum((-1, -2))) ** 2


def with_network(n_latents=2, n_categories=3, seed=1, **params):
    """RELAX whose network does something: as it is made, it returns 0."""
    estimator = build("relax", **params)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimator.prepare(n_latents, n_categories)
        nn.init.normal_(estimator.last.weight)
        nn.init.normal_(estimator.last.bias)
    return estimator


def total_variance(estimator, cost=COST):
    return run(estimator, ROWS_NLK, cost)[1].var(0).sum().item()


# The formula.


@pytest.mark.parametrize("params", [{}, {"eta": 0.0}, {"tau": 0.2, "eta": 1.5, "hidden": 3, "n_samples": 2}])
def test_relax_with_a_working_network_equals_the_naive_version(params):
    estimator = with_network(**params)
    expected_BLK = NAIVE["relax"](estimator, example_logits(), COST)
    torch.testing.assert_close(run(estimator, example_logits(), COST)[1], expected_BLK, rtol=1e-7, atol=1e-9)
    flat = with_network(**params)
    nn.init.zeros_(flat.last.weight)
    assert not torch.allclose(run(flat, example_logits(), COST)[1], expected_BLK, rtol=1e-2)


@pytest.mark.parametrize("n_samples", [1, 3])
def test_eta_zero_is_reinforce_on_the_same_samples(n_samples):
    one, other = (
        run(build(name, n_samples=n_samples, **params), example_logits(64), COST)
        for name, params in (("rebar", {"eta": 0.0}), ("reinforce", {}))
    )
    torch.testing.assert_close(one[1], other[1], rtol=1e-12, atol=1e-12)
    assert torch.equal(one[0], other[0])


def test_relax_starts_as_rebar():
    """Its network returns 0 at first; prepared beforehand, it draws the same noise."""
    relax = build("relax")
    relax.prepare(2, 3)
    assert torch.equal(run(relax, example_logits(), COST)[1], run(build("rebar"), example_logits(), COST)[1])


def test_muprop_of_a_linear_cost_is_the_exact_gradient():
    """The expansion predicts a linear cost: no variance is left."""

    def cost(z_SBLK):
        return 7 + (z_SBLK * example_weights()).sum((-1, -2))

    for logits_LK, gradient_LK in zip(example_logits(), run(build("muprop"), example_logits(), cost)[1], strict=True):
        torch.testing.assert_close(gradient_LK, exact_gradient(logits_LK, cost)[1])


def test_two_classes_reduce_to_the_binary_formula():
    """REBAR of one Bernoulli variable, φ = θ_1 − θ_0, with logistic noise: ∂/∂φ = −∂/∂θ_0 = ∂/∂θ_1."""
    logits_BLK, tau = example_logits(5, 1, 2), 0.7
    estimator = build("rebar", tau=tau, eta=1.3)

    def cost(z_SBLK):
        return (1 + 2 * z_SBLK[..., 0, 1]) ** 3

    _, gradient_BLK = run(estimator, logits_BLK, cost)
    torch.manual_seed(0)
    first, second = (torch.empty(5, 1, 2, dtype=torch.float64).uniform_().log_().neg_().log() for _ in range(2))
    for b, (theta_0, theta_1) in enumerate(logits_BLK[:, 0].tolist()):
        phi = torch.tensor(theta_1 - theta_0, dtype=torch.float64, requires_grad=True)
        probability = torch.sigmoid(phi)
        z = phi + first[b, 0, 0] - first[b, 0, 1]
        sample = (z > 0).double().detach()
        e_0, e_1 = second[b, 0].exp()
        # In the Gumbel form z̃_1 − z̃_0, written for b = 1 and b = 0.
        given = (
            torch.log(e_0 / (1 - probability) + e_1) - e_1.log()
            if sample == 1
            else -(torch.log(e_1 / probability + e_0) - e_0.log())
        )

        def f(y):
            return (1 + 2 * y) ** 3

        log_q = torch.where(sample == 1, probability.log(), (1 - probability).log())
        soft, soft_given = f(torch.sigmoid(z / tau)), f(torch.sigmoid(given / tau))
        surrogate = (f(sample) - 1.3 * soft_given.detach()) * log_q + 1.3 * (soft - soft_given)
        (expected,) = torch.autograd.grad(surrogate, phi)
        torch.testing.assert_close(gradient_BLK[b, 0], torch.stack([-expected, expected]), rtol=1e-6, atol=1e-9)


# Bias.


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_rebar_is_unbiased_at_every_eta_and_tau(eta, tau):
    cost_z, gradient_z = bias_scores(build("rebar", eta=eta, tau=tau))
    assert max(cost_z.abs(), gradient_z.abs().max()) < MAX_Z


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_relax_is_unbiased_whatever_its_network(eta):
    cost_z, gradient_z = bias_scores(with_network(eta=eta))
    assert max(cost_z.abs(), gradient_z.abs().max()) < MAX_Z


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (2, 4)])
def test_unbiased_at_other_shapes(name, shape):
    cost = cubic_cost(example_weights(*shape))
    estimator = with_network(*shape) if name == "relax" else build(name, n_samples=2)
    logits_LK = example_logits(1, *shape)[0]
    _, gradient_NLK = run(estimator, logits_LK.expand(N_REPLICAS, -1, -1), cost)
    assert z_scores(gradient_NLK, exact_gradient(logits_LK, cost)[1]).abs().max() < MAX_Z


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_unbiased_on_logits_and_cost_of_an_auto_encoder(seed):
    """Deeper: a network cost at L=3, K=4, with as many draws for each of several seeds."""
    torch.manual_seed(seed)
    decoder = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 20)).double()
    x_D, logits_LK = torch.rand(20).double(), 2 * torch.randn(3, 4).double()

    def cost(z_SBLK):
        pixels = decoder(z_SBLK.flatten(-2))
        return nn.functional.binary_cross_entropy_with_logits(pixels, x_D.expand_as(pixels), reduction="none").sum(-1)

    _, expected_LK = exact_gradient(logits_LK, cost)
    for estimator in (build("muprop"), build("rebar"), with_network(3, 4)):
        _, gradient_NLK = run(estimator, logits_LK.expand(N_REPLICAS, -1, -1), cost, seed)
        assert z_scores(gradient_NLK, expected_LK).abs().max() < MAX_Z


# Control variates: mean zero (trap 4), and not idle.


@pytest.mark.parametrize(("tau", "eta"), [(0.3, 1.0), (1.0, 2.0)])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_added_to_reinforce_has_mean_zero(name, tau, eta):
    """With the same samples, estimator − REINFORCE is the correction alone."""
    estimator = {
        "muprop": lambda: build("muprop"),
        "rebar": lambda: build("rebar", tau=tau, eta=eta),
        "relax": lambda: with_network(tau=tau, eta=eta),
    }[name]()
    correction_NLK = run(estimator, ROWS_NLK, COST)[1] - run(build("reinforce"), ROWS_NLK, COST)[1]
    assert correction_NLK.std(0).min() > 0.01
    assert z_scores(correction_NLK, torch.zeros(2, 3).double()).abs().max() < MAX_Z


def test_the_correction_is_proportional_to_eta():
    plain, single, double = (run(build("rebar", eta=eta), example_logits(), COST)[1] for eta in (0.0, 1.0, 2.0))
    torch.testing.assert_close(double - plain, 2 * (single - plain))


def test_the_expansion_of_muprop_has_the_mean_that_is_added_back():
    """Σ_D π_D (f(π) + f'(π)·(D − π)) (D − π) = J(π) f'(π), by enumeration of the Taylor polynomial."""
    for logits_LK in example_logits():
        pi_LK = torch.stack([softmax(x_K) for x_K in logits_LK])
        at_mean, slope_LK = value_and_slope(COST, pi_LK)

        def taylor(z_SBLK, at_mean=at_mean, slope_LK=slope_LK, pi_LK=pi_LK):
            return at_mean + (slope_LK * (z_SBLK - pi_LK)).sum((-1, -2))

        expected_LK = torch.stack([jacobian(p_K) @ s_K for p_K, s_K in zip(pi_LK, slope_LK, strict=True)])
        torch.testing.assert_close(exact_gradient(logits_LK, taylor)[1], expected_LK)


@pytest.mark.parametrize("cost", [COST, quadratic_cost], ids=["cubic", "quadratic"])
@pytest.mark.parametrize("name", NAMES)
def test_control_variates_reduce_the_variance(name, cost):
    """At tau = 1: by a third on a cost with mean near 0, to a twentieth where the mean is far from it."""
    params = {} if name == "muprop" else {"tau": 1.0}
    most = 0.7 if cost is COST else 0.05
    assert total_variance(build(name, **params), cost) < most * total_variance(build("reinforce"), cost)


def test_a_relaxation_that_knows_the_sample_varies_less_than_one_that_does_not():
    """z̃ given D predicts f(D); the same terms with z̃ drawn anew, also unbiased, only add noise."""

    class Unconditional(RelaxedTemplate):
        def given(self, log_probs_BLK, z_SBLK, class_SBL):
            return perturb(log_probs_BLK, self.n_samples), 1.0

    reinforce = total_variance(build("reinforce"))
    assert total_variance(build("rebar")) < 0.75 * reinforce
    assert total_variance(Unconditional()) > reinforce


def test_the_score_function_term_vanishes_where_the_relaxation_is_exact():
    """Where σ_τ(z̃) costs what D costs, and has no slope, eta = 1 leaves nothing; eta = 0.5 leaves half of REINFORCE."""

    def cost(z_SBLK):  # the same at D and at any relaxation of it
        first_SB = z_SBLK[..., 0, :].argmax(-1).double()
        return 5 + first_SB + 0 * z_SBLK.sum((-1, -2))

    _, gradient_BLK = run(build("rebar"), example_logits(), cost)
    assert gradient_BLK.abs().max() < 1e-12
    half_BLK, whole_BLK = (
        run(build(name, **params), example_logits(), cost)[1]
        for name, params in (("rebar", {"eta": 0.5}), ("reinforce", {}))
    )
    torch.testing.assert_close(2 * half_BLK, whole_BLK)


# The law of z̃.


def test_conditional_noise_has_the_law_of_z_given_d():
    """D ~ softmax and z̃ | D: each z̃_k is Gumbel(log π_k), the largest is Gumbel(0) and at D, and pairs match z's."""
    torch.manual_seed(5)
    log_probs_BLK = ROWS_NLK.log_softmax(-1)
    z_BLK = perturb(log_probs_BLK, 1)[0]
    class_BL = z_BLK.argmax(-1)
    given_BLK = relaxation_given(log_probs_BLK, class_BL.unsqueeze(0))[0][0]
    assert torch.equal(given_BLK.argmax(-1), class_BL)
    for latent in range(2):
        top = given_BLK[:, latent].amax(-1)
        assert stats.kstest(top.numpy(), "gumbel_r").pvalue > P_VALUE
        for k in range(3):
            noise = given_BLK[:, latent, k] - log_probs_BLK[:, latent, k]
            assert stats.kstest(noise.numpy(), "gumbel_r").pvalue > P_VALUE
            rows = class_BL[:, latent] == k
            for other in range(3):
                pair = (each[rows, latent, other].numpy() for each in (z_BLK, given_BLK))
                assert stats.ks_2samp(*pair).pvalue > P_VALUE
            gaps = [each[rows, latent, k] - each[rows, latent, (k + 1) % 3] for each in (z_BLK, given_BLK)]
            assert stats.ks_2samp(*(gap.numpy() for gap in gaps)).pvalue > P_VALUE


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_the_cost_sees_one_sample_and_two_relaxations_of_it(name):
    """First the one-hot codes alone, then both relaxations in one call: same argmax, different noise, equal law."""
    seen = []
    run(build(name, n_samples=2, tau=0.4), ROWS_NLK[:4000], lambda z: (seen.append(z.detach()), COST(z))[1])
    hard_SBLK, soft_TBLK = seen
    assert hard_SBLK.shape[0] == 2
    assert soft_TBLK.shape[0] == 4
    for relaxed_SBLK in (soft_TBLK[:2], soft_TBLK[2:]):
        assert torch.equal(relaxed_SBLK.argmax(-1), hard_SBLK.argmax(-1))
    assert (soft_TBLK[:2] - soft_TBLK[2:]).abs().mean() > 0.01
    for latent, k in ((0, 0), (0, 2), (1, 1)):
        z, given = (part[..., latent, k].flatten().numpy() for part in (soft_TBLK[:2], soft_TBLK[2:]))
        assert stats.ks_2samp(z, given).pvalue > P_VALUE


def test_the_conditional_slope_is_the_derivative():
    """Of z̃ with respect to log π, noise held fixed; by autograd through the published expression."""
    log_probs_BLK = example_logits().log_softmax(-1).requires_grad_()
    class_SBL = torch.randint(3, (2, 4, 2), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    given_SBLK, slope_SBLK = relaxation_given(log_probs_BLK.detach(), class_SBL)
    torch.manual_seed(3)
    e_SBLK = torch.empty(2, 4, 2, 3, dtype=torch.float64).uniform_().log_().neg_()
    top_SBL1 = e_SBLK.gather(-1, class_SBL[..., None])
    wide_SBLK = log_probs_BLK.detach().expand(2, -1, -1, -1).clone().requires_grad_()
    others_SBLK = -(e_SBLK / wide_SBLK.exp() + top_SBL1).log()
    formula_SBLK = others_SBLK.scatter(-1, class_SBL[..., None], -top_SBL1.log())
    torch.testing.assert_close(given_SBLK, formula_SBLK.detach())
    torch.testing.assert_close(slope_SBLK, torch.autograd.grad(formula_SBLK.sum(), wide_SBLK)[0])


# Training of eta, of the network and of tau.


def control_loss(estimator, logits_BLK, cost=COST, seed=0):
    torch.manual_seed(seed)
    return estimator(logits_BLK.clone().requires_grad_(), cost).control_loss


def test_control_loss_is_the_mean_square_of_the_gradient():
    for estimator in (build("rebar", n_samples=2), with_network()):
        gradient_BLK = run(estimator, example_logits(), COST)[1]
        loss = control_loss(estimator, example_logits())
        torch.testing.assert_close(loss.detach(), gradient_BLK.square().sum((-1, -2)).mean())


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_gradient_of_the_control_loss_is_its_slope_under_fixed_noise(name):
    """Central differences in eta, tau, and one entry of each parameter of the network."""
    estimator, step = with_network() if name == "relax" else build("rebar", n_samples=2), 1e-4
    estimator.double()
    estimator.tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    logits_BLK = example_logits()
    control_loss(estimator, logits_BLK).backward()
    learned = [*estimator.parameters(), estimator.tau]
    assert len(learned) == (6 if name == "relax" else 2)
    for parameter in learned:
        slopes = []
        entry = parameter.detach().view(-1)[-1:]
        for sign in (1, -1):
            entry += sign * step
            slopes.append(control_loss(estimator, logits_BLK).item())
            entry -= sign * step
        expected = (slopes[0] - slopes[1]) / (2 * step)
        assert abs(expected) > 1e-6 or parameter.shape == (1,)
        assert parameter.grad.view(-1)[-1].item() == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_control_loss_trains_own_parameters_and_tau_alone():
    """Neither decoder nor logits receive anything from it; the cost gives nothing to them."""
    for estimator in (build("rebar"), with_network()):
        weights_LK, leaf_BLK = example_weights().requires_grad_(), example_logits().requires_grad_()
        log_tau = torch.tensor(-0.5, requires_grad=True)
        estimator.tau = log_tau.exp()
        estimate = estimator(leaf_BLK, cubic_cost(weights_LK))
        outside, own = [weights_LK, leaf_BLK], [log_tau, *estimator.parameters()]
        slopes = torch.autograd.grad(estimate.control_loss, [*outside, *own], retain_graph=True, allow_unused=True)
        assert all(slope is None for slope in slopes[:2])
        assert all(slope.isfinite().all() and slope.abs().max() > 0 for slope in slopes[2:])
        slopes = torch.autograd.grad(estimate.cost_B.sum(), [*outside, *own], allow_unused=True)
        assert all(slope is not None for slope in slopes[:2])
        assert all(slope is None for slope in slopes[2:])


def test_the_two_losses_may_be_differentiated_in_any_order_without_keeping_graphs():
    for order in ((0, 1), (1, 0)):
        weights_LK, leaf_BLK = example_weights().requires_grad_(), example_logits().requires_grad_()
        estimator = build("rebar")
        shared_LK = weights_LK.tanh()  # made once, outside the cost: its graph serves both evaluations
        estimate = estimator(leaf_BLK, cubic_cost(shared_LK))
        losses = (estimate.cost_B.sum(), estimate.control_loss)
        for k in order:
            losses[k].backward()
        assert all(each.grad.abs().max() > 0 for each in (weights_LK, leaf_BLK, estimator.eta))


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_there_is_a_control_loss_only_where_it_trains_something(name):
    estimator, leaf_BLK = build(name), example_logits().requires_grad_()
    torch.manual_seed(0)
    trained = estimator(leaf_BLK, COST)
    assert trained.control_loss.requires_grad
    estimator.eval()
    torch.manual_seed(0)
    evaluated = estimator(leaf_BLK, COST)
    assert evaluated.control_loss is None
    gradients = [torch.autograd.grad(each.cost_B.sum(), leaf_BLK)[0] for each in (trained, evaluated)]
    if name == "rebar":  # RELAX made its network before it drew the noise of the first call
        assert torch.equal(*gradients)
    estimator.train().requires_grad_(False)
    assert estimator(leaf_BLK, COST).control_loss is None
    estimator.tau = torch.tensor(0.5, requires_grad=True)
    estimator(leaf_BLK, COST).control_loss.backward()
    assert estimator.tau.grad.isfinite()
    assert build("muprop")(leaf_BLK, COST).control_loss is None


@pytest.mark.parametrize("name", NAMES)
def test_without_a_gradient_to_give_the_cost_is_still_right(name):
    """One evaluation, of the one-hot codes; the decoder's gradient stays."""
    seen = []

    def spied(z_SBLK):
        seen.append(z_SBLK)
        return COST(z_SBLK)

    expected_B = run(build(name), example_logits(), COST)[0]
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            torch.manual_seed(0)
            estimate = build(name)(example_logits(), spied)
        assert torch.equal(estimate.cost_B, expected_B)
        assert estimate.control_loss is None
    assert len(seen) == 2
    weights_LK = example_weights().requires_grad_()
    build(name)(example_logits(), cubic_cost(weights_LK)).cost_B.sum().backward()
    assert weights_LK.grad.abs().max() > 0


def train(estimator, n_steps, cost=COST, lr=0.05, own=None):
    optimizer = torch.optim.Adam(own or estimator.parameters(), lr=lr)
    torch.manual_seed(1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        estimator(ROWS_NLK[:500].clone().requires_grad_(), cost).control_loss.backward()
        optimizer.step()


def test_training_eta_reduces_the_variance_to_the_best_that_eta_can_do():
    """E‖ĝ‖² is a parabola in eta; three points give its vertex, and the control loss finds it from 0."""
    variances = [total_variance(build("rebar", eta=eta), quadratic_cost) for eta in (0.0, 1.0, 2.0)]
    slope, curvature = (variances[2] - variances[0]) / 2, variances[0] - 2 * variances[1] + variances[2]
    best = 1 - slope / curvature
    estimator = build("rebar", eta=0.0)
    train(estimator, 100, quadratic_cost)
    assert estimator.eta.item() == pytest.approx(best, abs=0.1)
    assert total_variance(estimator, quadratic_cost) < 0.1 * variances[0]


def test_training_tau_reduces_the_variance():
    log_tau = torch.tensor(0.05).log().requires_grad_()
    estimator = build("rebar", tau=0.05).requires_grad_(False)
    before = total_variance(estimator)
    optimizer = torch.optim.Adam([log_tau], lr=0.1)
    torch.manual_seed(1)
    for _ in range(60):
        optimizer.zero_grad()
        estimator.tau = log_tau.exp()
        estimator(ROWS_NLK[:500].clone().requires_grad_(), COST).control_loss.backward()
        optimizer.step()
    assert log_tau.exp() > 0.2
    estimator.tau = log_tau.exp().item()
    assert total_variance(estimator) < 0.5 * before


def test_training_relax_beats_rebar_with_the_best_eta():
    """Its network learns what the relaxed cost misses."""
    rebar, relax = build("rebar", tau=0.3), build("relax", tau=0.3)
    relax.prepare(2, 3)
    train(rebar, 100)
    train(relax, 300, lr=0.02)
    assert total_variance(relax) < 0.8 * total_variance(rebar)


# Own parameters.


def test_prepare_makes_the_network_once_and_the_first_call_does_it_too():
    estimator = build("relax", hidden=7)
    assert [key for key, _ in estimator.named_parameters()] == ["eta"]
    estimator.double().prepare(2, 3)
    assert estimator.first.weight.shape == (7, 6)
    assert estimator.first.weight.dtype == torch.float64
    weight = estimator.first.weight
    estimator.prepare(2, 3)
    assert estimator.first.weight is weight
    lazy = build("relax", hidden=7)
    run(lazy, example_logits(), COST)  # run works on a copy
    assert len(list(lazy.parameters())) == 1
    lazy(example_logits(), COST)
    assert len(list(lazy.parameters())) == 5
    assert len(list(build("muprop").parameters())) == 0


def test_state_dict_restores_everything():
    for estimator, twin in ((build("rebar", eta=0.3), build("rebar")), (with_network(eta=0.3), build("relax"))):
        twin.prepare(2, 3)
        twin.load_state_dict(estimator.state_dict())
        assert torch.equal(run(estimator, example_logits(), COST)[1], run(twin, example_logits(), COST)[1])


def test_control_lr_is_that_of_the_optimiser():
    assert build("rebar", control_lr=0.25).control_optimizer().param_groups[0]["lr"] == 0.25
    assert build("muprop").control_optimizer() is None


def test_eta_is_shown_as_it_is_now():
    estimator = build("rebar", eta=0.25)
    assert repr(estimator) == "Rebar(tau=0.5, eta=0.25, n_samples=1, control_lr=0.001)"
    estimator.eta.data.fill_(2.0)
    assert "eta=2," in repr(estimator)


# Numerics: with a learned temperature everything that trains stays finite, too.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["rebar", "relax"])
@pytest.mark.parametrize("tau", [1.0, 1e-3])
def test_the_control_loss_and_its_gradient_are_finite_in_extreme_settings(name, tau, dtype):
    signs_BLK = (torch.arange(6).view(1, 2, 3) % 3 - 1.0).to(dtype)
    for logits_BLK in (1e4 * signs_BLK, 0 * signs_BLK, signs_BLK[:0], signs_BLK[..., :1], -1e4 * signs_BLK):
        n_categories = logits_BLK.shape[-1]
        estimator = with_network(2, n_categories) if name == "relax" else build(name)
        estimator.tau = torch.tensor(tau, requires_grad=True)
        leaf_BLK = logits_BLK.clone().requires_grad_()
        estimate = estimator(leaf_BLK, cubic_cost(example_weights(2, n_categories)))
        estimate.control_loss.backward()
        estimate.cost_B.sum().backward()
        assert all(each.grad.isfinite().all() for each in (leaf_BLK, estimator.tau, *estimator.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_masked_classes_are_never_sampled_and_get_no_gradient(name):
    logits_BLK, seen = example_logits(64), []
    logits_BLK[..., 1] = -torch.inf
    estimator = with_network() if name == "relax" else build(name)
    if name != "muprop":
        estimator.tau = torch.tensor(0.5, requires_grad=True)
    leaf_BLK = logits_BLK.clone().requires_grad_()
    estimate = estimator(leaf_BLK, lambda z: (seen.append(z.detach()), COST(z))[1])
    estimate.cost_B.sum().backward()
    assert all((z_SBLK[..., 1] == 0).all() for z_SBLK in seen)
    assert leaf_BLK.grad.isfinite().all()
    assert (leaf_BLK.grad[..., 1] == 0).all()
    assert leaf_BLK.grad.abs().max() > 0
    if name != "muprop":
        estimate.control_loss.backward()
        assert all(each.grad.isfinite().all() for each in (estimator.tau, *estimator.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_worked_on_in_float32(name):
    """bfloat16 logits give the float32 gradient of the same noise, but for the rounding of the cost's codes."""
    estimator = with_network() if name == "relax" else build(name)
    logits_BLK = example_logits(2000).bfloat16()
    half, single = (run(copy.deepcopy(estimator), each, COST)[1].double() for each in (logits_BLK, logits_BLK.float()))
    assert (half - single).norm() < 0.05 * single.norm()


def test_relax_refuses_another_shape_than_it_was_prepared_for():
    """Also one of as many entries."""
    estimator = build("relax")
    estimator.prepare(2, 6)
    for n_latents, n_categories in ((2, 5), (3, 4)):
        leaf = example_logits(4, n_latents, n_categories).requires_grad_()
        message = rf"^relax: expected logits of \(L, K\) = \(2, 6\), as .+, got \({n_latents}, {n_categories}\)\. Build"
        with pytest.raises(ValueError, match=message):
            estimator(leaf, lambda z_SBLK: z_SBLK[..., 0].sum(-1))
