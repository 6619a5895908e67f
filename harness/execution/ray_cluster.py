"""A Ray cluster: the connection to it, its nodes and their code. Ray is imported only when it is used."""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.environment import expanded
from harness.errors import UserError, first_line
from harness.execution.deadlines import call_with_deadline, deadline
from harness.execution.executor import ExecutorError
from harness.execution.ray_worker import Code, difference
from harness.options import RayOptions
from harness.provenance import PACKAGE

LOOK_EVERY_S = 5.0
STORE_BYTES = 200_000_000
CHECK_S = 120.0
"""A node that does not answer for that long is taken for lost."""
REACH_S = 10.0
SILENT_S = 20.0
"""If the head does not list its nodes for that long, the cluster is taken for lost. Ray itself waits a minute."""
TOKEN = Path("~/.ray/auth_token")
"""Where Ray keeps the token of this user's clusters."""
CARRIED, OWN = "HARNESS_", frozenset({"HARNESS_DATA_DIR", "HARNESS_OUT"})
"""Variables with this prefix reach every worker, except those that name folders, which differ by node."""


class ClusterError(UserError):
    """The cluster cannot be used."""


@dataclass
class Cluster:
    """The nodes of a cluster and their resources, looked up every LOOK_EVERY_S: a cluster may grow and shrink."""

    threads: int
    ray: Any = None
    _looked_s: float = field(default=-LOOK_EVERY_S)
    _nodes: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def nodes(self) -> Mapping[str, Mapping[str, float]]:
        """Return the resources of each living node by its id. Raises ExecutorError if the cluster does not answer."""
        if time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            try:
                found = call_with_deadline(self.ray.nodes, deadline(SILENT_S))
            except TimeoutError:
                raise ExecutorError(
                    f"the Ray cluster has not answered for {SILENT_S:g} s; its head may be gone"
                ) from None
            except self.ray.exceptions.RayError as error:
                raise ExecutorError(
                    f"the Ray cluster does not answer ({one_line(error)}); its head may be gone"
                ) from error
            self._nodes = {node["NodeID"]: node["Resources"] for node in found if node["Alive"]}
            self._looked_s = time.monotonic()
        return self._nodes

    def capacity(self) -> int:
        """Return how many runs the CPUs hold at once."""
        return sum(int(node.get("CPU", 0) // self.threads) for node in self.nodes().values())

    def gpu_capacity(self, gpus_per_run: float) -> int:
        """Return how many runs the GPUs hold at once. A run takes a share of one GPU."""
        a_gpu = int(1 / gpus_per_run + 1e-9)
        return sum(int(node.get("GPU", 0)) * a_gpu for node in self.nodes().values())


def connect(options: RayOptions, threads: int, env: Mapping[str, str]) -> Any:
    """Import ray and connect to a cluster, or start one on this machine. Raises ClusterError."""
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
            f"{one_line(error)} Start one: ray start --head, or ray start --address HOST:PORT.{token_hint()}"
        ) from error
    return ray


def token_hint() -> str:
    """Return what to try if Ray has made a token. `ray start` then asks for it, but ray.init does not mention it."""
    if not expanded(str(TOKEN)).exists() or "RAY_AUTH_MODE" in os.environ:
        return ""
    return f" If it was started since there is {TOKEN}, it asks for that: export RAY_AUTH_MODE=token."


def check_reachable(address: str) -> None:
    """Raise ClusterError for an address where nothing listens. Ray itself would try for minutes."""
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
    """Raise ClusterError if a node has other code than the driver."""
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
    """Return the environment variables for the workers. Raises ClusterError for a name that is not set."""
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
    "ObjectLostError": "its node died before its messages were read",
    "OwnerDiedError": "its node died before its messages were read",
    "GetTimeoutError": f"no answer within {CHECK_S:g} s",
}


def what_happened(error: Exception) -> str:
    """Return in one line what happened to a task, in terms of processes and nodes."""
    kinds = [cls.__name__ for cls in type(error).__mro__]
    known = next((_HAPPENED[kind] for kind in kinds if kind in _HAPPENED), None)
    return known or one_line(getattr(error, "cause", None) or error)


def one_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"
