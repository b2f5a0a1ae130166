"""Rollouts by several clients, as processes and on Ray: requests a second, CPU, and a simulation of 1 to 64 nodes.

    python benchmarks/ray_scaling.py GAMES [--episodes 192] [--mean 0.5] [--in-flight 32]

Measured, one after the other, on a Ray cluster of this machine with two workers:

1. 1 and 2 client processes, and Ray with 1 and 2 workers, against the server of `client_cost.py`, which answers at
   once. Clients send token ids of the prompt `full`, have played a few games before, and begin together. The CPU time
   of a request is `time.process_time` of the clients. The server is a process of its own; with two clients there are
   three busy processes.
2. The costs of Ray at the same server: the start of a worker's first share and of a later one, an empty task, and the
   merge of the shares.
3. Whole rollouts on Ray with 1 and 2 workers and two shares for each, answers taking a log-normal time of mean `--mean`
   seconds: the seconds from the call to its return, beside those that the simulation says.
4. `ray_simulation.py`, which states its assumptions, from the costs of 2.: the calls of 3., and `--paper-episodes` on 1
   to 64 nodes with `--workers` workers each, `--paper-in-flight` requests open at each, answers in `--paper-mean`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from client_cost import ROOT, serve
from ray_simulation import TURNS, Costs, simulate

from prm_gym.envs.games import find_games
from prm_gym.policies.server import ServerPolicy
from prm_gym.ray_cluster import Cluster
from prm_gym.rollout import Summary, draw_games, in_processes, on_ray, rollout
from prm_gym.rollout.processes import Share

NODES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Job:
    """What a client plays, and the folder in which it notes its times."""

    games: Path
    url: str
    rollouts: int
    in_flight: int
    notes: Path
    warm: bool = False  # play a few games first, and begin with the others


def play(job: Job, out: Path, share: Share) -> Summary:
    games = draw_games(find_games(job.games, "train"), 0)
    policy = ServerPolicy(job.url, "model", prompt="full", tokenizer=ROOT / "models" / "alfworld-small")
    shared: dict[str, Any] = {"concurrency": job.in_flight, "progress": False}
    if job.warm:
        with tempfile.TemporaryDirectory() as folder:
            rollout(games, policy, folder, rollouts_per_game=1, **shared)
        (job.notes / f"ready-{share[0]}").touch()
        while len(list(job.notes.glob("ready-*"))) < share[1]:
            time.sleep(0.01)
    begun, cpu = time.time(), time.process_time()
    summary = rollout(games, policy, out, rollouts_per_game=job.rollouts, share=share, **shared)
    noted = {"begun": begun, "ended": time.time(), "cpu": time.process_time() - cpu}
    (job.notes / f"{share[0]}.json").write_text(json.dumps(noted))
    return summary


@dataclass(frozen=True)
class Run:
    """A rollout by one call of `in_processes` or `on_ray`; times in seconds."""

    summary: Summary
    seconds: float  # of the call
    collecting: float  # from the begin of the first share to the end of the last
    cpu: float  # of all clients
    begins: list[float]  # of the shares in order of time, after the call
    ends: list[float]

    @property
    def per_request(self) -> float:
        return self.cpu / self.summary.actions


def run(how: Callable[[Any, Path], Summary], job: Job) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        notes, out = Path(folder) / "notes", Path(folder) / "out"
        notes.mkdir()
        called = time.time()
        summary = how(partial(play, replace(job, notes=notes)), out)
        seconds = time.time() - called
        noted = [json.loads(file.read_text()) for file in notes.glob("*.json")]
    begins, ends = (sorted(each[name] - called for each in noted) for name in ("begun", "ended"))
    return Run(summary, seconds, ends[-1] - begins[0], sum(each["cpu"] for each in noted), begins, ends)


def processes(count: int) -> Callable[[Any, Path], Summary]:
    return lambda work, out: in_processes(work, out, count)


def workers(shares: int) -> Callable[[Any, Path], Summary]:
    return lambda work, out: on_ray(work, out, Cluster(shares=shares))


@contextmanager
def server(mean: float = 0.0, sigma: float = 1.0) -> Iterator[tuple[str, int]]:
    """The address and the process id of a server whose answers take `mean` seconds."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=serve, args=(sender, mean, sigma), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{receiver.recv()}/v1", process.pid or 0
    process.terminate()
    process.join()


