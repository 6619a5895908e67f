"""What sections of a report share: the runs, the options, and what is computed from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from reports import comparison
from reports.comparison import Baseline, Metric, grouping
from reports.contract.stored_run import FINISHED
from reports.page.palette import Style, styles
from reports.page.wording import OTHER, VAE, Wording
from reports.store.frame import Runs
from reports.store.tasks import is_vae

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    baseline: str | None = None
    metric: str | None = None
    group_by: str | None = None
    title: str | None = None
    band: float | None = None  # the smallest difference that matters; by default what the task declares
    ui: str = ""  # address of the MLflow UI that shows the store
    refresh_s: int | None = None  # how often the page reloads itself


@dataclass(frozen=True)
class Context:
    """The runs of one task and the options of a report. Raises ReportError for an option that fits no run."""

    runs: Runs
    options: Options = field(default_factory=Options)
    coloured: pd.DataFrame | None = field(default=None, repr=False)  # runs that share the colours; by default these

    def __post_init__(self) -> None:
        _ = self.metrics, self.compared, self.baseline  # check the options now

    @property
    def frame(self) -> pd.DataFrame:
        """One row per run."""
        return self.runs.runs

    @property
    def history(self) -> pd.DataFrame:
        """One row per run and epoch."""
        return self.runs.history

    @property
    def title(self) -> str:
        return self.options.title or self.runs.experiment

    @cached_property
    def compared(self) -> pd.DataFrame:
        """What is ranked: the runs, or with ``--group-by`` their means over all that is not grouped by."""
        if self.options.group_by is None:
            return self.frame
        return grouping.grouped(self.frame, self.options.group_by, [metric.name for metric in self.metrics])

    @property
    def wording(self) -> Wording:
        """What the page calls things."""
        return VAE if is_vae(self.frame) else OTHER

    @property
    def left_out(self) -> list[str]:
        """Estimators that are in no group, because they are not in every one."""
        return [] if self.options.group_by is None else grouping.left_out(self.frame, self.options.group_by)

    @cached_property
    def metrics(self) -> list[Metric]:
        """The final metrics that there are, the one that was asked for first."""
        return comparison.metrics(self.frame, first=self.options.metric, band=self.options.band)

    @property
    def primary(self) -> Metric | None:
        """The metric that settings are ranked by; None where no run has one."""
        return self.metrics[0] if self.metrics else None

    @property
    def without_numbers(self) -> str:
        """Why there is nothing to compare, where there is no primary metric."""
        if (self.frame["status"] == FINISHED).any():
            return "None of the metrics that the task is compared by is stored"
        return "No run finished"

    @cached_property
    def baseline(self) -> Baseline:
        return comparison.choose_baseline(self.compared, self.options.baseline)

    @cached_property
    def styles(self) -> Mapping[str, Style]:
        """The style of every estimator label, the same in every figure."""
        frames = [self.frame] if self.compared is self.frame else [self.frame, self.compared]
        own = [pair for each in frames for pair in zip(each["estimator"], each["estimator_label"], strict=True)]
        if self.coloured is None:
            return styles(own)
        others = zip(self.coloured["estimator"], self.coloured["estimator_label"], strict=True)
        made, labels = styles([*own, *others]), {label for _, label in own}
        return {label: style for label, style in made.items() if label in labels}

    @cached_property
    def colour(self) -> dict[str, int]:
        """The colour of every estimator, as a number of the palette."""
        pairs = zip(self.frame["estimator"], self.frame["estimator_label"], strict=True)
        return {estimator: self.styles[label].colour for estimator, label in pairs}

    @cached_property
    def _levels(self) -> dict[str, pd.DataFrame]:
        return {metric.name: comparison.levels(self.compared, metric) for metric in self.metrics}

    @cached_property
    def _differences(self) -> dict[str, pd.DataFrame]:
        compared = [metric for metric in self.metrics if metric.compared]
        return {metric.name: comparison.differences(self.compared, metric, self.baseline) for metric in compared}

    def levels(self, metric: Metric) -> pd.DataFrame:
        """Return one row per setting and device, best first."""
        return self._levels[metric.name]

    def differences(self, metric: Metric) -> pd.DataFrame:
        """One row per setting and baseline setting; empty for a metric that is not compared."""
        return self._differences.get(metric.name, pd.DataFrame())

    @cached_property
    def curve(self) -> Metric | None:
        """What curves, targets and budgets show; None where the runs have no history of it."""
        return comparison.curve_metric(self.frame, self.history, self.primary)

    @cached_property
    def curve_history(self) -> pd.DataFrame:
        """The epochs at which that is a number."""
        if self.curve is None:
            return self.history.iloc[:0]
        return self.history[np.isfinite(self.history[self.curve.name].astype(float))]

    @property
    def is_shared(self) -> bool:
        """Whether times were taken while other runs shared the machine."""
        return bool(self.frame.loc[self.frame["status"] == FINISHED, "shared_machine"].any())

    def link(self, run: Mapping[Any, object]) -> str:
        """Return the address of a run in the MLflow UI; empty without a UI, or for what is no run of MLflow."""
        run_id, experiment = str(run.get("run_id", "")), str(run.get("experiment_id", ""))
        if not self.options.ui or not _RUN_ID.fullmatch(run_id) or not _NUMBER.fullmatch(experiment):
            return ""
        return f"{self.options.ui.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"


def best_settings(levels: pd.DataFrame, limit: int) -> Sequence[tuple[str, str]]:
    """Return at most ``limit`` settings (setting, device): all, or else the best of each estimator, then the best."""
    keys = list(zip(levels["setting"], levels["device"], strict=True))
    if len(keys) <= limit:
        return keys
    first = levels.drop_duplicates(["estimator_label", "device"]).head(limit)
    more = levels.drop(first.index).head(limit - len(first))
    kept = levels.loc[first.index.union(more.index)]
    return list(zip(kept["setting"], kept["device"], strict=True))
