"""The configuration of one run: frozen, strict models of its settings, and the key that identifies it.

`harness.grid` makes many of these from a grid file. Nothing here imports torch, so that the command line starts fast.
"""

from harness.config.named import BasketConfig, DiagnosticsConfig, EstimatorConfig, TaskConfig, estimator_label
from harness.config.run import DEVICE, RunConfig, Sizes, check_splits, sections_of, sizes_of
from harness.config.sections import DataConfig, EvaluationConfig, ModelConfig, TrainingConfig

__all__ = [
    "DEVICE",
    "BasketConfig",
    "DataConfig",
    "DiagnosticsConfig",
    "EstimatorConfig",
    "EvaluationConfig",
    "ModelConfig",
    "RunConfig",
    "Sizes",
    "TaskConfig",
    "TrainingConfig",
    "check_splits",
    "estimator_label",
    "sections_of",
    "sizes_of",
]
