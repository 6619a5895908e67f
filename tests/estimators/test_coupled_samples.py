"""DisARM, ARSM and the unordered-set estimator: coupled codes that are each samples, weights that sum to 1, variance.

L=2, K=3, a cubic cost in which the latents interact, 20 000 draws of one logit row, |z| < 5 for every entry, unless
stated otherwise. Seeds and numbers of draws are fixed beforehand.
"""

import math
from itertools import combinations, permutations

import pytest
import torch
from families.coupled_samples import set_probability
from scipy import stats

import estimators.base
from estimators import build
from estimators.gumbel import log_prob
from estimators.reference_problem import (
    MAX_Z,
    N_REPLICAS,
    accepts,
    all_codes,
    cubic_cost,
    exact_gradient,
    example_logits,
    example_weights,
    run,
    z_scores,
)
from estimators.unordered_set import draw_set, given_maximum, leave_one_out

NAMES = ["disarm", "disarm_sb", "arsm", "unordered_set"]
P_VALUE = 1e-6
SHAPES = [(2, 3), (3, 2), (1, 4), (2, 4), (4, 2), (1, 6)]


def problem(shape):
    """N_REPLICAS rows of the same logits, and a cost."""
    return example_logits(1, *shape).expand(N_REPLICAS, -1, -1), cubic_cost(example_weights(*shape))


def codes_of(estimator, logits_BLK, cost, seed=0):
    """The class numbers (S, B, L) of the codes that are sampled, without those that only a gradient needs."""
    seen = []
    torch.manual_seed(seed)
    with torch.no_grad():
        estimator(logits_BLK, lambda z: (seen.append(z.argmax(-1)), cost(z))[1])
    return torch.cat(seen)


def total_variance(estimator, shape, cost=None):
    rows_NLK, default = problem(shape)
    return run(estimator, rows_NLK, cost or default)[1].var(0).sum().item()


def number(class_XL, n_categories):
    """Each code as one number."""
    return (class_XL * n_categories ** torch.arange(class_XL.shape[-1])).sum(-1)


def law(logits_LK):
    """Probabilities of all codes, by their number."""
    codes_SLK = all_codes(*logits_LK.shape)
    probs_S = (codes_SLK * logits_LK.softmax(-1)).sum(-1).prod(-1)
    return torch.zeros_like(probs_S).scatter(0, number(codes_SLK.argmax(-1), logits_LK.shape[1]), probs_S)


def assert_law(class_NL, logits_LK):
    expected = law(logits_LK)
    observed = torch.bincount(number(class_NL, logits_LK.shape[1]), minlength=len(expected))
    assert stats.chisquare(observed.numpy(), (len(class_NL) * expected).numpy()).pvalue > P_VALUE


# Bias and variance.


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in NAMES for shape in SHAPES if accepts(build(name), *shape)],
)
def test_unbiased_at_other_shapes(name, shape):
    estimator = build(name, n_samples=2)
    rows_NLK, cost = problem(shape)
    cost_N, gradient_NLK = run(estimator, rows_NLK, cost, seed=1)
    expected, gradient_LK = exact_gradient(rows_NLK[0], cost)
    assert z_scores(cost_N, expected).abs() < MAX_Z
    assert z_scores(gradient_NLK, gradient_LK).abs().max() < MAX_Z


@pytest.mark.parametrize("name", NAMES)
def test_unbiased_where_the_logits_differ_much(name):
    """Stretched by 3, so that many answers of the sticks are nearly certain."""
    shape = (3, 2) if name == "disarm" else (2, 4)
    rows_NLK, cost = problem(shape)
    expected, gradient_LK = exact_gradient(3 * rows_NLK[0], cost)
    cost_N, gradient_NLK = run(build(name), 3 * rows_NLK, cost)
    assert z_scores(cost_N, expected).abs() < MAX_Z
    assert z_scores(gradient_NLK, gradient_LK).abs().max() < MAX_Z


