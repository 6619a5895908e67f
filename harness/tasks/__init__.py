"""Tasks: models with categorical variables, their data, objectives and measures."""

from harness.measures import Measure
from harness.tasks.splits import Batch, NoData, Splits
from harness.tasks.task import Loss, OneLayerTask, Task

__all__ = ["Batch", "Loss", "Measure", "NoData", "OneLayerTask", "Splits", "Task"]
