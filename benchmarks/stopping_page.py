"""The page of `benchmarks/stopping.py`: tables from its figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import record

from reports.statistics.sequential import AT_LEAST, AT_MOST


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}".replace("-", "−")


def fixed_cells(row: dict, longest: int) -> list[str]:
    """Return the seeds and runs of the fixed design of the same power, and the share of its runs that is saved."""
    seeds = row["fixed_seeds"]
    if seeds is None:
        return ["–", "–", "–"]
    n, more = (seeds, "") if seeds < math.inf else (longest, "> ")
    runs = n * row["settings"]
    return [f"{more}{n}", f"{more}{runs}", more + percent(1 - row["runs"] / runs, 0)]


def sweep_table(rows: Sequence[dict], longest: int) -> list[str]:
    headings = ["means, differences, end", "best dropped", "false", "decided rightly", "runs", "of all runs"]
    headings += ["fixed: seeds", "runs", "saved"]
    lines = []
    for row in rows:
        end = {"all": f"band {row['band']:g}", "any": f"any within {row['band']:g}"}[row["within"]]
        rates = [percent(row[name]) for name in ("dropped_best", "false", "right")]
        share = percent(row["runs"] / row["settings"] / AT_MOST, 0)
        line = [
            f"{row['means']}, {row['noise']}, {end}",
            *rates,
            f"{row['runs']:.1f}",
            share,
            *fixed_cells(row, longest),
        ]
        lines.append(line)
    return record.table(headings, lines)


def boundary_table(rows: Sequence[dict]) -> list[str]:
    headings = ["settings, boundary", "n = 3", "5", "10", "30", "runs, spread", "decided", "best dropped, equal"]
    lines = []
    for row in rows:
        widths = [f"{row[f'width_{n}']:.2f}".replace("inf", "∞") for n in (3, 5, 10, 30)]
        shares = [percent(row["decided"]), percent(row["dropped_best"])]
        lines.append([f"{row['settings']}, {row['boundary']}", *widths, f"{row['runs']:.1f}", *shares])
    return record.table(headings, lines)


def page(figures: Mapping[str, Any], longest: int) -> list[str]:
    """Return the lines of the page; `longest` is the largest fixed design that was looked at, in seeds."""
    lines = [
        f"Looks after each of the seeds {AT_LEAST} to {AT_MOST}, alpha 0.05. Shares in per cent. The unit of means and "
        "band is the standard deviation of a difference of two settings. *false*: the best was dropped, or a setting "
        "was called within the band that is not. *decided rightly*: it ended with a true statement. *of all runs*: "
        "runs over settings × 30. *fixed*: the smallest design with equally many seeds for all settings that decides "
        "as often, by one look at the same level; *saved*: the share of its runs. –: nothing or hardly anything is "
        "decided. At equal means any setting is a best one; setting 0 stands for it.",
    ]
    for n_settings in sorted({row["settings"] for row in figures["sweeps"]}):
        rows = [row for row in figures["sweeps"] if row["settings"] == n_settings]
        error = percent(math.sqrt(0.05 * 0.95 / rows[0]["repetitions"]))
        lines += [
            "",
            f"## {n_settings} settings",
            f"{rows[0]['repetitions']} sweeps a row: standard error {error} at 5 %.",
        ]
        lines += ["", *sweep_table(rows, longest)]
    edges_table = [
        [f"{row['settings']}, {row['noise']}, {row['within']} within"]
        + [percent(row[name]) for name in ("dropped_best", "false", "right")]
        for row in figures["edges"]
    ]
    levels_table = [
        [f"{100 * row['alpha']:.3f}", *(f"{100 * row[name]:.3f}" for name in ("normal", "heavy (t3)"))]
        for row in figures["levels"]
    ]
    lines += [
        "",
        "## All others just outside of the band",
        "All others are worse by 0.5, which is the band, and a ten-thousandth of it more: the case in which a false "
        "statement about the band is most likely.",
        "",
        *record.table(["settings, differences, end", "best dropped", "false", "decided rightly"], edges_table),
        "",
        "## The boundary: how often t crosses it at any look, in per cent",
        f"{figures['levels'][0]['repetitions']} sequences of differences with mean 0.",
        "",
        *record.table(["nominal", "normal", "heavy (t3)"], levels_table),
        "",
        "## Boundaries compared, normal differences",
        "Half widths in standard deviations of the differences, c(n)/√n, at a level of 5 % over J − 1; runs and shares "
        "without a band. ★ is what the rule uses. ∞: it cannot drop a setting at that look.",
        "",
        *boundary_table(figures["boundaries"]),
        "",
        "## Where the others fall far behind at times: the best dropped, in per cent",
        "The best has no noise, the others are lognormal (σ = 1) with a mean that is worse by *gap*. The last column "
        "drops by the signs alone, an e-process: it is valid for what it states, that a setting is worse at more than "
        "half of the seeds, which is another question.",
        "",
        *record.table(
            ["settings, gap", *(f"at_least {n}" for n in (3, 5, 10, 20)), "signs"],
            [
                [f"{row['settings']}, {row['gap']:g}"]
                + [percent(row[name]) for name in (*(f"at_least_{n}" for n in (3, 5, 10, 20)), "signs")]
                for row in figures["skew"]
            ],
        ),
    ]
    return lines