@pytest.mark.slow
@pytest.mark.parametrize("n_samples", [2, 3, 5, 9])
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_unordered_set_is_unbiased_at_every_size(n_samples, seed):
    rows_NLK, cost = problem((2, 3))
    expected, gradient_LK = exact_gradient(rows_NLK[0], cost)
    cost_N, gradient_NLK = run(build("unordered_set", n_samples=n_samples), rows_NLK, cost, seed)
    assert z_scores(cost_N, expected).abs() < MAX_Z
    assert z_scores(gradient_NLK, gradient_LK).abs().max() < MAX_Z


@pytest.mark.parametrize(("name", "shape", "n_samples"), [
    ("disarm", (3, 2), 2), ("disarm_sb", (2, 3), 2), ("arsm", (2, 3), 1), ("unordered_set", (2, 3), 4),
])  # fmt: skip
def test_less_variance_than_reinforce_with_as_many_evaluations(name, shape, n_samples):
    """They know differences of the cost only: a tenth of the variance where its level is 5, whatever its level."""
    cost, estimator = problem(shape)[1], build(name, n_samples=n_samples)
    reinforce = build("reinforce", n_samples=estimator.n_cost_evals(*shape))
    variance = [total_variance(estimator, shape, lambda z, c=c: cost(z) + c) for c in (0.0, 5.0)]
    assert variance[1] == pytest.approx(variance[0])
    assert variance[1] < 0.1 * total_variance(reinforce, shape, lambda z: cost(z) + 5)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_changes_nothing(name):
    shape = (3, 2) if name == "disarm" else (2, 3)
    cost = problem(shape)[1]
    plain, shifted = (run(build(name), example_logits(4, *shape), lambda z, c=c: cost(z) + c)[1] for c in (0.0, 1000.0))
    torch.testing.assert_close(plain, shifted, rtol=1e-8, atol=1e-9)


def test_antithetic_pairs_vary_less_than_independent_ones():
    """DisARM against RLOO with two samples, on the same number of evaluations."""
    for name, shape in (("disarm", (3, 2)), ("disarm_sb", (3, 2))):
        assert total_variance(build(name), shape) < 0.9 * total_variance(build("rloo", n_samples=2), shape)


def test_the_unordered_set_beats_rloo_where_few_codes_have_the_probability():
    """Logits stretched by 2; RLOO's four codes repeat themselves."""
    rows_NLK, cost = problem((2, 3))
    variances = [
        run(build(name, n_samples=4), 2 * rows_NLK, cost)[1].var(0).sum() for name in ("unordered_set", "rloo")
    ]
    assert variances[0] < 0.65 * variances[1]


# The law of the codes.


@pytest.mark.parametrize(("name", "shape"), [("disarm", (3, 2)), ("disarm_sb", (2, 3)), ("disarm_sb", (1, 5))])
def test_both_codes_of_a_pair_have_the_law(name, shape):
    rows_NLK, cost = problem(shape)
    class_SNL = codes_of(build(name, n_samples=2), rows_NLK, cost)
    assert len(class_SNL) == 4
    for class_NL in class_SNL:
        assert_law(class_NL, rows_NLK[0])


def test_the_codes_of_a_pair_are_as_different_as_they_can_be():
    """b = b̃ = 1 with probability max(0, 2p − 1), both 0 with max(0, 1 − 2p); other pairs and latents do not matter."""
    rows_NLK, cost = problem((3, 2))
    p_L = rows_NLK[0].softmax(-1)[:, 1]
    for name in ("disarm", "disarm_sb"):
        first, other, second, _ = codes_of(build(name, n_samples=2), rows_NLK, cost)
        for both, probability_L in (
            (first & second, (2 * p_L - 1).clamp(min=0)),
            ((1 - first) & (1 - second), (1 - 2 * p_L).clamp(min=0)),
            (first & other, p_L**2),
        ):
            error_L = (probability_L * (1 - probability_L) / N_REPLICAS).sqrt().clamp(min=1e-9)
            assert ((both.double().mean(0) - probability_L) / error_L).abs().max() < MAX_Z


def test_every_exchange_of_arsm_gives_a_sample_of_the_law():
    """After the noise of two classes is exchanged in all variables, codes are as likely as before."""
    rows_NLK, cost = problem((2, 4))
    seen = []
    run(build("arsm"), rows_NLK, lambda z: (seen.append(z.detach().argmax(-1)), cost(z))[1])
    class_SNL = torch.cat(seen)
    assert len(class_SNL) == 1 + 6
    for class_NL in class_SNL:
        assert_law(class_NL, rows_NLK[0])


