"""Seconds, peak memory and size of a report about 1,060 runs of 100 epochs and 9 or 10 metrics an epoch.

    python benchmarks/report.py --rounds 3 --store results/report-benchmark

Makes the store if it is not there yet (`report_store.py` says how; about a minute, and 400 MB), then runs `harness
report` on it in a new process, several times. The parts are the time inside the function that reads the store and
inside each of the report's sections; "writing" is the rest of building the report (page, tables, figures), "imports"
the rest of the process. Writes results/report.md and report.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

STORE = Path(__file__).parent.parent / "results" / "report-benchmark"
TARGETS = {"seconds": "≤ 30 s", "peak_mb": "≤ 1,500 MB", "html_mb": "≤ 10 MB"}
PARTS = ("imports", "reading", "sections", "writing")
SLOWEST = 5
"""As many sections are listed."""


def child(store: Path, out: Path) -> None:
    """Run `harness report` in this process, and print what it took as JSON."""
    begun = time.perf_counter()
    from harness.cli import main
    from reports import report
    from reports.store import load

    spent: Counter[str] = Counter()
    sections: Counter[str] = Counter()
    load.load = stopwatch(spent, "reading", load.load)
    report.build_report = stopwatch(spent, "build", report.build_report)
    report.SECTIONS = tuple(stopwatch(sections, each.__module__.rpartition(".")[2], each) for each in report.SECTIONS)
    with suppress(SystemExit):
        main(["report", "--from", str(store), "--out", str(out)])
    total = time.perf_counter() - begun
    spent["sections"] = sum(sections.values())
    spent["writing"] = spent.pop("build") - spent["sections"]
    spent["imports"] = total - sum(spent.values())
    size = (out / "report.html").stat().st_size / 1e6
    print(json.dumps({"parts": spent, "sections": sections, "peak_mb": peak_mb(), "html_mb": size}))


def stopwatch(spent: Counter[str], part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed_function(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[part] += time.perf_counter() - begun

    return timed_function


def peak_mb() -> float:
    """Return the peak resident memory of this process; `ru_maxrss` would count what the parent held as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e6


def measure(store: Path) -> dict[str, Any]:
    """Return what one report took."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--store", str(store), "--child", out]
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", type=Path, default=STORE, help="Folder of the store; made if it is not there.")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.store, options.child)
        return
    import record
    import report_store

    made_s = report_store.make(options.store)
    found = [measure(options.store) for _ in range(options.rounds)]
    parts = {part: [each["parts"][part] for each in found] for part in PARTS}
    slowest = sorted(found[0]["sections"], key=lambda name: -found[0]["sections"][name])[:SLOWEST]
    rows = [
        ["the whole process, s", TARGETS["seconds"], record.spread([each["seconds"] for each in found], ".1f")],
        *([f"– {part}, s", "", record.spread(values, ".1f")] for part, values in parts.items()),
        *(
            [f"– – section {name}, s", "", record.spread([each["sections"][name] for each in found], ".1f")]
            for name in slowest
        ),
        ["peak resident memory, MB", TARGETS["peak_mb"], record.spread([each["peak_mb"] for each in found], ",.0f")],
        ["report.html, MB", TARGETS["html_mb"], record.spread([each["html_mb"] for each in found], ".1f")],
    ]
    made = "was there already" if made_s is None else f"was made in {made_s:.0f} s"
    lines = [
        f"{report_store.N_RUNS:,} finished runs of {report_store.EPOCHS} epochs; the store {made}. "
        f"Median (range) over {options.rounds} rounds.",
        "",
        *record.table(["`harness report`", "target", "measured"], rows),
    ]
    record.write("report", "A report of a thousand runs", lines, {"store_s": made_s, "rounds": found})


if __name__ == "__main__":
    main()
