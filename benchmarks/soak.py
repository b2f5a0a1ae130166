"""Rollouts against servers with faults of every kind, for a given time: lost episodes, faults, and memory.

    python benchmarks/soak.py GAMES [--minutes 60] [--servers 2] [--share 0.1] [--mean 1.0] [--in-flight 48]

`benchmarks/faulty_server.py` runs `--servers` times; a `--share` of its answers are faults. Every `--restart` seconds
one server is killed and comes back after `--down` seconds. A client process plays ALFWorld over HTTP into one store
until the time is up. In the first 60 % of the time it is killed (SIGKILL) every `--kill` seconds and started again with
the same arguments; the last client plays without a kill and is stopped by SIGINT.

Printed:

- the client's resident memory twice a minute, and the slope of the last client's, after the first quarter of its life;
  the slope also of its Python objects, in thousands of blocks (`sys.getallocatedblocks`), which tells a leak from
  what allocators keep. The client's engine keeps 2 games and 1,000 states of each, so that these limits are reached
  soon;
- for each kind of fault, how many the clients had to meet by the servers' logs, and how many they counted. All logs are
  written request by request, so that a kill loses none. A request that is open when its server is killed ends as
  "server killed"; the client also counts those that the server had not read yet. A fault given in the last half second
  of a client that is killed may be uncounted. "unreachable" is counted while a server is down and given by none;
- episodes: `lost` were in the store at some time and are not at the end, or were counted by the last client and are not
  there; `left out` are missing in the order of play, at most those in flight at the end. All are played again against
  servers without faults: `different` ones have other turns.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

from faulty_server import ANSWERED, BEGUN, HUNG, LEFT, Letters

from prm_gym.envs import engine
from prm_gym.envs.games import find_games
from prm_gym.inference.http_connections import BROKEN, TIME_OUT
from prm_gym.policies.server import ServerPolicy
from prm_gym.rollout import draw_games, rollout
from prm_gym.store import finished_ids, read_episodes

SERVER = Path(__file__).with_name("faulty_server.py")
PORT = 18700
WITH_KILLS = 0.6  # of the time
CLIENT_GONE, SERVER_KILLED = "client killed or stopped", "server killed"


class FaultLog(logging.Handler):
    """Appends every fault that the client counts to a file: time, server and kind."""

    def __init__(self, file: Path) -> None:
        super().__init__(logging.INFO)
        self.file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def emit(self, record: logging.LogRecord) -> None:
        if kind := getattr(record, "fault", None):
            server = record.getMessage().split()[1]
            os.write(self.file, f"{time.time():.3f} {server} {kind}\n".encode())


def count_blocks(file: Path) -> None:
    """Append the number of blocks that Python's allocator has given to this process to `file`, every 5 seconds."""
    with file.open("a", buffering=1) as lines:
        while True:
            time.sleep(5)
            lines.write(f"{time.monotonic()} {sys.getallocatedblocks() / 1000}\n")


