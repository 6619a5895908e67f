"""One example of every estimator as a function of its logits and a decoder, for torch.func and for derivatives."""

import torch
from estimator_cases import make

from estimators import REGISTRY
from estimators.gumbel import exponential, given
from estimators.redge import last_logits
from estimators.reference_problem import cubic_cost, example_shape, example_weights, logits_for

LEARN = ("reinforce_ema", "nvil", "rebar", "relax", "double_cv", "aimle")
"""Estimators that learn from call to call: under torch.func in evaluation mode only."""
EXACT = (
    "softmax", "gumbel_softmax", "gaussian_softmax", "igr", "gumbel_sparsemax", "gumbel_entmax", "redge_soft",
    "exact", "sparse_marginal",
)  # fmt: skip
"""Estimators whose gradient is that of a function of the logits: they have all derivatives, for fixed noise."""
SURROGATE = {
    "identity_ste": lambda theta, noise: theta,
    "argmax_ste": lambda theta, noise: theta.softmax(-1),
    "straight_through": lambda theta, noise: theta.softmax(-1),
    "st_gumbel_softmax": lambda theta, noise: (theta + noise).softmax(-1),
    "decoupled_st_gs": lambda theta, noise: (theta + noise).softmax(-1),
    "redge": lambda theta, noise: soft_redge(theta),
}
"""Estimators whose codes have all derivatives of a smooth surrogate s(θ, noise)."""
ONCE = ("gumbel_rao", "reinmax_rao", "imle", "aimle")
"""Pathwise estimators whose backward pass has no derivative at all."""
MIXED_REFUSED = [
    name
    for name, cls in REGISTRY.items()
    if name in ONCE or (name not in (*EXACT, *SURROGATE) and (cls.black_box or cls.unbiased))
]
"""Estimators whose gradient has no derivative in the decoder either."""
BREAKS = dict.fromkeys(("rebar", "relax"), 8)
"""Estimators that torch.compile splits into several graphs, and into how many at most: autograd inside forward."""
SEED = 5


def ready(name, n_examples=3):
    """Return the estimator, prepared and in evaluation mode, its logits (B, L, H) and a decoder (L, K)."""
    estimator = make(name, **({"lam": 5.0} if name == "imle" else {}))
    torch.manual_seed(0)
    shape = example_shape(estimator)
    estimator.prepare(*shape)
    return estimator.double().eval(), logits_for(estimator, n_examples), example_weights(*shape)


def total(estimator):
    """Return the function (logits, decoder) → cost, a scalar; logits of one example or of a batch."""

    def function(logits, weights_LK):
        batch = logits if logits.ndim == 3 else logits.unsqueeze(0)
        return estimator(batch, cubic_cost(weights_LK)).cost_B.sum()

    return function


def gradient(function, inputs, index, *, create_graph=False):
    """Return the gradient of the function in one of its inputs, and copies of these; noise from SEED."""
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    torch.manual_seed(SEED)
    return torch.autograd.grad(function(*leaves), leaves[index], create_graph=create_graph)[0], leaves


def plain(name):
    """Return values (B,) and gradients of each example, in the logits and in the decoder: by a loop of backwards."""
    estimator, logits_BLH, weights_LK = ready(name)
    function, found = total(estimator), []
    for logits_LH in logits_BLH:
        leaves = [each.clone().requires_grad_() for each in (logits_LH, weights_LK)]
        torch.manual_seed(SEED)
        value = function(*leaves)
        found.append((value.detach(), *torch.autograd.grad(value, leaves)))
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def constant_noise(monkeypatch):
    """Give Gumbel-Rao the same noise with and without torch.func, where it draws in another order."""

    def entries(n_draws, n_latents, n_classes):
        numbers = torch.linspace(1.0, 100.0, n_draws * n_latents * n_classes, dtype=torch.float64).cos()
        return (0.01 + numbers.square()).view(n_draws, n_latents, n_classes)

    def in_backward(n_draws, like_KN, generator):
        yield -entries(n_draws, *like_KN.T.shape).transpose(1, 2)

    def in_forward(law_SBLK, class_SBL, n_draws):  # where the noise of the sampled class does not come first
        noise_MNK = entries(n_draws, class_SBL.numel(), law_SBLK.shape[-1])
        noise_MSBLK, own_SBL1 = noise_MNK.view(n_draws, *class_SBL.shape, -1), class_SBL.unsqueeze(-1)
        place_SBLK = torch.arange(law_SBLK.shape[-1]).expand(law_SBLK.shape)
        place_SBLK = torch.where(place_SBLK == own_SBL1, 0, torch.where(place_SBLK == 0, own_SBL1, place_SBLK))
        return given(law_SBLK, class_SBL, noise_MSBLK.gather(-1, place_SBLK.expand(noise_MSBLK.shape)).log())

    monkeypatch.setattr("estimators.rao_slope.stratified", in_backward)
    monkeypatch.setattr("estimators.gumbel_rao.relaxations", in_forward)


def soft_redge(logits_BLK):
    """Return the soft codes of redge with the noise of SEED, which comes after that of the codes."""
    torch.manual_seed(SEED)
    exponential((1, *logits_BLK.shape), like=logits_BLK)
    return last_logits(logits_BLK, 1, 5, 0.5).softmax(-1)


def smooth(name, estimator, logits_BLH):
    """Return θ ↦ D + s(θ) − s(θ₀) with the noise of SEED: the code, and all derivatives of its surrogate."""
    torch.manual_seed(SEED)
    noise = -exponential((1, *logits_BLH.shape), like=logits_BLH).log()
    torch.manual_seed(SEED)
    code = estimator.sample(logits_BLH).detach()
    start = SURROGATE[name](logits_BLH, noise)
    return lambda theta: code + SURROGATE[name](theta, noise) - start
