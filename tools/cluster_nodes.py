"""Two Ray nodes on this machine, a core each, of which one can be killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from ..diffusioncleft_core.cluster.ray_engine import INSTALL, SLOW_START
from ..diffusioncleft_core.errors import UserError

STORE_BYTES = 200 << 20
STARTS = 10
WORKER = "ray::_Actor"
"""How the title of a process begins that is one of the engine's workers."""


class LocalNodes:
    """The head and a second node. Made by `two_nodes`, which ends them."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._second = self._add()

    @property
    def address(self) -> str:
        """For `--ray ADDRESS`."""
        return str(self._cluster.address)

    def workers(self) -> list[psutil.Process]:
        """The processes of the engine's workers on both nodes, also those that still load their models."""
        return [
            process for node in self._cluster.list_all_nodes() for process in _below(node) if _works(process)
        ]

    def second_has_workers(self) -> bool:
        """Whether a worker runs on the second node."""
        return any(map(_works, _below(self._second)))

    def kill_second(self) -> None:
        """SIGKILL to every process of the second node, and another node in its place."""
        for process in [*_raylets(self._second), *_below(self._second)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = self._add()

    def _add(self) -> Any:
        return _patiently(lambda: self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))


def _patiently(start: Callable[[], Any]) -> Any:
    """What `start` gives; Ray gives a node half a minute to come up, which is short on a busy machine."""
    for left in reversed(range(STARTS)):
        try:
            return start()
        except Exception as error:
            if not left or SLOW_START not in str(error):
                raise
    raise AssertionError


def _raylets(node: Any) -> list[psutil.Process]:
    found = []
    for kind, process in node.live_processes():
        if kind == "raylet":
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(process.pid))
    return found


def _below(node: Any) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for raylet in _raylets(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += raylet.children(recursive=True)
    return found


def _works(process: psutil.Process) -> bool:
    try:
        return bool(process.cmdline()) and process.cmdline()[0].startswith(WORKER)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
        return False


@contextlib.contextmanager
def two_nodes() -> Iterator[LocalNodes]:
    """Start the nodes, and end them."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        raise UserError(INSTALL) from None
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=node))
    try:
        yield LocalNodes(cluster)
    finally:
        cluster.shutdown()
