"""Gradient estimators for categorical variables. Needs torch only."""

from estimators.base import Cost, Estimate, Estimator, Pathwise, parameters, replace_gradient
from estimators.distribution import OneHotCategoricalPathwise
from estimators.draws_first import Draw, DrawsFirst
from estimators.functional import CodeDraw, draw_codes, expect, sample
from estimators.registry import REGISTRY, build
from estimators.unimix import with_unimix

__all__ = [
    "REGISTRY",
    "CodeDraw",
    "Cost",
    "Draw",
    "DrawsFirst",
    "Estimate",
    "Estimator",
    "OneHotCategoricalPathwise",
    "Pathwise",
    "build",
    "draw_codes",
    "expect",
    "parameters",
    "replace_gradient",
    "sample",
    "with_unimix",
]
