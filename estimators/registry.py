"""All built-in estimators by name, and how one is built."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from estimators.aimle import AIMLE
from estimators.aliases import meaning_of
from estimators.arsm import ARSM
from estimators.base import Estimator, parameters
from estimators.baselines import NVIL, ReinforceEMA
from estimators.carms import CARMS
from estimators.disarm import DisARM, DisARMStickBreaking
from estimators.double_cv import DoubleCV
from estimators.exact import Exact
from estimators.gapped_st import GappedST
from estimators.gaussian import GaussianSoftmax
from estimators.gumbel_entmax import GumbelEntmax, GumbelSparsemax
from estimators.gumbel_rao import GumbelRao
from estimators.gumbel_softmax import DecoupledSTGS, GumbelSoftmax, STGumbelSoftmax
from estimators.igr import IGR
from estimators.imle import IMLE
from estimators.indecater import IndeCateR
from estimators.muprop import MuProp
from estimators.mve import MVE
from estimators.perturbed import PerturbedArgmax
from estimators.rebar import Rebar, Relax
from estimators.redge import ReDGE, ReDGESoft
from estimators.reinmax import ZGR, Darn, ReinMax, ReinMaxRao
from estimators.score_function import RLOO, Reinforce
from estimators.softmax import Softmax
from estimators.sparse_marginal import SparseMarginal
from estimators.straight_through import ArgmaxSTE, IdentitySTE, StraightThrough
from estimators.sum_and_sample import SumAndSample
from estimators.unimix import UNIMIX, with_unimix
from estimators.unordered_set import UnorderedSet
from estimators.vimco import VIMCO

_ESTIMATORS: tuple[type[Estimator], ...] = (
    IdentitySTE,
    ArgmaxSTE,
    StraightThrough,
    STGumbelSoftmax,
    GumbelRao,
    GappedST,
    DecoupledSTGS,
    ReinMax,
    ZGR,
    Darn,
    ReinMaxRao,
    MVE,
    ReDGE,
    IMLE,
    AIMLE,
    GumbelSoftmax,
    GumbelSparsemax,
    GumbelEntmax,
    Softmax,
    GaussianSoftmax,
    IGR,
    ReDGESoft,
    PerturbedArgmax,
    Reinforce,
    ReinforceEMA,
    NVIL,
    RLOO,
    VIMCO,
    MuProp,
    Rebar,
    Relax,
    DoubleCV,
    ARSM,
    DisARMStickBreaking,
    DisARM,
    CARMS,
    IndeCateR,
    SumAndSample,
    UnorderedSet,
    Exact,
    SparseMarginal,
)

REGISTRY: Mapping[str, type[Estimator]] = MappingProxyType({cls.name: cls for cls in _ESTIMATORS})
"""Every built-in estimator by its name."""


def build(name: str, registry: Mapping[str, type[Estimator]] = REGISTRY, /, **params: Any) -> Estimator:
    """Return an estimator by name.

    Every estimator whose codes follow softmax(logits) also takes `unimix`, the share of the uniform law that is mixed
    into that of its codes (`with_unimix`), unless it has a parameter of that name.

    Raises ValueError, in one line, for an unknown name or parameter or an impossible value.
    """
    if name not in registry:
        hint = meaning_of(name, registry) or _suggestion(name, registry) or f"Known: {', '.join(registry)}."
        raise ValueError(f"estimator: expected one of {len(registry)} names, got {name!r}. {hint}")
    cls = registry[name]
    known = parameters(cls)
    unimix = 0.0 if UNIMIX in known else params.pop(UNIMIX, 0.0)
    for key in params:
        if key not in known:
            rule = f"parameters among {', '.join(known)}" if known else "no parameters"
            hint = _suggestion(key, [*known, UNIMIX])
            raise ValueError(f"{name}: expected {rule}, got {key!r}.{hint and ' '}{hint}")
    return with_unimix(cls(**params), unimix)


def _suggestion(word: object, known: Iterable[str]) -> str:
    close = get_close_matches(str(word), known, n=1)
    return f"Did you mean {close[0]!r}?" if close else ""