def test_the_exchanges_of_arsm_are_the_same_in_one_call_or_many(monkeypatch):
    logits_BLK, cost = example_logits(3, 2, 6), cubic_cost(example_weights(2, 6))
    whole = run(build("arsm", n_samples=2), logits_BLK, cost)
    monkeypatch.setattr(estimators.base, "CODES_PER_CALL", 20)
    sizes = []
    pieces = run(build("arsm", n_samples=2), logits_BLK, lambda z: (sizes.append(z.shape[:2].numel()), cost(z))[1])
    assert len(sizes) > 4
    assert max(sizes) <= 20
    for one, other in zip(whole, pieces, strict=True):
        assert torch.equal(one, other)


# Reduction to two classes.


@pytest.mark.parametrize("n_samples", [1, 3])
def test_stick_breaking_with_two_classes_is_disarm(n_samples):
    """The same uniforms give the same pairs, their order exchanged, and the same gradient."""
    logits_BLK, cost = example_logits(64, 3, 2), cubic_cost(example_weights(3, 2))
    one, other = (run(build(name, n_samples=n_samples), logits_BLK, cost) for name in ("disarm", "disarm_sb"))
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])


def test_arsm_with_two_classes_is_arm():
    """½-differences of the cost under ϖ and its exchange, times 1 − 2ϖ: ∂/∂φ = ½ (f(D) − f(D')) (1 − 2ϖ_1) for φ = θ_1,
    where ϖ_1 is uniform."""
    logits_BLK, cost = example_logits(16, 3, 2), cubic_cost(example_weights(3, 2))
    _, gradient_BLK = run(build("arsm"), logits_BLK, cost)
    torch.manual_seed(0)
    e_BLK = torch.empty(1, 16, 3, 2, dtype=torch.float64).uniform_().log_().neg_()[0]
    uniform_BL = e_BLK[..., 1] / e_BLK.sum(-1)
    probability_BL = logits_BLK.softmax(-1)[..., 1]
    for b in range(16):
        code_L, twin_L = (uniform_BL[b] < probability_BL[b]).long(), (1 - uniform_BL[b] < probability_BL[b]).long()
        f = [cost(torch.nn.functional.one_hot(each, 2).double()[None, None]).item() for each in (code_L, twin_L)]
        expected_L = (f[0] - f[1]) / 2 * (1 - 2 * uniform_BL[b])
        torch.testing.assert_close(gradient_BLK[b, :, 1], expected_L)


# Sticks.


def test_a_stick_that_no_code_reaches_gets_no_gradient():
    """Where both codes are the first class, the odds among the later ones do not matter: they share what they get in
    proportion to their probabilities."""
    logits_BLK = example_logits(2000, 2, 4)
    class_SBL = codes_of(build("disarm_sb"), logits_BLK, problem((2, 4))[1])
    _, gradient_BLK = run(build("disarm_sb"), logits_BLK, problem((2, 4))[1])
    unreached_BL = (class_SBL == 0).all(0)
    later_XK = gradient_BLK[unreached_BL][:, 1:]
    torch.testing.assert_close(
        later_XK, later_XK.sum(-1, keepdim=True) * logits_BLK[unreached_BL][:, 1:].softmax(-1), rtol=1e-9, atol=1e-9
    )
    assert unreached_BL.sum() > 20


def test_unreached_sticks_only_add_noise():
    """With them, DisARM of the K − 1 binary variables is unbiased, too, and varies more."""
    from families.coupled_samples import SBSticksThatNobodyReached

    shape = (3, 6)
    assert total_variance(build("disarm_sb"), shape) < 0.95 * total_variance(SBSticksThatNobodyReached(), shape)


# The unordered set.


