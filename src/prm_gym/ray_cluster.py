"""A Ray cluster: its address, the number of shares that work is divided into, and what each needs of a node."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from prm_gym.errors import UserError, first_line

RETRIES = 20  # of a share whose worker or node is lost


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster. `address` is that of its head ("auto" for the one that runs on this machine, "ray://..." for a
    client). Work is divided into `shares`, by default one for each processor; each takes one processor and `gpus` GPUs.
    """

    address: str = "auto"
    shares: int | None = None
    gpus: float = 0.0


def connect(cluster: Cluster) -> Any:
    """The module ray, connected to the cluster. Raises `UserError` if it is not installed or does not answer."""
    if find_spec("ray") is None:
        raise UserError("ray", "is not installed", 'pip install "prm-gym[ray]"')
    import ray

    if not ray.is_initialized():
        try:
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            problem = f"no cluster answers at {cluster.address!r} ({' '.join(str(error).split())[:200]})"
            raise UserError("ray", problem, "start one with `ray start --head`, or correct the address") from error
    return ray


def shares_of(cluster: Cluster, ray: Any) -> int:
    """How many shares the work is divided into."""
    return cluster.shares or max(1, int(ray.cluster_resources().get("CPU", 1)))


def raised(error: Any) -> Exception:
    """The error that a task raised on another node, or one about the task if it did not end."""
    if isinstance(cause := getattr(error, "cause", None), Exception):
        if not type(cause).__module__.startswith("ray."):
            return cause
        problem = f"a node cannot run the work ({first_line(cause)})"
        return UserError("ray", problem, "install the same prm_gym, and what the command imports, on all nodes")
    said = " ".join(str(error).split())[:300]
    return UserError("ray", f"a share was lost {RETRIES} times ({said})", "look into the nodes' memory and their logs")
