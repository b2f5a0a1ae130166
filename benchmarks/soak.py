"""Rollouts against servers with faults of every kind, for a given time: lost episodes, and the growth of memory.

    python benchmarks/soak.py GAMES [--minutes 60] [--servers 2] [--share 0.1] [--mean 1.0] [--in-flight 128]

`benchmarks/faulty_server.py` runs `--servers` times; a `--share` of its answers are faults. Every `--restart` seconds
one server is killed and comes back after `--down` seconds. A client process plays ALFWorld over HTTP into one store; in
the first half of the time it is killed (SIGKILL) every `--kill` seconds and started again with the same arguments. The
last client plays until all episodes are done.

Printed: the client's resident memory twice a minute, the faults given and counted in the life of the last client, and
at the end every episode played again against servers without faults: lost, doubled and different ones. A server that
is killed breaks connections and cannot be reached for a while, which the client counts and no server gives.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from faulty_server import Letters

from prm_gym.envs.games import find_games
from prm_gym.policies.server import ServerPolicy
from prm_gym.rollout import rollout
from prm_gym.rollout.monitoring import Summary
from prm_gym.store import read_episodes

SERVER = Path(__file__).with_name("faulty_server.py")
PORT = 18700


def client(games: Path, out: Path, urls: list[str], episodes: int, options: argparse.Namespace) -> Summary:
    """Play `episodes` of the games into `out`."""
    policy = ServerPolicy(
        urls, "tiny", prompt="full", tokenizer=Letters(), timeout=options.timeout, concurrency=options.in_flight
    )
    drawn = find_games(games, "train")
    return rollout(
        drawn,
        policy,
        out,
        rollouts_per_game=episodes // len(drawn),
        concurrency=options.in_flight,
        progress=False,
    )


class Servers:
    """The faulty servers, and the faults that they have given."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.starts = options, 0
        self.running = [self.start(number) for number in range(options.servers)]
        self.urls = [f"http://127.0.0.1:{PORT + number}/v1" for number in range(options.servers)]
        self.gone = Counter[str]()  # given by servers that were killed
        for number in range(options.servers):
            self.wait(number)

    def start(self, number: int) -> subprocess.Popen[bytes]:
        self.starts += 1
        o = self.options
        flags = {"port": PORT + number, "share": o.share, "seed": self.starts, "mean": o.mean, "sigma": o.sigma}
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        return subprocess.Popen([sys.executable, str(SERVER), *words])

    def wait(self, number: int) -> None:
        """Until the server answers."""
        while True:
            try:
                self.given(number)
                return
            except OSError:
                time.sleep(0.1)

    def given(self, number: int) -> Counter[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT + number}/faults", timeout=10) as reply:
            return Counter(json.load(reply))

    def all_given(self) -> Counter[str]:
        return sum(map(self.given, range(len(self.running))), start=Counter(self.gone))

    def restart(self, number: int) -> None:
        self.gone += self.given(number)
        self.running[number].kill()
        self.running[number].wait()
        time.sleep(self.options.down)
        self.running[number] = self.start(number)
        self.wait(number)

    def stop(self) -> None:
        for process in self.running:
            process.kill()


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def counted(out: Path) -> Counter[str]:
    """The faults that the last client has counted."""
    return Counter(json.loads((out / "metrics.jsonl").read_text("utf-8").splitlines()[-1])["faults"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--mean", type=float, default=1.0, help="seconds that an answer takes")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, default=128)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--restart", type=float, default=60.0, help="seconds between restarts of a server")
    parser.add_argument("--down", type=float, default=10.0)
    parser.add_argument("--kill", type=float, default=90.0, help="seconds between kills of the client")
    parser.add_argument("--episodes", type=int, help="default: as many as fit into the time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak(options, Path(folder) / "faulty", Path(folder) / "clean")


def soak(options: argparse.Namespace, out: Path, clean: Path) -> None:
    games = len(find_games(options.games, "train"))
    # an episode has up to 30 requests of `mean` seconds, and half of the time goes into faults and kills
    fits = int(0.5 * 60 * options.minutes * options.in_flight / (30 * options.mean))
    episodes = max(games, (options.episodes or fits) // games * games)
    spawn = multiprocessing.get_context("spawn")
    servers, seeded, kills = Servers(options), random.Random(0), 0
    before = Counter[str]()  # given before the last client started
    begun = time.monotonic()
    print(f"{episodes} episodes of {games} games, {options}", flush=True)

    def start() -> multiprocessing.process.BaseProcess:
        process = spawn.Process(target=client, args=(options.games, out, servers.urls, episodes, options), daemon=True)
        process.start()
        return process

    try:
        process, shown = start(), begun
        next_kill, next_restart = begun + options.kill, begun + options.restart
        while process.is_alive():
            time.sleep(1)
            now = time.monotonic()
            if now - shown >= 30:
                shown = now
                parts = len(list(out.glob("*.parquet")))
                print(f"{now - begun:6.0f} s  client {megabytes(process.pid or 0):6.1f} MB  {parts} parts", flush=True)
            if next_kill < now < begun + 30 * options.minutes:
                process.kill()
                process.join()
                kills, next_kill, before = kills + 1, now + options.kill, servers.all_given()
                process = start()
            if now > next_restart:
                servers.restart(seeded.randrange(options.servers))
                next_restart = now + options.restart
        given, found = servers.all_given() - before, counted(out)
    finally:
        servers.stop()
    print(f"client ended with status {process.exitcode} after {time.monotonic() - begun:.0f} s")
    print(f"{kills} kills of the client, {servers.starts - options.servers} restarts of a server")
    for title, faults in (("given", before + given), ("given to the last client", given), ("counted by it", found)):
        print(f"faults {title}: {faults.total()}, {dict(sorted(faults.items()))}", flush=True)
    compare(options, out, clean, episodes)


def compare(options: argparse.Namespace, out: Path, clean: Path, episodes: int) -> None:
    """Play the same episodes without faults and without latency, and hold the stores against each other."""
    options.share, options.mean = 0.0, 0.0
    sound = Servers(options)
    try:
        client(options.games, clean, sound.urls, episodes, options)
    finally:
        sound.stop()
    expected = {episode.episode_id: episode for episode in read_episodes(clean)}
    ids, different = Counter[str](), 0
    for episode in read_episodes(out):
        ids[episode.episode_id] += 1
        different += episode != expected.get(episode.episode_id)
    lost = len(expected.keys() - ids.keys())
    print(f"{len(expected)} episodes: {lost} lost, {ids.total() - len(ids)} doubled, {different} different")


if __name__ == "__main__":
    main()
