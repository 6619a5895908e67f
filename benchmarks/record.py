"""How every benchmark states its figures: medians with their range, where they were measured, and by which command.

`write` puts a Markdown page and a JSON file of the same name into benchmarks/results/.
"""

import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return `median (least – greatest)`, each in the given form."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} – {max(values):{form}})"


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Return the ratios of figures of the same round: a slow moment of a shared machine hits both."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def interleaved(
    loops: Mapping[str, Callable[[int], float]], rounds: int, n_steps: int, limit_s: float = math.inf
) -> dict[str, list[float]]:
    """Return the seconds a step of every loop in every round, after a round that does not count.

    A loop makes so many steps and returns the seconds that they took. In each round all of them take their turn. No
    round but the first is begun if it would end after `limit_s`, to judge by the last one.
    """
    begun = time.monotonic()
    for loop in loops.values():
        loop(n_steps)
    found: dict[str, list[float]] = {name: [] for name in loops}
    round_s = 0.0
    for done in range(rounds):
        round_begun = time.monotonic()
        if done and round_begun - begun + round_s > limit_s:
            break
        for name, loop in loops.items():
            found[name].append(loop(n_steps) / n_steps)
        round_s = time.monotonic() - round_begun
    return found


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: the first column is text, the others are figures."""
    rule = "|---|" + "---:|" * (len(headings) - 1)
    return [f"| {' | '.join(headings)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def where() -> str:
    """Return the machine and the versions that figures depend on, in one line."""
    import torch

    from harness.provenance import cpu_name

    python = platform.python_version()
    return f"{cpu_name()} ({os.cpu_count()} cores), Python {python}, torch {torch.__version__}"


def write(name: str, title: str, lines: Sequence[str], figures: Mapping[str, Any]) -> None:
    """Write results/<name>.md and <name>.json, and print the page."""
    command = f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip()
    page = "\n".join([f"# {title}", f"{where()}; `{command}`.", "", *lines])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(page + "\n")
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"where": where(), "command": command, **figures}, indent=1) + "\n"
    )
    print(page)
