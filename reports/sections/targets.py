"""How long it takes to be as good as something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from reports import statistics as st
from reports.comparison import Metric
from reports.contract.settings import distinct, in_quotes, joined
from reports.contract.stored_run import FINISHED
from reports.page import numbers, palette
from reports.page.axes import finish, legend, one_panel
from reports.page.blocks import Block, Heading, How, Pictures, Section, Tabular, Words
from reports.page.context import Context, best_settings
from reports.page.svg import Panel, inline
from reports.page.table import Cell, Column, Table
from reports.store.frame import IDENTITY, WORST

MAX_LINES = 8
HOW = (
    "The share of a setting’s runs whose {metric} has come {down} to the target, against steps and against seconds of "
    "training. A run that never does counts as not reached, a failed or diverged one too; one that was cut short "
    "leaves the count where it ended. The targets are what settings reach in the median at their end: at least nine "
    "of ten (easy), and the better half (middle)."
)
UNITS = {"step": "training step", "elapsed_s": "training time, s"}


class Times(NamedTuple):
    """When each run of a setting was at the target, ``inf`` if never, and until when it was watched."""

    reached: np.ndarray
    watched: np.ndarray


def section(context: Context) -> Section:
    """Show for two targets the curves of the share that has reached them, and the median times as a table."""
    metric = context.curve
    ends = _final_medians(context)
    if metric is None or ends.empty:
        has_finished = (context.frame["status"] == FINISHED).any()
        text = "The runs have values at their end alone." if has_finished else "No run has finished yet."
        return Section("targets", "Time to target", [Words(text, "empty")])
    blocks: list[Block] = []
    units = [x for x in UNITS if context.curve_history[x].notna().any()]  # logs of others may have no times
    for name, target in targets(ends, metric).items():
        runs = _watched(context)
        blocks.append(Heading(f"Target {numbers.fixed(target, metric.digits)}", f"{name}; {metric.axis}"))
        shown = _shown(context, ends)
        panels = [_panel(context, {key: runs[key] for key in shown if key in runs}, metric, x, target) for x in units]
        blocks.append(Pictures(f"targets-{name}", panels, legend=name == "easy"))
        table, frame = _table(runs, metric, target, name, units)
        blocks.append(Tabular(table, "targets", frame))
    return Section(
        "targets",
        "Time to target",
        [*blocks, How(HOW.format(metric=metric.name, down="down" if metric.sign > 0 else "up"))],
    )


def targets(ends: pd.Series, metric: Metric) -> dict[str, float]:
    """Return what nine of ten settings reach, and what half of them reach; one target if they are the same."""
    turned = metric.sign * ends
    easy, middle = (metric.sign * float(turned.quantile(share, "higher")) for share in (0.9, 0.5))
    return {"easy": easy, "middle": middle} if middle != easy else {"easy": easy}


def _watched(context: Context) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the epochs of every run, by setting and device.

    A run that failed before its first epoch has a row too.
    """
    history = context.curve_history
    failed = context.frame[context.frame["status"].isin(WORST)]
    without = failed[~failed["run_key"].isin(history["run_key"])]
    both = pd.concat([history, without[list(IDENTITY)]], ignore_index=True) if len(without) else history
    groups = both.groupby(["setting", "device"], sort=True)
    return {(str(key[0]), str(key[1])): group for key, group in groups}


def _final_medians(context: Context) -> pd.Series:
    """Return the median over seeds of the last value of each setting and device."""
    finished = context.curve_history[context.curve_history["status"] == FINISHED]
    if finished.empty or context.curve is None:
        return pd.Series(dtype=float)
    last = finished.sort_values("epoch").groupby(["setting", "device", "run_key"])[context.curve.name].last()
    return last.groupby(level=[0, 1]).median()


def _shown(context: Context, ends: pd.Series) -> Sequence[tuple[str, str]]:
    """Return the settings that get a line: few enough to be told apart."""
    label = context.frame.drop_duplicates(["setting", "device"]).set_index(["setting", "device"])["estimator_label"]
    is_lower = context.curve is None or context.curve.sign > 0
    order = ends.sort_values(kind="stable", ascending=is_lower).rename("end").to_frame()
    order["estimator_label"] = label.reindex(order.index)
    return best_settings(order.reset_index(), MAX_LINES)


def times(runs: pd.DataFrame, metric: Metric, x: str, target: float) -> Times:
    """Return the first time at the target of every run of a setting."""
    ordered = runs.sort_values(["run_key", "epoch"], kind="stable")
    keys, status = ordered["run_key"].to_numpy(), ordered["status"].to_numpy()
    at, value = ordered[x].to_numpy(dtype=float), metric.sign * ordered[metric.name].to_numpy(dtype=float)
    reached, watched = [], []
    for rows_of_run in np.split(np.arange(len(keys)), np.flatnonzero(keys[1:] != keys[:-1]) + 1):
        known = rows_of_run[np.isfinite(at[rows_of_run]) & np.isfinite(value[rows_of_run])]
        reached.append(st.time_to_target(at[known], value[known], metric.sign * target) if len(known) else math.inf)
        is_cut_short = status[rows_of_run[0]] not in (*WORST, FINISHED)  # a finished run has spent its budget
        watched.append(at[known[-1]] if is_cut_short and len(known) else math.inf)
    return Times(np.array(reached), np.array(watched))


