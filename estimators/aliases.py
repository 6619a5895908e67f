"""Other names of estimators, as papers and libraries have them: which key each one is here, or why it is none.

A name is recognised whatever its case, hyphens and spaces. It is never a key: grids and `build` refuse it with the key
to write, so that a run, its label and its stored parameters have one name (decision 15 in docs/decisions).
"""

from collections.abc import Iterable
from typing import NamedTuple

LONGEST = 100
"""A longer text is no name."""


class Alias(NamedTuple):
    """Names of one thing, as people write them; its key here, None if it is none; and what there is to say of it.

    `note` continues the sentence "NAME is KEY here", or tells what a thing is that is not here.
    """

    names: tuple[str, ...]
    key: str | None
    note: str = ""

    def sentence(self, name: str) -> str:
        """Return one line about a name."""
        return f"{name} is {self.key} here{self.note}." if self.key else f"{name} is no estimator here: {self.note}."


ALIASES = (
    Alias(("identity STE", "straight-through identity"), "identity_ste"),
    Alias(("deterministic straight-through", "ST-argmax", "hard argmax"), "argmax_ste"),
    Alias(
        ("STE", "ST", "straight-through estimator"),
        "straight_through",
        ", where the code is a sample; identity_ste ignores the softmax, argmax_ste the noise",
    ),
    Alias(("slope-annealed straight-through",), "straight_through", ", with a schedule of tau"),
    Alias(
        ("SIMPLE", "SIMPLE with k = 1"),
        "straight_through",
        ", at tau = 1 and for k = 1; subsets of more classes are not here",
    ),
    Alias(("ST-GS", "Gumbel straight-through", "hard Gumbel-Softmax", "straight-through GS"), "st_gumbel_softmax"),
    Alias(("straight-through Gumbel-Softmax",), "st_gumbel_softmax"),
    Alias(("Rao-Gumbel", "GR", "GR-MC", "Rao-Blackwellised ST-GS", "Rao-Blackwellized ST-GS"), "gumbel_rao"),
    Alias(("GST", "gapped straight-through"), "gapped_st"),
    Alias(("decoupled straight-through", "decoupled Gumbel-Softmax"), "decoupled_st_gs"),
    Alias(("ZGR", "zero-temperature Gumbel-Rao"), "zgr", ", the same as reinmax at tau = 1"),
    Alias(("half-DARN", "1/2-DARN"), "darn"),
    Alias(
        ("ReDGE hard", "diffusion reparameterisation", "diffusion reparameterization"),
        "redge",
        ", with one-hot codes; redge_soft has the soft ones",
    ),
    Alias(("implicit MLE", "implicit maximum likelihood estimation"), "imle"),
    Alias(("adaptive IMLE", "adaptive implicit maximum likelihood estimation"), "aimle"),
    Alias(("GS", "Gumbel", "Concrete", "Concrete distribution", "relaxed categorical"), "gumbel_softmax"),
    Alias(("sparsemax",), "gumbel_sparsemax", ", as a relaxation; sparse_marginal sums over its support"),
    Alias(("entmax",), "gumbel_entmax"),
    Alias(("soft-argmax", "deterministic softmax"), "softmax"),
    Alias(("invertible Gaussian reparameterisation", "invertible Gaussian reparameterization"), "igr"),
    Alias(("perturbed optimizer", "differentiable perturbed optimizer", "perturbed maximum"), "perturbed_argmax"),
    Alias(
        ("score function", "SFE", "likelihood ratio", "log-derivative trick", "policy gradient", "BBVI"),
        "reinforce",
        "; with a baseline, rloo",
    ),
    Alias(("EMA baseline", "moving-average baseline", "REINFORCE with baseline"), "reinforce_ema"),
    Alias(("neural variational inference and learning", "input-dependent baseline", "learned baseline"), "nvil"),
    Alias(("LOORF", "LOO", "leave-one-out", "REINFORCE leave-one-out", "multi-sample REINFORCE"), "rloo"),
    Alias(("VarGrad",), "rloo", ", if log q is part of the cost, as a number"),
    Alias(("IWAE", "variational inference for Monte Carlo objectives"), "vimco", ", whose objective is that bound"),
    Alias(("LAX",), "relax", ", its form for categorical variables"),
    Alias(("double control variates", "RLOO with control variates"), "double_cv"),
    Alias(("ARM", "augment-REINFORCE-merge"), "arsm", ", with two classes"),
    Alias(("categorical DisARM", "stick-breaking DisARM"), "disarm_sb"),
    Alias(("U2G", "unbiased uniform gradient", "binary DisARM"), "disarm"),
    Alias(("ARMS", "antithetic REINFORCE"), "carms", ", its form for categorical variables"),
    Alias(("LEG", "local expectation gradient", "local expectation gradients", "CatLog-derivative"), "indecater"),
    Alias(("REINFORCE without replacement", "sampling without replacement"), "unordered_set"),
    Alias(("enumeration", "marginalisation", "marginalization", "brute force"), "exact"),
    Alias(("sparse marginalisation", "sparse marginalization"), "sparse_marginal"),
    Alias(
        ("Gumbel-max", "Gumbel-max trick"),
        None,
        "it is how codes are drawn; gumbel_softmax and st_gumbel_softmax have a gradient through it",
    ),
    Alias(
        ("reparameterisation trick", "reparameterization trick"),
        None,
        "codes of categorical variables have none; gumbel_softmax has one of soft codes",
    ),
    Alias(
        ("VQ", "VQ-VAE", "vector quantisation", "vector quantization"),
        None,
        "it has no logits; argmax_ste is similar",
    ),
    Alias(
        ("GRPO",),
        None,
        "it divides by the standard deviation of the costs, which is biased; rloo is similar, and is not",
    ),
    Alias(
        ("RODEO", "discrete Stein operators"),
        None,
        "at equal time more codes of rloo have less variance; double_cv is similar",
    ),
    Alias(("stochastic softmax tricks", "SparseMAP"), None, "it is for variables with a structure, such as trees"),
    Alias(("Gumbel-Sinkhorn",), None, "it is for permutations"),
    Alias(("Fenchel-Young loss", "Fenchel-Young"), None, "it is a loss for codes that are observed"),
    Alias(
        ("GenGS", "generalised Gumbel-Softmax"),
        None,
        "it is for laws such as Poisson's, not for a fixed number of classes",
    ),
    Alias(("hard Concrete",), None, "it is for binary gates that are exactly 0 or 1; gumbel_softmax is similar"),
)
"""In the order of the registry; then what is not here."""


