"""What the files of this folder say about their estimators, in one place; a new file is found without being named.

Each may have NAIVE (name → the published formula as loops: gradient(estimator, logits_BLK, cost, seed)), MUTANTS
(estimators with one deliberate mistake, each under the name that it imitates), RIGHT (what they are made of, without
the mistake), REFUSED ((name, params, message)) and SETTINGS (name → further constructor arguments to try).
"""

from importlib import import_module
from pathlib import Path

import naive_formulas

_FAMILIES = [import_module(f"families.{path.stem}") for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))]
NAIVE = dict(naive_formulas.NAIVE)
MUTANTS: list[type] = []
RIGHT: list[type] = []
REFUSED: list[tuple[str, dict[str, object], str]] = []
SETTINGS: dict[str, list[dict[str, object]]] = {}
for _family in _FAMILIES:
    NAIVE |= getattr(_family, "NAIVE", {})
    MUTANTS += getattr(_family, "MUTANTS", [])
    RIGHT += getattr(_family, "RIGHT", [])
    REFUSED += getattr(_family, "REFUSED", [])
    SETTINGS |= getattr(_family, "SETTINGS", {})
