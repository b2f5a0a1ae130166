"""Collection by several processes, each with its own event loop and policy.

This is for in-process policies, since one process uses little more than one core. Every process collects its share of
the episodes into `OUT/share-<i>`. When all are done, their parts are linked into the store `OUT`, which then has the
episodes of a single process. A stopped run resumes in the shares.
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
from prm_gym.journal import whole_lines
from prm_gym.rollout.branch import POINTS
from prm_gym.rollout.concurrency import FAILURES
from prm_gym.rollout.monitoring import Summary
from prm_gym.store import EpisodeWriter, parts
from prm_gym.store.episodes import DAMAGED, link_or_copy, part_files
from prm_gym.store.parquet import read_part
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
        begin_shares(out, 0)
        return work(out, (0, 1))
    shares = begin_shares(out, processes)
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    with spawned(processes, initializer=_begin, initargs=(threads,)) as pool:
        running = [pool.submit(work, folder, (i, processes)) for i, folder in enumerate(shares)]
        summaries = [future.result() for future in running]
    gather(out)
    return total(summaries)


def _begin(threads: str) -> None:
    os.environ["OMP_NUM_THREADS"] = threads  # before torch is imported
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has died, so that it does not write into the folder of a resumed run."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def begin_shares(out: Path, count: int) -> list[Path]:
    """The folders of the shares. A new one gets the episodes in `out` as links, so that none is played again."""
    shares = [out / f"share-{i}" for i in range(count)]
    begun = {share for share in out.glob("share-*") if share.is_dir()}
    if begun and begun != set(shares):  # of a stopped run with another number of processes
        gather(out)
    there = part_files(out)
    for share in shares if there else ():
        if not share.exists():
            new = out / f".{share.name}.begun"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            for file in [*there, out / provenance.FILE, out / POINTS]:
                if file.exists():
                    (shutil.copy2 if file.suffix != ".parquet" else link_or_copy)(file, new / file.name)
            new.rename(share)
    return shares


def gather(out: Path) -> None:
    """Bring all shares in `out` into the store `out`. Parts are linked, not copied, but for small ones that are merged.

    After a kill, the next call goes on.
    """
    shares = sorted((share for share in out.glob("share-*") if share.is_dir()), key=lambda share: int(share.name[6:]))
    record = next((share / provenance.FILE for share in shares if (share / provenance.FILE).exists()), None)
    if record:  # before the episodes, which are refused without it
        shutil.copyfile(record, out / provenance.FILE)
    with EpisodeWriter(out) as writer:
        for share in shares:
            for part in parts(share) if any(share.glob("*.parquet")) else ():  # a share may be empty
                if not writer.adopt(part):
                    for episode in read_part(part):
                        if episode.episode_id not in writer.finished:
                            writer.add(episode)
    (out / FAILURES).unlink(missing_ok=True)  # of an earlier run
    for name in {file.name for share in shares for file in share.glob("*.jsonl")}:  # metrics, failures, branch points
        lines = dict.fromkeys(line for folder in (out, *shares) for line in whole_lines(folder / name))
        (out / name).write_bytes(b"".join(lines))
    for share in shares:
        for file in share.glob(f"*{DAMAGED}*"):  # set aside by `prm-gym store check`
            file.rename(out / f"{share.name}-{file.name}")
        gone = out / f".{share.name}.begun"
        shutil.rmtree(gone, ignore_errors=True)
        share.rename(gone)  # so that a kill leaves no share without its provenance
        shutil.rmtree(gone)


def total(summaries: list[Summary]) -> Summary:
    """The counts of all shares; the seconds are those of the longest."""
    found = Summary(*(reduce(add, (getattr(s, field.name) for s in summaries)) for field in fields(Summary)))
    found.seconds = max(s.seconds for s in summaries)
    return found
