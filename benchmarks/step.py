"""One training step: the harness, a notebook-style loop and the matrix products alone, side by side.

    make bench            # or: python benchmarks/step.py --rounds 11 --steps 25

A process for each shape and number of threads. In it every round times each contender once, in turn, so that a slow
moment of a shared machine hits all of them; ratios are taken within a round, and stated as median and range over the
rounds. The harness's figure is that of its own `train_epoch`: gathering the images, schedules and timing included.

Two floors: the products as torch makes them (`x @ w`: MKL on the CPU), and by the faster library that the harness picks
(docs/decisions/008), which is the limit of this machine. Last, what a sweep of two workers makes of two cores.
"""

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection

import record
import torch
from loops import BATCH, SHAPES, Loop, harness_loop
from notebook import notebook_loop

from harness.config import DataConfig
from harness.datasets.load import load
from harness.tasks.linear import ONEDNN_IS_FASTER

NOTEBOOK, HARNESS, COMPILED, BFLOAT16 = "notebook loop", "harness", "harness, compiled", "harness, bfloat16 products"
TORCH_FLOOR, FAST_FLOOR = "matrix products, torch's", "matrix products, fastest"


def floor_loop(shape: tuple[int, int], *, fastest: bool) -> Loop:
    """Return a loop over the matrix products of a step: six forward, six weight gradients, five input gradients."""
    code = shape[0] * shape[1]
    sizes = [784, 512, 256, code, 256, 512, 784]
    layers = [(torch.randn(BATCH, a), torch.randn(b, a), torch.randn(BATCH, b)) for a, b in pairwise(sizes)]
    onednn = torch.ops.argmax_harness.linear.default

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return onednn(left, right, None, "none") if fastest and ONEDNN_IS_FASTER else left @ right.T

    def run(n_steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(n_steps):
            for i, (x, w, g) in enumerate(layers):
                _ = product(x, w), product(g.T, x.T)
                if i:
                    _ = product(g, w.T)
        return time.perf_counter() - begun

    return run


def measure(loops: dict[str, Loop], rounds: int, n_steps: int) -> dict[str, list[float]]:
    """Return images per second of every loop in every round."""
    seconds = record.interleaved(loops, rounds, n_steps)
    return {name: [BATCH / each for each in values] for name, values in seconds.items()}


def contenders(shape: tuple[int, int], n_steps: int) -> dict[str, Loop]:
    images = load(DataConfig(name="mnist-mini"))
    return {
        NOTEBOOK: notebook_loop(images.train_ND, *shape),
        HARNESS: harness_loop(n_steps, shape),
        COMPILED: harness_loop(n_steps, shape, compiled=True),
        BFLOAT16: harness_loop(n_steps, shape, precision="bfloat16"),
        TORCH_FLOOR: floor_loop(shape, fastest=False),
        FAST_FLOOR: floor_loop(shape, fastest=True),
    }


def apart(shape: tuple[int, int], threads: int, rounds: int, n_steps: int) -> dict[str, list[float]]:
    """Measure one shape in a process of its own, with the threads set before torch is loaded."""
    command = [sys.executable, __file__, "--shape", *map(str, shape), "--threads", str(threads)]
    command += ["--rounds", str(rounds), "--steps", str(n_steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"step: the measurement at {shape}, {threads} thread(s) failed:\n{done.stderr[-2000:]}")
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def serve(connection: Connection, n_steps: int) -> None:
    """Train an epoch at each request, on one thread, as a worker of a sweep does."""
    torch.set_num_threads(1)
    loop = harness_loop(n_steps, SHAPES[0])
    loop(n_steps)
    connection.send(0.0)
    for _ in iter(connection.recv, None):
        connection.send(loop(n_steps))


def two_cores(rounds: int, n_steps: int) -> dict[str, list[float]]:
    """Return images/s of two workers of one thread at once, and of the notebook loop with torch's default threads."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    workers = [context.Process(target=serve, args=(theirs, n_steps), daemon=True) for _, theirs in pipes]
    for worker in workers:
        worker.start()
    notebook = notebook_loop(load(DataConfig(name="mnist-mini")).train_ND, *SHAPES[0])
    notebook(n_steps)
    ours = [our for our, _ in pipes]
    for our in ours:
        our.recv()
    found: dict[str, list[float]] = {"notebook loop, default threads": [], "two workers": []}
    for _ in range(rounds):
        found["notebook loop, default threads"].append(n_steps * BATCH / notebook(n_steps))
        for our in ours:
            our.send(n_steps)
        found["two workers"].append(sum(n_steps * BATCH / our.recv() for our in ours))
    for our, worker in zip(ours, workers, strict=True):
        our.send(None)
        worker.join()
    return found


def rows(speed: dict[str, list[float]]) -> list[list[str]]:
    """Return images/s, speed over the notebook, and time over each floor, of every contender."""
    return [
        [
            name,
            record.spread(values, ",.0f"),
            record.spread(record.ratios(values, speed[NOTEBOOK])),
            *(record.spread(record.ratios(speed[floor], values)) for floor in (TORCH_FLOOR, FAST_FLOOR)),
        ]
        for name, values in speed.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=25, help="of a round; 28 at most")
    parser.add_argument("--shape", type=int, nargs=2, help="measure this one alone and print JSON")
    parser.add_argument("--threads", type=int, default=1, help="with --shape")
    options = parser.parse_args()
    if options.shape:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(contenders(tuple(options.shape), options.steps), options.rounds, options.steps)))
        return
    headings = (
        "",
        "images/s",
        "over the notebook loop",
        "time over torch's products",
        "time over the fastest products",
    )
    lines, figures = [], {}
    for threads in (1, 2):
        for shape in SHAPES if threads == 1 else SHAPES[:1]:
            title = f"{shape[0]} latents × {shape[1]} classes, {threads} thread{'s' * (threads > 1)}"
            figures[title] = apart(shape, threads, options.rounds, options.steps)
            lines += [f"## {title}", "", *record.table(headings, rows(figures[title])), ""]
            print(f"{title}: done", flush=True)
    figures["two cores"] = pair = two_cores(options.rounds, options.steps)
    ratio = record.spread(record.ratios(pair["two workers"], pair["notebook loop, default threads"]))
    lines += [
        "## Two cores",
        "",
        *record.table(("", "images/s"), [[n, record.spread(v, ",.0f")] for n, v in pair.items()]),
    ]
    lines += ["", f"Two workers of one thread over the notebook loop with default threads: **{ratio}**."]
    intro = [
        f"784–512–256–L×K and back, batch {BATCH}, float32, Gumbel-Softmax; {options.rounds} interleaved rounds of"
        f" {options.steps} steps; median (range).",
        "",
    ]
    record.write("step", "Training step", intro + lines, figures)


if __name__ == "__main__":
    main()
