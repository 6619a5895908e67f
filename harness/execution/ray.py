"""Runs on a Ray cluster: this machine's own, or one of many nodes. Ray is imported when it is asked for.

Plain tasks, one a run, that yield their records; Ray itself tries nothing again. The driver has all that counts: any
node may be lost, and its runs go on elsewhere from the checkpoints that the driver keeps.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from harness.environment import expanded
from harness.errors import UserError
from harness.events import TERMINAL, Record
from harness.execution.deadlines import after, beside
from harness.execution.executor import Executor, Gone, Job, Lost
from harness.execution.ray_worker import Code, Setup, StopFlag, code_here, compute, difference
from harness.options import NEVER, RayOptions, SavingEvery
from harness.provenance import PACKAGE, git_state

LOOK_EVERY_S = 5.0
"""A node that joined or left is noticed within so many seconds."""
STORE_BYTES = 200_000_000
CHECK_S = 120.0
"""A node that says nothing for so long, though it should, is taken for lost."""
REACH_S = 10.0
SILENT_S = 20.0
"""A head that does not say for so long which nodes there are is lost, and with it the cluster. Ray waits a minute."""
CLOSE_S = 20.0
TOKEN = Path("~/.ray/auth_token")
"""Where Ray keeps the token of this user's clusters."""
MESSAGES_AHEAD = 16
"""A run waits once so many of its messages have not been read by the driver."""
CARRIED, OWN = "HARNESS_", frozenset({"HARNESS_DATA_DIR", "HARNESS_OUT"})
"""Environment variables that begin so reach every worker, but for those that name folders: each node has its own."""


class ClusterError(UserError):
    """The cluster cannot be used."""


@dataclass
class _Task:
    stream: Any  # ray.ObjectRefGenerator
    device: str
    has_begun: bool = False