@pytest.mark.parametrize("n_samples", [2, 3])
def test_sets_have_the_law_of_drawing_without_replacement(n_samples):
    """Chi-squared test of the ordered draws of stochastic beam search: q(s) q(t)/(1 − q(s)) …"""
    rows_NLK, _ = problem((2, 3))
    torch.manual_seed(4)
    class_SNL, log_q_SN, log_rest_N = draw_set(rows_NLK, n_samples)
    q = law(rows_NLK[0]).tolist()
    drawn_SN = number(class_SNL, 3)
    torch.testing.assert_close(log_q_SN.exp(), law(rows_NLK[0])[drawn_SN])
    torch.testing.assert_close(log_rest_N.exp(), 1 - log_q_SN.exp().sum(0))
    observed = torch.bincount((drawn_SN * 9 ** torch.arange(n_samples)[:, None]).sum(0), minlength=9**n_samples)
    counts, expected = [], []
    for order in permutations(range(9), n_samples):
        probability, left = 1.0, 1.0
        for s in order:
            probability, left = probability * q[s] / left, left - q[s]
        counts.append(observed[sum(s * 9**i for i, s in enumerate(order))].item())
        expected.append(N_REPLICAS * probability)
    assert sum(counts) == N_REPLICAS  # no code twice
    pairs = sorted(zip(expected, counts, strict=True))
    rare = sum(e < 5 for e, _ in pairs)
    pairs = [(sum(e for e, _ in pairs[:rare]), sum(c for _, c in pairs[:rare])), *pairs[rare:]] if rare else pairs
    assert stats.chisquare([c for _, c in pairs], [e for e, _ in pairs]).pvalue > P_VALUE


@pytest.mark.parametrize("n_codes", [2, 4, 6, 9])
def test_leave_one_out_ratios_are_those_of_all_orders(n_codes):
    """Set probabilities by the definition, over all orders of the draws: with codes left over, and with none."""
    q_S = law(2 * example_logits(1, 2, 3)[0])
    for chosen in ([0, 1], [3, 4, 8], [2, 5, 6, 7], list(range(6))):
        if max(chosen) >= n_codes:
            continue
        probs_S = q_S[:n_codes] / q_S[:n_codes].sum()
        q = probs_S.tolist()
        rest = 1 - sum(q[s] for s in chosen)
        log_rest_B = torch.tensor([math.log(rest) if len(chosen) < n_codes else -math.inf], dtype=torch.float64)
        weight_SB, share_SSB = leave_one_out(probs_S[chosen].log()[:, None], log_rest_B)
        everything = set(chosen)
        for i, s in enumerate(chosen):
            first = set_probability(everything - {s}, {s}, q)
            assert weight_SB[i, 0].item() == pytest.approx(q[s] * first / set_probability(everything, set(), q))
            for j, t in enumerate(chosen):
                expected = q[s] if s == t else q[t] * set_probability(everything - {s, t}, {s, t}, q) / first
                assert share_SSB[i, j, 0].item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_weights_sum_to_one(scale, dtype):
    """q(s) R(S, s) is the probability that s came first, given the set; the shares of the others sum to 1 as well."""
    logits_BLK = scale * example_logits(40, 4, 3).to(dtype)
    torch.manual_seed(0)
    for n_samples in (2, 5, 11):
        _, log_q_SB, log_rest_B = draw_set(logits_BLK, n_samples)
        weight_SB, share_SSB = leave_one_out(log_q_SB, log_rest_B)
        tolerance = 1e-9 if dtype == torch.float64 else 2e-5 * max(1.0, scale / 30)
        assert (weight_SB.sum(0) - 1).abs().max() < tolerance
        assert (share_SSB.sum(1) - 1).abs().max() < tolerance


def test_the_reported_cost_is_the_weighted_one_and_trains_the_decoder():
    """Σ_s q(s) R(S, s) f(s), weights held fixed: the decoder's gradient is that of the value."""
    weights_LK, logits_BLK = example_weights().requires_grad_(), example_logits().requires_grad_()
    seen = []
    torch.manual_seed(0)
    estimate = build("unordered_set")(logits_BLK, lambda z: (seen.append(z), cubic_cost(weights_LK)(z))[1])
    (gradient_LK,) = torch.autograd.grad(estimate.cost_B.sum(), weights_LK)
    expected_B = torch.zeros(4, dtype=torch.float64)
    for b in range(4):
        numbers = number(seen[0][:, b].argmax(-1), 3).tolist()
        assert len(set(numbers)) == 4
        q, everything = law(logits_BLK[b].detach()).tolist(), set(numbers)
        for s, z_LK in zip(numbers, seen[0][:, b], strict=True):
            ratio = set_probability(everything - {s}, {s}, q) / set_probability(everything, set(), q)
            expected_B[b] += q[s] * ratio * cubic_cost(weights_LK)(z_LK[None, None])[0, 0]
    torch.testing.assert_close(estimate.cost_B, expected_B)
    torch.testing.assert_close(gradient_LK, torch.autograd.grad(expected_B.sum(), weights_LK)[0])


