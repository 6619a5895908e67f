"""What is to be known about a GPU, within eight minutes: tests, step times, and every estimator's cost.

    make gpu-check                  # or: python benchmarks/gpu.py
    make gpu-check DEVICE=cpu       # the CPU stands in: this shows that the command works, and nothing about a GPU

It needs torch, pandas, pydantic, click, rich, scipy and pytest: neither MLflow nor a network, and nothing is installed.
Each part is a process with a limit of time, and results/gpu.md is written after each: a part that fails is
named there and loses no other. With another device than cuda, results/stand-in.md is written, which git ignores.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import record
import torch
from loops import BATCH, SHAPES, Loop, harness_loop

from estimators import REGISTRY
from estimators.declarations import example
from harness.devices import missing_reason
from harness.training.compiled import CompileError

ROOT = Path(__file__).parent.parent
N_STEPS, N_STEPS_OF_STAND_IN = 25, 5
SIZES = (*((shape, BATCH) for shape in SHAPES), (SHAPES[0], 1024))
EAGER, COMPILED, GRAPHS, BFLOAT16 = "eager", "compiled", "compiled, CUDA graphs", "eager, bfloat16 products"
Figures = dict[str, Any]


def n_steps_on(device: str) -> int:
    """Return the steps of a round."""
    return N_STEPS if device.startswith("cuda") else N_STEPS_OF_STAND_IN


def steps(device: str) -> Iterator[Figures]:
    """Yield milliseconds a step of every contender, by size; and why a contender is missing."""
    for shape, batch in SIZES:
        yield {f"{shape[0]} × {shape[1]}, batch {batch}": _steps(device, shape, batch)}


def _steps(device: str, shape: tuple[int, int], batch: int) -> Figures:
    loops: dict[str, Loop] = {}
    missing: dict[str, str] = {}
    n_steps = n_steps_on(device)
    for name, settings in _contenders(device).items():
        try:
            loops[name] = harness_loop(n_steps, shape, batch=batch, device=device, **settings)
        except CompileError as error:
            missing[name] = str(error)
    times = record.interleaved(loops, 7, n_steps, limit_s=10)
    return {"ms": {name: [1e3 * each for each in values] for name, values in times.items()}, "missing": missing}


def _contenders(device: str) -> dict[str, Figures]:
    if not device.startswith("cuda"):
        return {EAGER: {}, COMPILED: {"compiled": True}}
    return {
        EAGER: {},
        BFLOAT16: {"precision": "bfloat16"},
        COMPILED: {"compiled": True, "cuda_graphs": False},
        GRAPHS: {"compiled": True},
    }


def estimators(device: str) -> Iterator[Figures]:
    """Yield milliseconds an eager step of every estimator, and how often it waits for the GPU."""
    loops: dict[str, Loop] = {}
    missing: dict[str, str] = {}
    n_steps = n_steps_on(device)
    for name in REGISTRY:
        try:
            params = dict(REGISTRY[name].examples)
            example(REGISTRY[name]).check_shape(*SHAPES[0])
            loops[name] = harness_loop(n_steps, SHAPES[0], estimator=name, params=params, device=device)
        except ValueError as error:  # a shape that it cannot work with; the package entmax
            missing[name] = str(error)
    waits = {name: _waits(loop) for name, loop in loops.items()} if device.startswith("cuda") else {}
    times = record.interleaved(loops, 3, n_steps, limit_s=50)
    yield {"ms": {name: [1e3 * each for each in values] for name, values in times.items()}, "missing": missing,
           "waits": waits}  # fmt: skip


def _waits(loop: Loop) -> int:
    """Return how often an epoch's kernels waited for the host's reading of a number, by torch's own count."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            loop(N_STEPS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in seen)


def step_lines(figures: Figures) -> list[str]:
    lines = ["## Training step", "", "Gumbel-Softmax, 784–512–256–L×K and back; up to 7 interleaved"
             f" rounds of {N_STEPS} steps ({N_STEPS_OF_STAND_IN} of a stand-in); median (range).", ""]  # fmt: skip
    for size, found in figures.items():
        ms = found["ms"]
        rows = [
            [name, record.spread(each, ".3f"), record.spread(record.ratios(ms[EAGER], each))]
            for name, each in ms.items()
        ]
        lines += [f"### {size}", "", *record.table(("", "ms a step", "speed over eager"), rows), ""]
        lines += [f"No figure of {name}: {why}" for name, why in found["missing"].items()]
    return lines