@contextmanager
def cluster(processors: int) -> Iterator[None]:
    ray.init(num_cpus=processors, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def costs_of(measured: Run, task: float) -> Costs:
    """The costs of a rollout by one worker with two shares."""
    (first, second), (ended, last) = measured.begins, measured.ends
    rows = measured.summary.actions + measured.summary.episodes
    merge = (measured.seconds - last) / rows
    return Costs(measured.per_request, first, second - ended, task, merge)


def empty_task() -> float:
    nothing = ray.remote(lambda: None)
    ray.get(nothing.remote())
    begun = time.time()
    for _ in range(50):
        ray.get(nothing.remote())
    return (time.time() - begun) / 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", type=Path)
    parser.add_argument("--episodes", type=int, default=192, help="of each measured rollout")
    parser.add_argument("--in-flight", type=int, default=32, help="of each client")
    parser.add_argument("--mean", type=float, default=0.5, help="seconds that an answer takes in 3.")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=4, help="of a simulated node")
    parser.add_argument("--paper-episodes", type=int, default=70_000)
    parser.add_argument("--paper-in-flight", type=int, default=256)
    parser.add_argument("--paper-mean", type=float, default=2.0)
    options = parser.parse_args()
    games = len(find_games(options.games, "train"))
    job = Job(options.games, "", max(1, options.episodes // games), options.in_flight, Path())
    costs = at_once(job)
    against_measured(job, games, costs, options)
    table(costs, options)


def at_once(job: Job) -> Costs:
    print(f"a server that answers at once, {job.rollouts} rollouts of each game, {job.in_flight} in flight a client")
    print(f"{'':16s}{'requests/s':>11s}{'CPU ms a request':>18s}{'of the server':>15s}{'s of the call':>15s}")
    ways = {"1 process": processes(1), "2 processes": processes(2), "Ray, 1 worker": workers(1)}
    ways["Ray, 2 workers"] = workers(2)
    with server() as (url, pid), cluster(2):
        warm = replace(job, url=url, warm=True)
        for name, how in ways.items():
            before = cpu_seconds(pid)
            found = run(how, warm)
            played = found.summary.actions + len(found.begins) * TURNS * len(find_games(job.games, "train"))
            served = 1e3 * (cpu_seconds(pid) - before) / played
            rate = found.summary.actions / found.collecting
            print(
                f"{name:16s}{rate:11.0f}{1e3 * found.per_request:18.3f}{served:15.3f}{found.seconds:15.1f}", flush=True
            )
        task = empty_task()
    with server() as (url, _), cluster(1):
        costs = costs_of(run(workers(2), replace(job, url=url)), task)
    print(
        f"first share of a worker after {costs.first:.1f} s, a later one after {costs.later:.2f} s, an empty task "
        f"{1e3 * costs.task:.1f} ms, CPU {1e3 * costs.request:.3f} ms a request, "
        f"merge {1e6 * costs.merge_row:.0f} us a row"
    )
    return costs


def against_measured(job: Job, games: int, costs: Costs, options: argparse.Namespace) -> None:
    mean, sigma = options.mean, options.sigma
    print(f"whole rollouts on Ray, answers of {mean} s on average")
    print(f"{'workers':>8s}{'measured s':>12s}{'simulated s':>13s}{'ratio':>8s}")
    for count in (1, 2):
        with server(mean, sigma) as (url, _), cluster(count):
            found = run(workers(2 * count), replace(job, url=url))
        said = simulate(costs, count, 2 * count, games * job.rollouts, job.in_flight, mean, sigma)
        print(f"{count:8d}{found.seconds:12.1f}{said:13.1f}{said / found.seconds:8.2f}", flush=True)


def table(costs: Costs, options: argparse.Namespace) -> None:
    o = options
    print(
        f"simulated: {o.paper_episodes} episodes, {o.workers} workers a node, {o.paper_in_flight} in flight each, "
        f"answers of {o.paper_mean} s on average"
    )
    print(f"{'nodes':>6s}" + f"{'shares':>8s}{'minutes':>9s}{'requests/s':>12s}{'speed-up':>10s}" * 2)
    alone: dict[int, float] = {}
    for nodes in NODES:
        line = f"{nodes:6d}"
        for each in (1, 4):  # shares of a worker
            count = nodes * o.workers
            latency = (o.paper_in_flight, o.paper_mean, o.sigma)
            seconds = simulate(costs, count, each * count, o.paper_episodes, *latency)
            alone.setdefault(each, seconds)
            rate = TURNS * o.paper_episodes / seconds
            line += f"{each * count:8d}{seconds / 60:9.1f}{rate:12.0f}{alone[each] / seconds:10.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
