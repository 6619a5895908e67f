"""Gradient estimators for categorical variables. Needs torch only."""

from estimators.base import Cost, Estimate, Estimator, Pathwise, parameters, replace_gradient
from estimators.registry import REGISTRY, build

__all__ = ["REGISTRY", "Cost", "Estimate", "Estimator", "Pathwise", "build", "parameters", "replace_gradient"]
