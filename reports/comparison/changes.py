"""Changes of each setting from one sweep to another, paired by seed. Pure functions of two tidy frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.comparison.differences import Pairs, by_seed, equivalence_of, to_pairs
from reports.comparison.levels import SETTING
from reports.comparison.metrics import Metric
from reports.contract.stored_run import FINISHED, LATENT_PREFIX, STEP_MEDIAN_S, TEST_PREFIX


def changes(frames: Sequence[pd.DataFrame], metric: Metric) -> pd.DataFrame:
    """Return one row per setting and device that both sweeps have: levels, and the paired difference second − first.

    The worst change comes first.
    """
    tried = [by_seed(frame, metric) for frame in frames]
    about = frames[1].drop_duplicates(SETTING).set_index(SETTING)
    steps, same = [_step_s(frame) for frame in frames], _equal(frames)
    rows = [
        {
            **dict(zip(SETTING, key, strict=True)),
            **{name: about.loc[key, name] for name in ("estimator", "estimator_label")},
            **_change([each[key] for each in tried], metric),
            "same": key in same,
            "step_ratio": steps[1].get(key, math.nan) / steps[0].get(key, math.nan),
        }
        for key in sorted(tried[0].keys() & tried[1].keys())
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["same"] &= frame["n_bad"] == 0
    order = frame.assign(mean=metric.sign * frame["mean"])
    order = order.sort_values(["mean", "setting"], ascending=[False, True], kind="stable")
    return frame.loc[order.index].reset_index(drop=True)


def _change(values: Sequence[Mapping[int, float]], metric: Metric) -> dict[str, object]:
    """Return both levels of a setting, and the statistics of its pairs."""
    pairs = _pairs(*values)
    interval = metric.turned(st.t_interval(pairs.finite))
    levels = [np.array(list(each.values()), dtype=float) for each in values]
    return {
        **{f"mean_{i}": metric.sign * st.mean(each[np.isfinite(each)]) for i, each in enumerate(levels, 1)},
        **{f"failed_{i}": int(np.isinf(each).sum()) for i, each in enumerate(levels, 1)},
        "n_pairs": len(pairs.all),
        "n_bad": pairs.n_bad,
        "mean": metric.sign * st.mean(pairs.finite),
        "low": interval.low,
        "high": interval.high,
        "equivalence": equivalence_of(pairs, metric),
    }


def _pairs(first: Mapping[int, float], second: Mapping[int, float]) -> Pairs:
    """Return the differences second − first at the seeds of both."""
    seeds = sorted(first.keys() & second.keys())
    values = [np.array([each[seed] for seed in seeds], dtype=float) for each in (second, first)]
    return to_pairs(*values)


def _equal(frames: Sequence[pd.DataFrame]) -> set[tuple[str, str]]:
    """Return the settings and devices whose finished runs have the same final numbers in both sweeps."""
    names = [name for name in frames[0] if str(name).startswith((TEST_PREFIX, LATENT_PREFIX)) and name in frames[1]]
    both = shared_runs([frame[frame["status"] == FINISHED] for frame in frames])
    same = pd.Series(True, index=both.index)
    for name in names:
        one, other = both[f"{name}_1"], both[f"{name}_2"]
        same &= (one == other) | (one.isna() & other.isna())
    alike = same.groupby([both["setting"], both["device"]]).all()
    return {(str(setting), str(device)) for setting, device in alike.index[alike]}


def shared_runs(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the runs with the same setting, device and seed in both, side by side: columns end in _1 and _2."""
    on = [*SETTING, "seed"]
    known = [frame[frame["seed"].notna()].drop_duplicates(on) for frame in frames]
    left, right = (frame.rename(columns={name: f"{name}_{i}" for name in frame if name not in on})
                   for i, frame in enumerate(known, 1))  # fmt: skip
    return left.merge(right, on=on)


def _step_s(frame: pd.DataFrame) -> Mapping[tuple[str, str], float]:
    if STEP_MEDIAN_S not in frame:
        return {}
    finished = frame[frame["status"] == FINISHED]
    found = finished.groupby(SETTING)[STEP_MEDIAN_S].median()
    return dict(zip(map(tuple, found.index), map(float, found), strict=True))


def change_points(frames: Sequence[pd.DataFrame], metric: Metric, rows: pd.DataFrame) -> list[np.ndarray]:
    """Return the differences behind each row of `changes`, one per pair in which both finished."""
    first, second = (by_seed(frame, metric) for frame in frames)
    return [
        metric.sign * _pairs(first[key], second[key]).finite
        for key in zip(rows["setting"], rows["device"], strict=True)
    ]
