"""Collection by several processes: the same store as one process, resuming, and errors that are passed on."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from rollout_world import Corridor, Walker, content, make_games
from waiting import is_running, until

from prm_gym.cli import main
from prm_gym.envs.named import NamedEnvironment
from prm_gym.errors import UserError
from prm_gym.policies.random import RandomPolicy
from prm_gym.rollout import in_processes, rollout, rollout_branches
from prm_gym.rollout.monitoring import Summary
from prm_gym.rollout.processes import begin_shares, gather
from prm_gym.store.check import check

OPTIONS = {"make_env": Corridor, "progress": False, "seed": 3}


def collect(out: Path, share: tuple[int, int]) -> Summary:
    return rollout(make_games(5), Walker(), out, rollouts_per_game=2, share=share, **OPTIONS)


def branch(parents: Path, out: Path, share: tuple[int, int]) -> Summary:
    return rollout_branches(parents, make_games(5), Walker(), out, share=share, **OPTIONS)


def refuse(out: Path, share: tuple[int, int]) -> Summary:
    raise UserError(out, f"share {share[0]} of {share[1]} is refused", "do not ask", field="games")


def test_the_store_is_that_of_one_process(tmp_path):
    alone = in_processes(collect, tmp_path / "one", 1)
    together = in_processes(collect, tmp_path / "two", 2)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert (together.total, together.episodes, together.won) == (alone.total, alone.episodes, alone.won) == (10, 10, 1)
    assert not list((tmp_path / "two").glob("share-*"))


LAKE = NamedEnvironment(factory="prm_gym.envs.toy_text:frozen_lake")


def skate(out: Path, share: tuple[int, int]) -> Summary:
    return rollout(LAKE.tasks("train")[:8], RandomPolicy(), out, share=share, make_env=LAKE, progress=False)


def test_another_environment_is_shared_and_resumed_alike(tmp_path):
    in_processes(skate, tmp_path / "one", 1)
    in_processes(skate, tmp_path / "two", 2)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert in_processes(skate, tmp_path / "two", 1).resumed == 8


def fail_once(out: Path, share: tuple[int, int]) -> Summary:
    summary = collect(out, share)
    (out / "failures.jsonl").write_text(f"of share {share[0]}\n")
    return summary


def test_what_failed_in_a_share_is_kept_with_its_reason(tmp_path):
    in_processes(fail_once, tmp_path / "out", 2)
    assert (tmp_path / "out" / "failures.jsonl").read_text() == "of share 0\nof share 1\n"


def test_the_counts_of_all_processes_are_added_up(tmp_path):
    in_processes(collect, tmp_path / "out", 2)
    assert check(tmp_path / "out").counted == 10


def test_failures_of_an_earlier_run_are_cleared(tmp_path):
    in_processes(fail_once, tmp_path / "out", 2)
    in_processes(collect, tmp_path / "out", 2)
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def fault(out: Path, share: tuple[int, int]) -> Summary:
    collect(out, share)
    return Summary(faults=Counter({"time-out": 1, f"status 50{share[0]}": 2}))


def test_faults_of_all_processes_are_counted(tmp_path):
    summary = in_processes(fault, tmp_path, 2)
    assert summary.faults == {"time-out": 2, "status 500": 2, "status 501": 2}


def test_branches_are_those_of_one_process(tmp_path):
    in_processes(collect, tmp_path / "parents", 1)
    work = partial(branch, tmp_path / "parents")
    in_processes(work, tmp_path / "one", 1)
    in_processes(work, tmp_path / "three", 3)
    assert content(tmp_path / "three") == content(tmp_path / "one")


def test_shares_that_were_begun_go_on(tmp_path):
    collect(tmp_path / "out" / "share-1", (1, 2))
    assert in_processes(collect, tmp_path / "out", 2).resumed == 4
    in_processes(collect, tmp_path / "one", 1)
    assert content(tmp_path / "out") == content(tmp_path / "one")


@pytest.mark.parametrize(("before", "after"), [(2, 1), (4, 2), (2, 3)])
def test_another_number_of_processes_plays_nothing_again(tmp_path, before, after):
    for i, share in enumerate(begin_shares(tmp_path / "out", before)):
        collect(share, (i, before))  # all is played, and the run is stopped before the shares are gathered
    assert in_processes(collect, tmp_path / "out", after).episodes == 0
    assert not list((tmp_path / "out").glob("share-*"))
    in_processes(collect, tmp_path / "one", 1)
    assert content(tmp_path / "out") == content(tmp_path / "one")


def test_the_log_of_an_earlier_run_is_kept(tmp_path):
    collect(tmp_path, (0, 1))
    first = (tmp_path / "metrics.jsonl").read_text()
    in_processes(collect_more, tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_text().startswith(first)


def collect_more(out: Path, share: tuple[int, int]) -> Summary:
    return rollout(make_games(5), Walker(), out, rollouts_per_game=3, share=share, **OPTIONS)


def test_branches_resumed_by_more_processes_are_counted_once(tmp_path):
    in_processes(collect, tmp_path / "parents", 1)
    work = partial(branch, tmp_path / "parents")
    stored = in_processes(work, tmp_path / "out", 1).episodes
    again = in_processes(work, tmp_path / "out", 2)
    assert (again.total, again.resumed, again.episodes) == (stored, stored, 0)


def test_a_line_that_a_kill_cut_short_does_not_spoil_the_next_share(tmp_path):
    shares = begin_shares(tmp_path, 2)
    for i, share in enumerate(shares):
        collect(share, (i, 2))
    whole = (shares[1] / "metrics.jsonl").read_text()
    (shares[0] / "metrics.jsonl").write_text('{"time": 1')
    gather(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == whole


def test_what_was_set_aside_in_a_share_is_kept(tmp_path):
    share = tmp_path / "out" / "share-1"
    collect(share, (1, 2))
    part = share / "part-000001.parquet"
    part.write_bytes(damaged := part.read_bytes()[:-100])
    assert main(["store", "check", str(share), "--repair"]) == 0
    in_processes(collect, tmp_path / "out", 2)
    assert (tmp_path / "out" / "share-1-part-000001.parquet.damaged").read_bytes() == damaged
    in_processes(collect, tmp_path / "one", 1)
    assert content(tmp_path / "out") == content(tmp_path / "one")


def test_a_process_more_than_there_are_games_is_idle(tmp_path):
    in_processes(collect, tmp_path / "six", 6)
    in_processes(collect, tmp_path / "one", 1)
    assert content(tmp_path / "six") == content(tmp_path / "one")


def sleep(out: Path, share: tuple[int, int]) -> Summary:
    out.mkdir(parents=True)
    (out / "pid").write_text(str(os.getpid()))
    time.sleep(60)
    return Summary()


def test_a_killed_run_leaves_no_process(tmp_path):
    run = multiprocessing.get_context("spawn").Process(target=in_processes, args=(sleep, tmp_path, 2))
    run.start()
    files = [tmp_path / f"share-{i}" / "pid" for i in range(2)]
    assert until(lambda: all(file.exists() and file.read_text() for file in files), 40)
    run.kill()
    run.join()
    assert until(lambda: not any(is_running(int(file.read_text())) for file in files), 40)


def test_an_error_of_a_share_is_raised_as_it_was(tmp_path):
    with pytest.raises(UserError, match=r"out/share-0: games: share 0 of 2 is refused; do not ask"):
        in_processes(refuse, tmp_path / "out", 2)


def test_no_process_is_an_error(tmp_path):
    with pytest.raises(UserError, match="processes: got 0; must be at least 1"):
        in_processes(collect, tmp_path, 0)
