"""The estimators that the tests iterate: the registry in several settings, and the examples of a user's own."""

from runpy import run_path

from families import SETTINGS
from paths import ROOT

from estimators import REGISTRY, Estimator, build, parameters

PLUGINS = ROOT / "experiments" / "plugins"
HeavyTailSoftmax: type[Estimator] = run_path(str(PLUGINS / "heavy_tail_softmax.py"))["HeavyTailSoftmax"]
LogisticSoftmax: type[Estimator] = run_path(str(PLUGINS / "entry_point_example" / "logistic_softmax.py"))[
    "LogisticSoftmax"
]
ALL: dict[str, type[Estimator]] = {
    **REGISTRY,
    HeavyTailSoftmax.name: HeavyTailSoftmax,
    LogisticSoftmax.name: LogisticSoftmax,
}
BIASED = [name for name, cls in ALL.items() if not cls.unbiased]
UNBIASED = [name for name, cls in ALL.items() if cls.unbiased]


def settings(name: str) -> list[dict[str, object]]:
    """Defaults, one setting for each parameter that several estimators share, then those of the family."""
    others = {"tau": 0.5, "n_samples": 3, "alpha": 1.3}
    return [{}, *({key: others[key]} for key in parameters(ALL[name]) if key in others), *SETTINGS.get(name, [])]


CASES = [(name, params) for name in ALL for params in settings(name)]
IDS = [f"{name}({', '.join(f'{key}={value}' for key, value in params.items())})" for name, params in CASES]


def examples(name: str) -> dict[str, object]:
    """Values of the parameters that must be given."""
    return dict(ALL[name].examples) if name in ALL else {}


def make(name: str, **params: object) -> Estimator:
    return build(name, ALL, **{**examples(name), **params})