def _median(found: Times) -> float:
    """Return the median over runs, ``inf`` for those that never reach; by Kaplan and Meier if some were cut short."""
    is_cut_short = np.isinf(found.reached) & np.isfinite(found.watched)
    return st.median_time(*found) if is_cut_short.any() else st.median(found.reached)


def _panel(
    context: Context, runs: Mapping[tuple[str, str], pd.DataFrame], metric: Metric, x: str, target: float
) -> Panel:
    with one_panel(f"target-{x}-{target}") as (figure, axes):
        spoken, last = [], max(float(group[x].max()) for group in runs.values())
        there = {_kind(group) for group in runs.values()} - {(None, "")}
        kinds = sorted(there, key=lambda kind: joined(*kind))
        for (setting, _), group in runs.items():
            label, kind = str(group["estimator_label"].iloc[0]), _kind(group)
            how, found = context.styles[label], times(group, metric, x, target)
            dash = kinds.index(kind) if kind in there else how.dash
            at, share = st.reached_share(found.reached, found.watched)
            at, share = np.append(at, last), np.append(share, share[-1])
            axes.step(at, share, where="post", color=how.hex, linewidth=1.9, linestyle=palette.line(dash))
            spoken.append(f"{setting}: {100 * share[-1]:.0f} %")
        finish(axes, _condition(metric, target), UNITS[x], "share of runs")
        if len(kinds) > 1:
            lines = [Line2D([], [], color=palette.INK, linestyle=palette.line(i)) for i in range(len(kinds))]
            legend(axes, lines, _names(kinds), 40, fontsize=7.5)
        axes.set_ylim(-0.02, 1.03)
        axes.set_xlim(0, 1.03 * last)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        alt = f"Share of runs that have reached {target:.{metric.digits}f}, by {UNITS[x]}. {'; '.join(spoken)}."
        return inline(figure, alt)


def _condition(metric: Metric, target: float) -> str:
    return f"{metric.name} {'≤' if metric.sign > 0 else '≥'} {numbers.fixed(target, metric.digits)}"


def _kind(group: pd.DataFrame) -> tuple[str | None, str]:
    """Return what a dash stands for: the schedule and the other axes of a setting."""
    schedule, axes = group["schedule_label"].iloc[0], str(group["axes"].iloc[0])
    return None if pd.isna(schedule) else str(schedule), axes


def _names(kinds: Sequence[tuple[str | None, str]]) -> list[str]:
    return list(distinct(kinds, lambda kind: joined(*kind), lambda kind: in_quotes(None, *kind)).values())


def _table(
    runs: Mapping[tuple[str, str], pd.DataFrame], metric: Metric, target: float, name: str, units: Sequence[str]
) -> tuple[Table, pd.DataFrame]:
    rows, results = [], []
    columns = [
        Column("Setting", numeric=False, term="setting"),
        Column("Device", numeric=False),
        Column("Reached", meaning="runs that were at the target, of those tried", term="target"),
        Column("Steps", meaning="median over runs", term="target"),
        *([Column("Seconds", meaning="median over runs, training only", term="target")] if len(units) > 1 else []),
    ]
    for (setting, device), group in runs.items():
        found = {x: times(group, metric, x, target) for x in UNITS}
        n, reached = len(found["step"].reached), int(np.isfinite(found["step"].reached).sum())
        medians = {x: _median(each) for x, each in found.items()}
        results.append({"target": target, "kind": name, "setting": setting, "device": device, "n": n,
                        "reached": reached, "median_steps": medians["step"],
                        "median_seconds": medians["elapsed_s"]})  # fmt: skip
        texts = {x: f"{value:,.{digits}f}" if math.isfinite(value) else "not reached"
                 for (x, value), digits in zip(medians.items(), (0, 1), strict=True)}  # fmt: skip
        rows.append([
            Cell(str(setting), str(setting), estimator=str(group["estimator"].iloc[0])), Cell(str(device), str(device)),
            Cell(f"{reached} of {n}", reached / n, tone="warn" if reached < n else ""),
            *(Cell(texts[x], medians[x] if math.isfinite(medians[x]) else 1e300) for x in units),
        ])  # fmt: skip
    rows.sort(key=lambda row: float(row[3].sort or 0))
    caption = f"Median time until {_condition(metric, target)} ({name} target)"
    return Table(caption, columns, rows), pd.DataFrame(results)
