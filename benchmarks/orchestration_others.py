"""Jobs that do nothing, by Hydra's basic launcher or as Ray tasks: `orchestration_others.py hydra|ray N WORKERS`.

Neither tracks anything. The last line of output is JSON: seconds of start-up (until the first job starts) and per job
from then on. Imports neither torch nor the harness, so that any Python with hydra-core or ray can run it.
"""

import json
import sys
import tempfile
import time

BEGUN = time.perf_counter()


def by_hydra(n_jobs: int) -> tuple[float, float]:
    """Return when the first job started and when the launcher returned. The basic launcher has no workers."""
    import hydra

    started: list[float] = []

    @hydra.main(version_base=None, config_path=None)
    def job(config: object) -> None:
        started.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["job", "--multirun", f"+seed=range({n_jobs})", f"hydra.sweep.dir={folder}"]
        job()
    if len(started) != n_jobs:
        raise RuntimeError(f"hydra: expected {n_jobs} jobs, got {len(started)}.")
    return started[0], time.perf_counter()


def by_ray(n_jobs: int, workers: int) -> tuple[float, float]:
    """Return when the first task was submitted, its workers warm, and when the last result was there."""
    import ray

    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)

    @ray.remote(max_retries=0)
    def job(seed: int) -> int:
        return seed

    ray.get([job.remote(seed) for seed in range(workers)])
    first = time.perf_counter()
    waiting = [job.remote(seed) for seed in range(n_jobs)]
    while waiting:
        done, waiting = ray.wait(waiting)
        ray.get(done)
    last = time.perf_counter()
    ray.shutdown()
    return first, last


def main() -> None:
    name, n_jobs, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    first, last = by_hydra(n_jobs) if name == "hydra" else by_ray(n_jobs, workers)
    print(json.dumps({"startup_s": first - BEGUN, "per_run_s": (last - first) / n_jobs}))


if __name__ == "__main__":
    main()