def test_a_set_of_all_codes_gives_the_exact_gradient():
    """Nothing is left to chance: weights and shares are the probabilities themselves."""
    for shape, n_codes in (((2, 3), 9), ((3, 2), 8), ((1, 4), 4)):
        logits_BLK, cost = example_logits(3, *shape), cubic_cost(example_weights(*shape))
        cost_B, gradient_BLK = run(build("unordered_set", n_samples=n_codes), logits_BLK, cost)
        for value, gradient_LK, logits_LK in zip(cost_B, gradient_BLK, logits_BLK, strict=True):
            expected, expected_LK = exact_gradient(logits_LK, cost)
            torch.testing.assert_close(value, expected)
            torch.testing.assert_close(gradient_LK, expected_LK)


def test_fewer_possible_codes_than_asked_for_give_the_exact_gradient():
    """Of 9 codes 2 are possible; the others are not evaluated, and count for nothing."""
    logits_BLK, cost = example_logits(5), cubic_cost(example_weights())
    logits_BLK[:, 0, 1:], logits_BLK[:, 1, 2] = -math.inf, -math.inf
    seen = []
    _, gradient_BLK = run(build("unordered_set"), logits_BLK, lambda z: (seen.append(z.detach()), cost(z))[1])
    assert (seen[0][..., 0, 0] == 1).all()
    assert (seen[0][..., 1, 2] == 0).all()
    for gradient_LK, logits_LK in zip(gradient_BLK, logits_BLK, strict=True):
        expected_K = exact_gradient(logits_LK[1:, :2], lambda z: cost(fixed_first(z)))[1]
        torch.testing.assert_close(gradient_LK[1:, :2], expected_K)
        assert (gradient_LK[0] == 0).all()
        assert gradient_LK[1, 2] == 0


def fixed_first(z_SBLK):
    """Codes of the second latent's first two classes, with the first latent at its first class."""
    wide_SBLK = torch.zeros((*z_SBLK.shape[:2], 2, 3), dtype=z_SBLK.dtype)
    wide_SBLK[..., 0, 0] = 1
    wide_SBLK[..., 1, :2] = z_SBLK[..., 0, :]
    return wide_SBLK


def test_gumbel_variables_given_their_maximum():
    """They have that maximum, at the same place, and together with a Gumbel maximum they are Gumbel variables again."""
    torch.manual_seed(2)
    log_probs_K = example_logits(1, 1, 3)[0, 0].log_softmax(-1)
    noise_NK = log_probs_K - torch.empty(N_REPLICAS, 3, dtype=torch.float64).uniform_().log_().neg_().log()
    maximum_N1 = -torch.empty(N_REPLICAS, 1, dtype=torch.float64).uniform_().log_().neg_().log()
    given_NK = given_maximum(noise_NK, maximum_N1)
    assert torch.equal(given_NK.amax(-1, keepdim=True), maximum_N1)
    assert torch.equal(given_NK.argmax(-1), noise_NK.argmax(-1))
    plain = -(-maximum_N1).exp() + (-noise_NK.amax(-1, keepdim=True)).exp() - (-noise_NK).exp()
    torch.testing.assert_close(given_NK, -(-plain).log())
    for k in range(3):
        assert stats.kstest((given_NK[:, k] - log_probs_K[k]).numpy(), "gumbel_r").pvalue > P_VALUE
    for k, other in combinations(range(3), 2):  # jointly: the difference of two is logistic
        difference_N = given_NK[:, k] - given_NK[:, other] - log_probs_K[k] + log_probs_K[other]
        assert stats.kstest(difference_N.numpy(), "logistic").pvalue > P_VALUE


