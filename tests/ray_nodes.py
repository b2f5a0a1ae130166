"""A local Ray cluster of several nodes, each with processes of its own, and the loss of one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import until

# A busy machine takes long to start processes.
_PATIENCE = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_health_check_timeout_ms": "60000",
}


def node() -> dict[str, int]:
    """The arguments of a node of one processor. Where Ray chooses the ports, it waits for them 15 s at most."""
    ports = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
    found = dict(zip(ports, (each.getsockname()[1] for each in sockets), strict=True))
    for each in sockets:
        each.close()
    return {"num_cpus": 1, **found}


@contextmanager
def two_nodes(modules: Path) -> Iterator[Any]:
    """A cluster of two nodes, whose workers import from `modules` and this folder. Skips if Ray is not installed."""
    os.environ.update(_PATIENCE)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(modules), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'prm-gym[ray]'")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node()})
    nodes.add_node(**node())
    nodes.wait_for_nodes(timeout=300)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@contextmanager
def third_node_lost(cluster: Any, when: Callable[[], bool]) -> Iterator[None]:
    """A third node, which is killed as soon as `when()` holds. That must be before the end."""
    lost, killed, over = cluster.add_node(**node()), threading.Event(), threading.Event()

    def kill() -> None:
        if until(lambda: over.is_set() or when(), 300) and not over.is_set():
            cluster.remove_node(lost, allow_graceful=False)
            killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if not killed.is_set():
            cluster.remove_node(lost, allow_graceful=False)
    assert killed.is_set(), "the node was lost in the middle"