def estimator_lines(figures: Figures) -> list[str]:
    ms, waits = figures["ms"], figures["waits"]
    rows = [
        [f"`{name}`", record.spread(each, ".2f"), record.spread(record.ratios(each, ms["straight_through"])),
         str(waits.get(name, "–"))]
        for name, each in ms.items()
    ]  # fmt: skip
    rows.sort(key=lambda row: float(row[2].split()[0]))
    headings = ("estimator", "ms a step", "step over `straight_through`", f"waits in {N_STEPS} steps")
    lines = ["## Every estimator", "", f"Eager steps, {SHAPES[0][0]} × {SHAPES[0][1]}, batch {BATCH}, default settings;"
             " up to 3 interleaved rounds.", "", *record.table(headings, rows), ""]  # fmt: skip
    return lines + [f"No figure of `{name}`: {why}" for name, why in figures["missing"].items()]


PARTS: dict[str, tuple[Callable[[str], Iterator[Figures]], Callable[[Figures], list[str]], int]] = {
    "steps": (steps, step_lines, 180),
    "estimators": (estimators, estimator_lines, 100),
}
TESTS_S = 180


def run(command: list[str], limit_s: int, **variables: str) -> tuple[int, str]:
    """Return exit code and output of a process, 124 if it ran out of time."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **variables}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=limit_s, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return 124, (error.output or b"").decode() + f"\nout of time after {limit_s} s"
    return done.returncode, done.stdout


def tests(device: str) -> tuple[int, list[str]]:
    """Run tests/gpu alone: the fixtures of the other tests need MLflow."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir=tests/gpu", "tests/gpu"]
    code, output = run(command, TESTS_S, HARNESS_TEST_DEVICE=device)
    lines = output.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return code, ["## Tests", "", f"`tests/gpu`: {lines[-1] if lines else 'no output'}", "", *failed, ""]


def part(name: str, device: str) -> tuple[int, list[str], Figures]:
    """Measure one part in a process of its own."""
    _, shown, limit_s = PARTS[name]
    code, output = run([sys.executable, __file__, "--part", name, "--device", device], limit_s)
    found: Figures = {}
    for line in output.splitlines():
        if line.startswith("{") and line.endswith("}"):  # the last one may be cut off
            found |= json.loads(line)
    last = (output.strip().splitlines() or ["it printed nothing"])[-1]
    why = [f"The part {name} stopped with exit code {code}: {last}", ""] if code else []
    return code, [*(shown(found) if found else []), *why], found


def announce(part: str, limit_s: int) -> None:
    print(f"gpu-check: {part}, at most {limit_s} s …", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", choices=PARTS, help="measure this one in this process and print JSON")
    options = parser.parse_args()
    if not re.fullmatch(r"cpu|(cuda|mps)(:\d+)?", options.device):
        raise SystemExit(f"gpu-check: expected the device cuda, cuda:1, mps or cpu, got {options.device!r}.")
    if reason := missing_reason(options.device):
        raise SystemExit(f"gpu-check: {reason}")
    if options.part:
        torch.set_num_threads(1)
        for found in PARTS[options.part][0](options.device):
            print(json.dumps(found), flush=True)
        return
    is_gpu = options.device.startswith("cuda")
    title = torch.cuda.get_device_name(0) if is_gpu else f"The device {options.device} stands in for a GPU"
    name, begun = "gpu" if is_gpu else "stand-in", time.monotonic()
    announce("tests", TESTS_S)
    failed, lines = tests(options.device)
    figures: Figures = {}
    record.write(name, title, lines, figures)
    for each in PARTS:
        announce(each, PARTS[each][2])
        code, more, figures[each] = part(each, options.device)
        failed, lines = failed or code, lines + more
        record.write(name, title, [*lines, f"{time.monotonic() - begun:.0f} s in all."], figures)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