@final
class RayExecutor(Executor):
    """One generator task a run; the newest state of the cluster decides how many are under way."""

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
        files = tuple((path.name, path.read_bytes()) for path in dict.fromkeys(path.resolve() for path in plugins))
        self._setup = Setup(code_here(), git_state(PACKAGE), threads, saving, files)
        self._tasks: dict[str, _Task] = {}
        self._lost: list[Lost] = []
        self._ray: Any = None
        self._cluster = _Cluster(threads)

    def start(self, n_runs: int) -> None:
        if not n_runs:
            return
        ray = self._connected()
        try:
            self._check_cluster()
        except (ClusterError, Gone):
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
        # a process that has used one GPU cannot go over to another, so Ray gives each run on one its own
        self._on_gpu = ray.remote(**common, num_gpus=self._options.gpus_per_run, max_calls=1)(compute)
        self._shared_setup = ray.put(self._setup)

    def __len__(self) -> int:
        if self._ray is None:
            return 0
        return min(self._options.workers or self._cluster.capacity(), self._cluster.capacity())

    def n_free(self, device: str) -> int:
        """Return how many more; a few wait at Ray for what ends next, but those for a GPU hold no others back."""
        free = self._wanted(self._cluster.capacity()) - len(self._tasks)
        if device != "cuda":
            return free
        on_gpu = sum(task.device == "cuda" for task in self._tasks.values())
        return min(free, self._wanted(self._cluster.gpu_capacity(self._options.gpus_per_run)) - on_gpu)

    def _wanted(self, capacity: int) -> int:
        """Return how many runs to have at Ray, where so many are computed at once."""
        return self._options.workers or capacity + max(2, capacity // 8)

    def submit(self, job: Job) -> None:
        device = job.run.device
        remote = self._on_gpu if device == "cuda" else self._on_cpu
        stream = remote.options(name=job.run.name).remote(self._shared_setup, job.to_bytes(), self._flag)
        self._tasks[job.run.key] = _Task(stream, device)

    def poll(self, timeout_s: float) -> list[Record | Lost]:
        self._cluster.nodes()  # which notices that the cluster is gone, before Ray ends this process without a word
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
            self._lost.append(Lost(key, "stopped before it began"))

    def close(self) -> None:
        if self._ray is None:
            return
        ray, self._ray = self._ray, None
        streams = [task.stream for task in self._tasks.values()]
        self._tasks.clear()

        def end() -> None:
            for stream in streams:
                ray.cancel(stream, force=True)
            ray.shutdown()  # ends what was started here; on a cluster, all processes of this sweep

        with suppress(TimeoutError):  # there is nobody left to tell
            beside(end, after(CLOSE_S))

    def missing_reason(self, device: str) -> str | None:
        if device == "cpu":
            return None
        if device != "cuda":
            return f"{device}: Ray chooses the GPU of a run; on Ray the device is called cuda"
        if not self._connected().cluster_resources().get("GPU"):
            return "cuda: no node of the Ray cluster has a GPU"
        return None

    def _receive(self, run_key: str) -> Record | Lost:
        try:
            record = Record.from_bytes(self._ray.get(next(self._tasks[run_key].stream), timeout=CHECK_S))
        except StopIteration:
            return self._forgotten(run_key, "its task ended without a result")
        except self._ray.exceptions.RayError as error:
            return self._forgotten(run_key, what_happened(error))
        self._tasks[run_key].has_begun = True
        if isinstance(record.event, TERMINAL):
            del self._tasks[run_key]
        return record

    def _forgotten(self, run_key: str, why: str) -> Lost:
        self.kill(run_key)  # it may live where nothing is heard of it
        return Lost(run_key, why)

    def _connected(self) -> Any:
        """Return ray, connected to the cluster: the one of the address, or one of this machine that is started now."""
        if self._ray is None:
            self._ray = self._cluster.ray = connect(self._options, self._threads, self._env)
        return self._ray

    def _check_cluster(self) -> None:
        """Refuse a cluster on which runs would wait for ever, or whose nodes have other code."""
        if not self._cluster.capacity():
            largest = max((node.get("CPU", 0) for node in self._cluster.nodes().values()), default=0)
            raise ClusterError(
                f"--threads: expected a node with {self._threads} CPUs, which a run takes, got a cluster whose largest "
                f"has {largest:g}. Add nodes, or use fewer threads."
            )
        if self._options.address is not None:
            nodes = [key for key, node in self._cluster.nodes().items() if node.get("CPU", 0) >= self._threads]
            check_code(self._ray, nodes, self._setup.code)


@dataclass
class _Cluster:
    """What the nodes hold, looked at now and then: a cluster may grow and shrink while it is used."""

    threads: int
    ray: Any = None
    _looked: float = field(default=-LOOK_EVERY_S)
    _nodes: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def nodes(self) -> Mapping[str, Mapping[str, float]]:
        """Return the resources of each node that is alive, by its id."""
        if time.monotonic() - self._looked >= LOOK_EVERY_S:
            try:
                found = beside(self.ray.nodes, after(SILENT_S))
            except TimeoutError:
                raise Gone(f"the Ray cluster has not answered for {SILENT_S:g} s; its head may be gone") from None
            except self.ray.exceptions.RayError as error:
                raise Gone(f"the Ray cluster does not answer ({in_one_line(error)}); its head may be gone") from error
            self._nodes = {node["NodeID"]: node["Resources"] for node in found if node["Alive"]}
            self._looked = time.monotonic()
        return self._nodes

    def capacity(self) -> int:
        """Return how many runs the CPUs hold at once."""
        return sum(int(node.get("CPU", 0) // self.threads) for node in self.nodes().values())

    def gpu_capacity(self, gpus_per_run: float) -> int:
        """Return how many runs the GPUs hold at once; a run has its share of one of them."""
        a_gpu = int(1 / gpus_per_run + 1e-9)
        return sum(int(node.get("GPU", 0)) * a_gpu for node in self.nodes().values())


def connect(options: RayOptions, threads: int, env: Mapping[str, str]) -> Any:
    """Import ray and connect to a cluster. Raises ClusterError."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            f"--executor ray: expected ray to be installed, got: {error}. Install it: pip install 'argmax-harness[ray]'"
        ) from error
    arguments: dict[str, Any] = {"runtime_env": {"env_vars": dict(env)}}
    if options.address is None:
        n_cpus = options.workers and max(options.workers * threads, os.cpu_count() or 1)
        arguments |= {"include_dashboard": False, "num_cpus": n_cpus, "object_store_memory": STORE_BYTES}
    else:
        check_reachable(options.address)
        packages = PACKAGE, PACKAGE.parent / "estimators"
        arguments["runtime_env"]["py_modules"] = [str(path) for path in packages]
    try:
        ray.init(address=options.address or "local", log_to_driver=False, logging_level=logging.ERROR, **arguments)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"--address {options.address or 'local'}: expected a Ray cluster that this machine is a node of, got: "
            f"{in_one_line(error)} Start one: ray start --head, or ray start --address HOST:PORT.{token_hint()}"
        ) from error
    return ray


def token_hint() -> str:
    """Return what to try where Ray has made a token: `ray start` asks for it then, but ray.init does not show it."""
    if not expanded(str(TOKEN)).exists() or "RAY_AUTH_MODE" in os.environ:
        return ""
    return f" If it was started since there is {TOKEN}, it asks for that: export RAY_AUTH_MODE=token."


def check_reachable(address: str) -> None:
    """Refuse an address where nothing listens: Ray would try for minutes. Raises ClusterError."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ClusterError(
            f"--address: expected HOST:PORT of a Ray cluster's head, such as 10.0.0.1:6379, got {address!r}."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"--address {address}: expected the head of a Ray cluster, got: {error}. Start one: ray start --head."
        ) from error


def check_code(ray: Any, nodes: Sequence[str], code: Code) -> None:
    """Compare the code of each node with the driver's. Raises ClusterError."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    check = ray.remote(num_cpus=0, max_retries=0)(difference)
    where = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    try:
        found = ray.get([check.options(scheduling_strategy=node).remote(code) for node in where], timeout=CHECK_S)
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"--address: expected every node to run a task, got: {what_happened(error)}. "
            "Install argmax-harness[ray] on every node."
        ) from error
    for line in filter(None, found):
        raise ClusterError(f"{line}. Install the same on every node.")


def environment(threads: int, names: Sequence[str]) -> dict[str, str]:
    """Return the variables that reach the workers. Raises ClusterError for one that is named but not set."""
    for name in names:
        if name not in os.environ:
            raise ClusterError(f"--env: expected the name of a variable that is set, got {name!r}.")
    shared = {name for name in os.environ if name.startswith(CARRIED) and name not in OWN}
    carried = {name: os.environ[name] for name in sorted(shared.union(names))}
    return carried | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


_HAPPENED = {
    "WorkerCrashedError": "worker process died (killed, or out of memory?)",
    "NodeDiedError": "its node died",
    "OutOfMemoryError": "Ray stopped it, since its node was short of memory",
    "TaskCancelledError": "its task was cancelled",
    "ObjectLostError": "its node died with messages that had not been read",
    "OwnerDiedError": "its node died with messages that had not been read",
    "GetTimeoutError": f"no answer within {CHECK_S:g} s",
}


def what_happened(error: Exception) -> str:
    """Return in one line what became of a task, in terms of processes and nodes."""
    kinds = [cls.__name__ for cls in type(error).__mro__]
    known = next((_HAPPENED[kind] for kind in kinds if kind in _HAPPENED), None)
    return known or in_one_line(getattr(error, "cause", None) or error)


def in_one_line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
