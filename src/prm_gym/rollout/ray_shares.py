"""Collection on a Ray cluster: every share is a Ray task in a process of its own, on any node.

A share writes its episodes to `OUT/share-<i>`, so all nodes must see OUT and the games at the same path, and have
prm_gym installed. Environment variables are those under which `ray start` ran there. If a worker or a node is lost, Ray
runs the share again elsewhere. It goes on from its episodes on the disk, so only those in flight are played again. With
more shares than processors, the nodes that are left stay busy. When all shares are done their parts are linked into
OUT, as by `processes.in_processes`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prm_gym.errors import UserError
from prm_gym.ray_cluster import RETRIES, Cluster, connect, raised, shares_of
from prm_gym.rollout.monitoring import Summary
from prm_gym.rollout.processes import Share, Work, begin_shares, gather, total
from prm_gym.store.writer_lock import being_written

_LONGEST_WAIT = 300.0  # seconds for the writer of a lost node to go away


def on_ray(work: Work, out: Path, cluster: Cluster) -> Summary:
    """Call `work(folder, (i, n))` as a Ray task for each share i of n, then bring the stores into `out`.

    `work` must be picklable; `collect` and `branch` take the share as an argument. Returns the counts of all shares.
    Raises `UserError` if Ray is not installed, does not answer or loses a share for good, and whatever `work` raises.
    """
    ray = connect(cluster)
    shares = shares_of(cluster, ray)
    folders = [folder.resolve() for folder in begin_shares(out, shares)]
    task = ray.remote(num_cpus=1, num_gpus=cluster.gpus, max_retries=RETRIES)(play_share)
    running = {task.remote(work, folder, (i, shares), os.getcwd()): i for i, folder in enumerate(folders)}
    summaries: dict[int, Summary] = {}
    try:
        with _progress() as progress:
            bar = progress.add_task("", total=shares)
            while waiting := [each for each in running if running[each] not in summaries]:
                for done in ray.wait(waiting)[0]:
                    summaries[running[done]] = ray.get(done)
                    progress.update(bar, completed=len(summaries))
    except ray.exceptions.RayError as error:
        raise raised(error) from error
    finally:
        for each in ray.wait(list(running), num_returns=len(running), timeout=0)[1]:
            ray.cancel(each)  # not by force: if it ends at this moment, Ray would abort this process
    gather(out)
    return total([summaries[i] for i in range(shares)])


def play_share(work: Work, folder: Path, share: Share, here: str) -> Summary:
    """`work` on one share from the folder `here`, once no process of a lost node writes to the share any more."""
    os.chdir(here)
    end = time.monotonic() + _LONGEST_WAIT
    while being_written(folder):
        if time.monotonic() > end:
            raise UserError(folder, "another process is writing here", "end it, and give the same command again")
        time.sleep(0.5)
    return work(folder, share)


def _progress() -> Any:
    columns = (TextColumn("shares"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