def plain(name: str) -> str:
    """Return a name without case, hyphens, spaces and the like: "Gumbel-Softmax" and gumbel_softmax are the same."""
    return "".join(character for character in name.casefold() if character.isalnum())


_BY_NAME = {plain(name): (name, alias) for alias in ALIASES for name in alias.names}


def key_of(name: object, known: Iterable[str]) -> str | None:
    """Return which of the known keys a name means: one that is spelt otherwise, or an alias. None if it is neither."""
    if not isinstance(name, str) or len(name) > LONGEST:
        return None
    keys = {plain(key): key for key in known}
    _, alias = _BY_NAME.get(plain(name), ("", None))
    return keys.get(plain(name)) or (alias.key if alias and alias.key in keys.values() else None)


def meaning_of(name: object, known: Iterable[str]) -> str:
    """Return a sentence with the key that a name stands for, or why there is none; empty if the name is unknown."""
    if not isinstance(name, str) or len(name) > LONGEST or not plain(name):
        return ""
    known = list(known)
    shown, alias = _BY_NAME.get(plain(name), (name, None))
    key = key_of(name, known)
    if alias is not None and alias.key in (key, None):
        return alias.sentence(shown)
    return f"Did you mean {key!r}?" if key else ""


def names_of(key: str) -> list[str]:
    """Return the other names of an estimator."""
    return [name for alias in ALIASES if alias.key == key for name in alias.names]


def table() -> str:
    """Return a Markdown table of all of them."""
    rows = [("name elsewhere", "here"), ("---", "---")]
    rows += [
        (", ".join(alias.names), f"`{alias.key}`{alias.note}" if alias.key else f"– ({alias.note})")
        for alias in ALIASES
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
