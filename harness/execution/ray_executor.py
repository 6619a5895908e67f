"""Runs on a Ray cluster, of this machine or of many nodes. Ray is imported only when it is used.

Each run is a plain task that yields its records. Ray itself retries nothing. The driver keeps everything that counts:
if a node is lost, its runs continue elsewhere from the driver's checkpoints.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from harness.events import TERMINAL, Record
from harness.execution.deadlines import call_with_deadline, deadline
from harness.execution.executor import Executor, ExecutorError, Job, LostRun
from harness.execution.ray_cluster import (
    CHECK_S,
    Cluster,
    ClusterError,
    check_code,
    connect,
    environment,
    what_happened,
)
from harness.execution.ray_worker import Setup, StopFlag, code_here, compute
from harness.options import NEVER, RayOptions, SavingEvery
from harness.plugins.user_modules import files_to_send
from harness.provenance import PACKAGE, git_state

CLOSE_S = 20.0
MESSAGES_AHEAD = 16
"""A run waits when the driver has not read that many of its messages."""


@dataclass
class _Task:
    stream: Any  # ray.ObjectRefGenerator
    device: str
    has_begun: bool = False


@final
class RayExecutor(Executor):
    """One Ray task per run. The present state of the cluster decides how many are active."""

    def __init__(
        self,
        options: RayOptions,
        *,
        threads: int = 1,
        plugins: Sequence[Path] = (),
        saving: SavingEvery = NEVER,
    ) -> None:
        self._options, self._threads = options, threads
        self._env = environment(threads, options.env)
        paths = list(dict.fromkeys(path.resolve() for path in plugins))
        files = tuple((path.name, path.read_bytes()) for path in paths)
        self._setup = Setup(code_here(), git_state(PACKAGE), threads, saving, files, files_to_send(paths))
        self._tasks: dict[str, _Task] = {}
        self._lost: list[LostRun] = []
        self._ray: Any = None
        self._cluster = Cluster(threads)

    def start(self, n_runs: int) -> None:
        if not n_runs:
            return
        ray = self._connected()
        try:
            self._check_cluster()
        except (ClusterError, ExecutorError):
            self.close()
            raise
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._flag = ray.remote(num_cpus=0, scheduling_strategy=here)(StopFlag).remote()
        common = {
            "num_cpus": self._threads,
            "num_returns": "streaming",
            "max_retries": 0,
            "_generator_backpressure_num_objects": MESSAGES_AHEAD,
        }
        self._on_cpu = ray.remote(**common)(compute)
        # a process that has used a GPU cannot change to another, so Ray gives each GPU run its own process
        self._on_gpu = ray.remote(**common, num_gpus=self._options.gpus_per_run, max_calls=1)(compute)
        self._shared_setup = ray.put(self._setup)

    def __len__(self) -> int:
        if self._ray is None:
            return 0
        return min(self._options.workers or self._cluster.capacity(), self._cluster.capacity())

    def n_free(self, device: str) -> int:
        """Return how many more jobs to submit: a few wait at Ray for free CPUs, but GPU runs do not block CPU runs."""
        free = self._wanted(self._cluster.capacity()) - len(self._tasks)
        if device != "cuda":
            return free
        on_gpu = sum(task.device == "cuda" for task in self._tasks.values())
        return min(free, self._wanted(self._cluster.gpu_capacity(self._options.gpus_per_run)) - on_gpu)

    def _wanted(self, capacity: int) -> int:
        """Return how many runs Ray should have if it computes `capacity` runs at once."""
        return self._options.workers or capacity + max(2, capacity // 8)

    def submit(self, job: Job) -> None:
        device = job.run.device
        remote = self._on_gpu if device == "cuda" else self._on_cpu
        stream = remote.options(name=job.run.name).remote(self._shared_setup, job.to_bytes(), self._flag)
        self._tasks[job.run.key] = _Task(stream, device)

    def poll(self, timeout_s: float) -> list[Record | LostRun]:
        self._cluster.nodes()  # notice a lost cluster before Ray ends this process silently
        if self._lost:
            found, self._lost = self._lost, []
            return list(found)
        if not self._tasks:
            time.sleep(timeout_s)
            return []
        keys = {task.stream: key for key, task in self._tasks.items()}
        if not self._ray.wait(list(keys), num_returns=1, timeout=timeout_s)[0]:
            return []
        ready, _ = self._ray.wait(list(keys), num_returns=len(keys), timeout=0)
        return [self._receive(keys[stream]) for stream in ready]

    def kill(self, run_key: str) -> None:
        self._ray.cancel(self._tasks.pop(run_key).stream, force=True)

    def ask_to_stop(self) -> None:
        self._flag.set.remote()
        for key in [key for key, task in self._tasks.items() if not task.has_begun]:
            self.kill(key)
            self._lost.append(LostRun(key, "stopped before it began"))

    def close(self) -> None:
        if self._ray is None:
            return
        ray, self._ray = self._ray, None
        streams = [task.stream for task in self._tasks.values()]
        self._tasks.clear()

        def end() -> None:
            for stream in streams:
                ray.cancel(stream, force=True)
            ray.shutdown()  # ends a cluster that was started here; on others, the processes of this sweep

        with suppress(TimeoutError):  # the cluster is gone
            call_with_deadline(end, deadline(CLOSE_S))

    def missing_reason(self, device: str) -> str | None:
        if device == "cpu":
            return None
        if device != "cuda":
            return f"{device}: Ray chooses the GPU of a run; on Ray the device is called cuda"
        if not self._connected().cluster_resources().get("GPU"):
            return "cuda: no node of the Ray cluster has a GPU"
        return None

    def _receive(self, run_key: str) -> Record | LostRun:
        try:
            record = Record.from_bytes(self._ray.get(next(self._tasks[run_key].stream), timeout=CHECK_S))
        except StopIteration:
            return self._kill_lost(run_key, "its task ended without a result")
        except self._ray.exceptions.RayError as error:
            return self._kill_lost(run_key, what_happened(error))
        self._tasks[run_key].has_begun = True
        if isinstance(record.event, TERMINAL):
            del self._tasks[run_key]
        return record

    def _kill_lost(self, run_key: str, why: str) -> LostRun:
        self.kill(run_key)  # it may still run on a node that cannot be reached
        return LostRun(run_key, why)

    def _connected(self) -> Any:
        """Return ray, connected to the cluster at the address or to one started on this machine."""
        if self._ray is None:
            self._ray = self._cluster.ray = connect(self._options, self._threads, self._env)
        return self._ray

    def _check_cluster(self) -> None:
        """Raise ClusterError if runs would wait forever, or if a node has other code."""
        if not self._cluster.capacity():
            largest = max((node.get("CPU", 0) for node in self._cluster.nodes().values()), default=0)
            raise ClusterError(
                f"--threads: expected a node with {self._threads} CPUs, which a run takes, got a cluster whose largest "
                f"has {largest:g}. Add nodes, or use fewer threads."
            )
        if self._options.address is not None:
            nodes = [key for key, node in self._cluster.nodes().items() if node.get("CPU", 0) >= self._threads]
            check_code(self._ray, nodes, self._setup.code)