def client(out: Path, urls: list[str], log: Path, rollouts: int, most: int | None, options: argparse.Namespace) -> None:
    """Play `rollouts` of each of `most` games into `out` until all are done, or SIGINT."""
    logging.getLogger("prm_gym").addHandler(FaultLog(log))
    threading.Thread(target=count_blocks, args=(log.with_suffix(".blocks"),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in jobs of the background
    engine.set_limits(games=2, states=1000)
    policy = ServerPolicy(
        urls, "tiny", prompt="full", tokenizer=Letters(), timeout=options.timeout, concurrency=options.in_flight
    )
    shared = {"concurrency": options.in_flight, "progress": False}
    with suppress(KeyboardInterrupt):
        rollout(find_games(options.games, "train"), policy, out, rollouts_per_game=rollouts, max_games=most, **shared)


class Servers:
    """The faulty servers; each start writes a log of its own."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder, self.logs = options, folder, list[Path]()
        self.running = [self.start(number) for number in range(options.servers)]
        self.urls = [f"http://127.0.0.1:{PORT + number}/v1" for number in range(options.servers)]
        for url in self.urls:
            wait(url)

    def start(self, number: int) -> subprocess.Popen[bytes]:
        o = self.options
        self.logs.append(self.folder / f"server-{len(self.logs)}.log")
        flags = {"port": PORT + number, "share": o.share, "seed": len(self.logs), "mean": o.mean, "sigma": o.sigma}
        flags["log"] = self.logs[-1]
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        return subprocess.Popen([sys.executable, str(SERVER), *words])

    def kill(self, number: int) -> None:
        self.running[number].kill()
        self.running[number].wait()

    def stop(self) -> None:
        for number in range(len(self.running)):
            self.kill(number)


def wait(url: str) -> None:
    """Until the server answers."""
    while True:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/models", timeout=10).close()
            return
        time.sleep(0.1)


def due(logs: list[Path], timeout: float, ends: list[float]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """By the servers' logs: the faults that clients had to count, those of them given in the last half second before
    one of `ends` (times at which a client ended), and all requests by how they ended otherwise.
    """
    faults, late, others = Counter[str](), Counter[str](), Counter[str]()
    for log in logs:
        for line in log.read_text().splitlines():
            at, seconds, outcome = line.split(maxsplit=2)
            if outcome in (LEFT, HUNG):  # a time-out, or the client was killed
                outcome = TIME_OUT if float(seconds) > 0.95 * timeout else CLIENT_GONE
            if outcome in (BEGUN, ANSWERED, CLIENT_GONE):
                others[outcome] += 1
                continue
            faults[outcome] += 1
            late[outcome] += any(0 <= end - float(at) < 0.5 for end in ends)
    faults[SERVER_KILLED] = others[BEGUN] - others[ANSWERED] - others[CLIENT_GONE] - faults.total()
    return faults, late, others


def counted(log: Path, kills: list[tuple[float, str]], down: float) -> Counter[str]:
    """The faults in a client's log. Broken connections while a server is down come of its kill."""
    faults = Counter[str]()
    for line in log.read_text().splitlines():
        at, server, kind = line.split(maxsplit=2)
        killed = any(url == server and 0 <= float(at) - kill <= down for kill, url in kills)
        faults[SERVER_KILLED if kind == BROKEN and killed else kind] += 1
    return faults


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", type=Path)
    parser.add_argument("--minutes", type=float, default=60, help="of rollouts, in all")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--mean", type=float, default=1.0, help="seconds that an answer takes")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, default=48)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--restart", type=float, default=90.0, help="seconds between restarts of a server")
    parser.add_argument("--down", type=float, default=10.0)
    parser.add_argument("--kill", type=float, default=120.0, help="seconds between kills of the client")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak(options, Path(folder))


def soak(options: argparse.Namespace, folder: Path) -> None:
    out, seconds = folder / "faulty", 60 * options.minutes
    # No client can play more: an episode has 30 requests, but for a few that are won at random.
    rollouts = 1 + int(
        1.5 * seconds * options.in_flight / (30 * options.mean) / len(find_games(options.games, "train"))
    )
    spawn = multiprocessing.get_context("spawn")
    servers, seeded = Servers(options, folder), random.Random(0)
    seen, logs, memory = set[str](), list[Path](), list[tuple[float, float]]()
    ends, kills = list[float](), list[tuple[float, str]]()  # of clients, and of servers
    begun = time.monotonic()
    print(options, flush=True)

    def start() -> multiprocessing.process.BaseProcess:
        logs.append(folder / f"client-{len(logs)}.log")
        memory.clear()
        process = spawn.Process(target=client, args=(out, servers.urls, logs[-1], rollouts, None, options))
        process.start()
        return process

    try:
        process, down = start(), dict[int, float]()
        next_kill, next_restart, next_line = options.kill, options.restart, 30.0
        while process.is_alive() and (now := time.monotonic() - begun) < seconds:
            time.sleep(1)
            memory.append((now, megabytes(process.pid or 0)))
            if now >= next_line:
                seen |= finished_ids(out)
                print(f"{now:6.0f} s  client {memory[-1][1]:6.1f} MB  {len(seen)} episodes", flush=True)
                next_line += 30
            if next_kill <= now < WITH_KILLS * seconds:
                ends.append(time.time())
                process.kill()
                process.join()
                seen |= finished_ids(out)
                process, next_kill = start(), now + options.kill
            if now >= next_restart:
                number = seeded.randrange(options.servers)
                kills.append((time.time(), servers.urls[number]))
                servers.kill(number)
                down[number], next_restart = now + options.down, now + options.restart
            for number in [number for number, until in down.items() if until <= now]:
                servers.running[number] = servers.start(number)
                del down[number]
        ends.append(time.time())
        os.kill(process.pid or 0, signal.SIGINT)
        process.join()
    finally:
        servers.stop()
    print(f"client ended with status {process.exitcode} after {time.monotonic() - begun:.0f} s")
    print(f"{len(logs) - 1} kills of the client, {len(kills)} of a server")
    lines = logs[-1].with_suffix(".blocks").read_text().splitlines()
    blocks = [(float(at), float(count)) for at, count in map(str.split, lines)]
    for what, unit, values in (("resident memory", "MB", memory), ("Python objects", "thousand blocks", blocks)):
        steady = values[len(values) // 4 :]
        low, high = min(value for _, value in steady), max(value for _, value in steady)
        slope = 3600 * statistics.linear_regression(*zip(*steady, strict=True)).slope
        life = "of the last client after a quarter of its life"
        print(f"{what} {life}: {low:.1f} to {high:.1f} {unit}, {slope:+.1f} an hour")
    told = json.loads((out / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
    faults, late, others = due(servers.logs, options.timeout, ends)
    found = [counted(log, kills, options.down) for log in logs]
    print("requests:", ", ".join(f"{number} {how}" for how, number in others.items()), "and the faults:")
    print(f"{'':24s}{'due':>8s}{'counted':>9s}{'in the last half second of a client':>37s}")
    for kind in sorted(faults | sum(found, Counter())):
        print(f"{kind:24s}{faults[kind]:8d}{sum(each[kind] for each in found):9d}{late[kind]:37d}")
    own = Counter(told["faults"])
    own.subtract(counted(logs[-1], [], 0))
    print(f"metrics.jsonl of the last client against its log: {dict(+own + -own) or 'the same'}")
    compare(options, folder, rollouts, seen, told)


def compare(options: argparse.Namespace, folder: Path, rollouts: int, seen: set[str], told: dict[str, int]) -> None:
    """Play the same games without faults and without latency, and hold the stores against each other."""
    order = [game.game_id for game in draw_games(find_games(options.games, "train"), 0)]
    ids, of_game = Counter[str](), Counter[str]()
    for episode in read_episodes(folder / "faulty"):
        ids[episode.episode_id] += 1
        of_game[episode.game_id] += 1
    begun = max(map(order.index, of_game)) + 1
    options.share, options.mean = 0.0, 0.0
    sound = Servers(options, folder)
    try:
        client(folder / "clean", sound.urls, folder / "clean.log", rollouts, begun, options)
    finally:
        sound.stop()
    expected = {episode.episode_id: episode for episode in read_episodes(folder / "clean")}
    different = sum(episode != expected.get(episode.episode_id) for episode in read_episodes(folder / "faulty"))
    lost = len(seen - ids.keys()) + max(0, told["resumed"] + told["episodes"] - len(ids))
    left_out = sum(rollouts - of_game[game] for game in order[: begun - 1])
    print(f"{len(ids)} episodes of {begun} games: {lost} lost, {ids.total() - len(ids)} doubled, {different} different")
    print(f"{left_out} left out ({options.in_flight} were in flight), {told['failures']} failed")


if __name__ == "__main__":
    main()
