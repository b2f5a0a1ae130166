"""Collection by several processes, each with its own event loop and policy.

This is for in-process policies, since one process uses little more than one core. Every process collects its share of
the episodes into `OUT/share-<i>`. When all are done, the episodes are merged into the store `OUT`, which then equals
that of a single process. A stopped run resumes in the shares.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import fields
from functools import reduce
from operator import add
from pathlib import Path
from threading import Thread

from prm_gym import provenance
from prm_gym.errors import check_range
from prm_gym.rollout.monitoring import Summary
from prm_gym.store import EpisodeWriter, read_episodes
from prm_gym.store.episodes import DAMAGED
from prm_gym.worker_pool import MOST_PROCESSES, spawned

Share = tuple[int, int]  # (i, n): the i-th of n shares
Work = Callable[[Path, Share], Summary]


def in_processes(work: Work, out: Path, processes: int) -> Summary:
    """Call `work(folder, (i, processes))` in one process for each share i, then merge the stores into `out`.

    `work` must be picklable; `collect` and `branch` take the share as an argument. Returns the counts of all shares.
    Raises `UserError` if `processes` is not 1 to `MOST_PROCESSES` or a process dies, and whatever `work` raises.
    """
    check_range("processes", processes, least=1, most=MOST_PROCESSES)
    if processes == 1:
        return work(out, (0, 1))
    shares = [out / f"share-{i}" for i in range(processes)]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    with spawned(processes, initializer=_begin, initargs=(threads,)) as pool:
        running = [pool.submit(work, folder, (i, processes)) for i, folder in enumerate(shares)]
        summaries = [future.result() for future in running]
    _gather(shares, out)
    return _sum(summaries)


def _begin(threads: str) -> None:
    os.environ["OMP_NUM_THREADS"] = threads  # before torch is imported
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has died, so that it does not write into the folder of a resumed run."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _gather(shares: list[Path], out: Path) -> None:
    with EpisodeWriter(out) as writer:
        for share in shares:
            # a share may be empty
            for episode in read_episodes(share) if any(share.glob("*.parquet")) else ():
                if episode.episode_id not in writer.finished:
                    writer.add(episode)
    shutil.copyfile(shares[0] / provenance.FILE, out / provenance.FILE)
    for name in {file.name for share in shares for file in share.glob("*.jsonl")}:  # metrics, failures, branch points
        logs = [share / name for share in shares if (share / name).exists()]
        (out / name).write_bytes(b"".join(log.read_bytes() for log in logs))
    for share in shares:
        for file in share.glob(f"*{DAMAGED}*"):  # set aside by `prm-gym store check`
            file.rename(out / f"{share.name}-{file.name}")
        shutil.rmtree(share)


def _sum(summaries: list[Summary]) -> Summary:
    total = Summary(*(reduce(add, (getattr(s, field.name) for s in summaries)) for field in fields(Summary)))
    total.seconds = max(s.seconds for s in summaries)
    return total
