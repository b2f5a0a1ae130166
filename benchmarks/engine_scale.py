"""Many concurrent episodes on the exact engine: steps per second, processes, and memory.

    python benchmarks/engine_scale.py              # about two minutes

Random walks of 30 steps through `full` games (the size of real ALFWorld), the games compiled before. Steps a second are
by the clock and, where other programs share the cores, also by processor time; memory is the resident size of this
process, measured by its growth.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
from rich.console import Console
from rich.table import Table

import prm_gym.envs
from prm_gym.envs import engine
from prm_gym.envs.engine.exact_game import ExactGame
from prm_gym.envs.games import find_games
from prm_gym.envs.households import generate

STEPS = 30
CONTEXT = multiprocessing.get_context("spawn")
REAL_GAMES = 3553


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=24, help="games to play (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="play the games of this folder instead of new ones")
    arguments = parser.parse_args()
    table = Table("full games, random walks of 30 steps", "", title="the exact engine at scale")
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        if arguments.folder is None:
            generate(folder, preset="full", splits={"train": arguments.games}, seed=5, progress=False)
        paths = [str(game.path) for game in find_games(folder)[: arguments.games]]
        engine.compile_games(paths, progress=False)
        for name, figure in [*in_a_new_process(memory, paths), *in_a_new_process(bounded, paths), *episodes(paths)]:
            table.add_row(name, figure)
        for workers in (1, 2):
            table.add_row(f"processes side by side: {workers}", told(*processes(paths, workers)))
    Console().print(table)


def in_a_new_process(task: Callable[[Sequence[str]], list[tuple[str, str]]], paths: Sequence[str]) -> list:
    """Growth is seen only where nothing was freed before."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        return pool.submit(task, paths).result()


def walk(path: str, seed: int) -> ExactGame:
    game = engine.load(path)
    play, rng = game.start(), random.Random(seed)
    for _ in range(STEPS):
        play.step(rng.choice(play.admissible_commands))
    assert isinstance(game, ExactGame)
    return game


def memory(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Growth by resident games, and by walks through them."""
    walk(paths[0], 0)  # what is paid once in a process
    engine.set_limits()
    before = resident_megabytes()
    for path in paths:
        engine.load(path).start()
    rows = [("memory, a game loaded", growth(before, len(paths)))]
    for walks in (1, 16):
        for path in paths:
            for seed in range(walks):
                states = walk(path, seed).graph.states
        rows.append((f"memory, a game after {walks} walks (~{states} states)", growth(before, len(paths))))
    return rows


def growth(before: float, games: int) -> str:
    each = (resident_megabytes() - before) / games
    return f"{each:.2f} MB, so {REAL_GAMES} games {each * REAL_GAMES / 1000:.1f} GB"


def bounded(paths: Sequence[str]) -> list[tuple[str, str]]:
    """One game walked 600 times, with states bounded and then as by default; each begins with another game."""
    rows = []
    for path, states in ((paths[0], 500), (paths[1], 20_000)):
        engine.set_limits(states=states)
        walk(path, 0)
        before, most = resident_megabytes(), 0
        for seed in range(600):
            most = max(most, walk(path, seed).graph.states)
        grown = resident_megabytes() - before
        rows.append((f"600 walks in a game, states={states}", f"{grown:.1f} MB more, at most {most} states"))
    return rows


def episodes(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Steps a second of 1, 64 and 4,096 episodes under way together, as plays and as gymnasium vectors."""
    rows = []
    for count in (1, 64, 4096):
        rng = random.Random(count)

        def plays(count: int = count, rng: random.Random = rng) -> None:
            under_way = [engine.load(paths[number % len(paths)]).start() for number in range(count)]
            for _ in range(STEPS):
                for play in under_way:
                    play.step(rng.choice(play.admissible_commands))

        rounds = max(1, 1024 // count)
        rows.append((f"plays, {count} at once", told(*rate(lambda: repeat(plays, rounds), rounds * count * STEPS))))  # noqa: B023
        envs = gymnasium.make_vec(
            prm_gym.envs.ALFWORLD, num_envs=count, vectorization_mode="sync", game_files=paths, max_episode_steps=STEPS
        )
        _, infos = envs.reset(seed=count)

        def vector(envs: gymnasium.vector.VectorEnv = envs, infos: dict = infos) -> None:
            for _ in range(STEPS):
                infos = envs.step([random.choice(commands) for commands in infos["admissible_commands"]])[-1]

        rounds = max(1, 256 // count)
        rows.append((f"make_vec, {count} at once", told(*rate(lambda: repeat(vector, rounds), rounds * count * STEPS))))  # noqa: B023
        envs.close()
    return rows


def processes(paths: Sequence[str], count: int) -> tuple[float, float]:
    """Steps a second of all processes together, each with walks of its own, begun when all have loaded: see `told`."""
    barrier, rates = CONTEXT.Barrier(count), CONTEXT.Queue()
    workers = [CONTEXT.Process(target=walker, args=(paths, number, barrier, rates)) for number in range(count)]
    for worker in workers:
        worker.start()
    found = [rates.get() for _ in workers]
    for worker in workers:
        worker.join()
    clock, processor = zip(*found, strict=True)
    return sum(clock), sum(processor)


def walker(paths: Sequence[str], number: int, barrier: Any, rates: Any) -> None:
    for path in paths:
        walk(path, number)
    barrier.wait()

    def walks() -> None:
        for seed in range(40):
            for path in paths:
                walk(path, 1000 * number + seed)

    rates.put(rate(walks, 40 * len(paths) * STEPS))


def repeat(task: Callable[[], None], times: int) -> None:
    for _ in range(times):
        task()


def rate(task: Callable[[], object], steps: int) -> tuple[float, float]:
    """Steps a second by the clock and by processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    task()
    return steps / (time.perf_counter() - clock), steps / (time.process_time() - processor)


def told(clock: float, processor: float) -> str:
    return f"{clock:,.0f} steps a second ({processor:,.0f} of processor time)"


def resident_megabytes() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    main()