# Masked classes, precision, refusals.


@pytest.mark.parametrize("name", NAMES)
def test_masked_classes_are_never_sampled(name):
    """Nor do they get a gradient; in ARSM, whose weights do not know the logits, only one of mean 0."""
    shape = (3, 2) if name == "disarm" else (2, 3)
    for masked in range(shape[1]):
        rows_NLK, cost = problem(shape)
        rows_NLK = rows_NLK.clone()
        rows_NLK[:, 0, masked] = -math.inf
        seen = []
        _, gradient_NLK = run(build(name), rows_NLK, lambda z: (seen.append(z.detach()), cost(z))[1])  # noqa: B023
        assert all((z_SNLK[..., 0, masked] == 0).all() for z_SNLK in seen)
        assert gradient_NLK.isfinite().all()
        assert name == "arsm" or (gradient_NLK[:, 0, masked] == 0).all()
        assert z_scores(gradient_NLK, exact_gradient(rows_NLK[0], cost)[1]).abs().max() < MAX_Z
        assert gradient_NLK.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_without_a_gradient_to_give_the_cost_is_still_right(name):
    shape = (3, 2) if name == "disarm" else (2, 3)
    logits_BLK, cost = example_logits(4, *shape), problem(shape)[1]
    expected_B = run(build(name), logits_BLK, cost)[0]
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            torch.manual_seed(0)
            assert torch.equal(build(name)(logits_BLK, cost).cost_B.detach(), expected_B)


@pytest.mark.parametrize("name", NAMES)
def test_large_common_logits_do_not_blur_small_differences(name):
    """1e4 added to all logits of float32, on a grid that float32 keeps: the gradient is the same."""
    shape = (3, 2) if name == "disarm" else (2, 4)
    logits_BLK, cost = (example_logits(64, *shape) * 64).round().div(64).float(), problem(shape)[1]
    plain, shifted = (run(build(name), logits_BLK + c, cost)[1] for c in (0.0, 1e4))
    different = (~torch.isclose(plain, shifted, rtol=1e-4, atol=1e-5)).flatten(1).any(1).float().mean()
    assert different < 0.05  # a code on the edge


def test_refused_shapes():
    with pytest.raises(ValueError, match=r"^disarm: expected n_categories = 2, got 3\. Use disarm_sb\.$"):
        build("disarm").check_shape(2, 3)
    with pytest.raises(
        ValueError, match=r"^disarm: expected n_categories = 2, got 1\.$"
    ):  # disarm_sb has no use either
        build("disarm")(torch.zeros(1, 2, 1), lambda z_SBLK: z_SBLK.sum((-1, -2)))
    message = r"^unordered_set: expected n_samples <= n_categories\^n_latents, got 5 samples of 2\^2 = 4 codes\.$"
    with pytest.raises(ValueError, match=message):
        build("unordered_set", n_samples=5).check_shape(2, 2)
    with pytest.raises(ValueError, match=message):
        build("unordered_set", n_samples=5)(torch.zeros(1, 2, 2), lambda z_SBLK: z_SBLK.sum((-1, -2)))
    build("unordered_set", n_samples=4).check_shape(2, 2)
    build("unordered_set").check_shape(200, 10)
    for name in ("disarm_sb", "arsm"):
        build(name).check_shape(1, 1)


def test_counts_of_evaluations():
    counts = {name: build(name, n_samples=3).n_cost_evals(7, 5) for name in NAMES}
    assert counts == {"disarm": 6, "disarm_sb": 6, "arsm": 33, "unordered_set": 3}


def test_the_first_code_of_a_set_is_a_sample_and_the_log_probabilities_are_right():
    rows_NLK, cost = problem((3, 2))
    assert_law(codes_of(build("unordered_set"), rows_NLK, cost)[0], rows_NLK[0])
    torch.manual_seed(0)
    class_SNL, log_q_SN, _ = draw_set(rows_NLK, 4)
    torch.testing.assert_close(log_q_SN, log_prob(rows_NLK, class_SNL))
