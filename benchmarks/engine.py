"""The exact engine against stock alfworld, interleaved in one process on the same commands.

    python benchmarks/engine.py                    # about three minutes; --steps and --games for more

Figures are processor time. Every command is carried out by stock first and then by the exact engine, in `small` games
and in `full` ones (the size of real ALFWorld); texts are compared on the way. Then, without stock: known edges, loading
with a warm cache, and what the gymnasium layer adds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from time import process_time

import gymnasium
from rich.console import Console
from rich.table import Table

import prm_gym.envs
from prm_gym.envs import engine
from prm_gym.envs.engine.exact_game import ExactGame
from prm_gym.envs.engine_interface import Play
from prm_gym.envs.games import Game, find_games
from prm_gym.envs.households import generate
from prm_gym.envs.stock import StockGame

MICRO = 1e6


@dataclass
class Timings:
    """Seconds a step by kind; `new` and `known` are the exact engine's, into a new state and along a known edge."""

    stock: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=4, help="games of each preset (default %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="steps in a game beside stock (default %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    table = Table("processor time", "small", "full", title="stock and exact engine")
    with tempfile.TemporaryDirectory() as folder:
        rows: dict[str, list[str]] = {}
        for preset in ("small", "full"):
            games = make_games(Path(folder, preset), preset, arguments.games)
            for name, figure in measure(games, arguments.steps).items():
                rows.setdefault(name, []).append(figure)
        for name, figures in rows.items():
            table.add_row(name, *figures)
    console.print(table)


def make_games(folder: Path, preset: str, count: int) -> list[Game]:
    generate(folder, preset=preset, splits={"train": count}, seed=5, progress=False)
    games = find_games(folder)
    engine.compile_games(games, progress=False)
    engine.load(games[0]).start().step("look")  # what is paid once in a process
    engine.set_limits()
    return games


def measure(games: list[Game], steps: int) -> dict[str, str]:
    timings = Timings()
    for number, file in enumerate(games):
        beside_stock(file, steps, random.Random(number), timings)
    for number, file in enumerate(games * 4):
        alone(file, random.Random(100 + number), timings)
    stock, cold, new = mean(timings.stock), mean(timings.cold), mean(timings.new)
    core, bare, wrapped = known_edge(games[0])
    return {
        "stock, a step": f"{stock * 1e3:.1f} ms",
        "exact, a step into a new state, first walk in a game": f"{cold * MICRO:.0f} µs = stock / {stock / cold:.0f}",
        "  the median of those": f"{median(timings.cold) * MICRO:.0f} µs = stock / {stock / median(timings.cold):.0f}",
        "exact, a step into a new state, later walks": f"{new * MICRO:.0f} µs = stock / {stock / new:.0f}",
        "exact, a step along a known edge": f"{core * MICRO:.2f} µs = stock / {stock / core:.0f}",
        "the environment adds to a step": f"{(bare - core) * MICRO:.2f} µs",
        "gymnasium's wrappers add": f"{(wrapped - bare) * MICRO:.2f} µs",
        "load and reset, warm cache": f"{mean(timings.load) * 1e3:.1f} ms (at most {max(timings.load) * 1e3:.1f})",
    }


def beside_stock(file: Game, steps: int, rng: random.Random, timings: Timings) -> None:
    """One walk with both engines; of the exact engine's steps those into states that are new are counted."""
    before = process_time()
    game = engine.load(file)
    exact = game.start()
    timings.load.append(process_time() - before)
    stock = StockGame(file).start()
    for _ in range(steps):
        command = rng.choice(exact.admissible_commands)
        timings.stock.append(timed(stock, command))
        is_new, seconds = step(game, exact, command)
        if is_new:
            timings.cold.append(seconds)
        assert (exact.observation, list(exact.admissible_commands), exact.won) == (
            stock.observation,
            list(stock.admissible_commands),
            stock.won,
        )


def alone(file: Game, rng: random.Random, timings: Timings) -> None:
    """A further walk of 50 steps through a game that others have walked."""
    game = engine.load(file)
    play = game.start()
    for _ in range(50):
        is_new, seconds = step(game, play, rng.choice(play.admissible_commands))
        if is_new:
            timings.new.append(seconds)


def step(game: object, play: Play, command: str) -> tuple[bool, float]:
    """Whether the step led into a state not seen before, and its time."""
    assert isinstance(game, ExactGame)
    states = game.graph.states
    seconds = timed(play, command)
    return game.graph.states > states, seconds


def timed(play: Play, command: str) -> float:
    before = process_time()
    play.step(command)
    return process_time() - before


def known_edge(file: Game) -> tuple[float, float, float]:
    """Seconds a step along known edges: the engine alone, the bare environment, and as `gymnasium.make` gives it."""
    play = engine.load(file).start()
    rng = random.Random(0)
    commands = []
    for _ in range(30):
        commands.append(rng.choice([c for c in play.admissible_commands if c != "help"]))
        play.step(commands[-1])
    env = gymnasium.make(prm_gym.envs.ALFWORLD, game_files=[file])
    bare = env.unwrapped

    def repeat(start: Callable[[], Callable[[str], object]]) -> float:
        best = []
        for _ in range(200):
            take = start()
            before = process_time()
            for command in commands:
                take(command)
            best.append((process_time() - before) / len(commands))
        return median(best)

    def reset(environment: gymnasium.Env[str, str]) -> Callable[[str], object]:
        environment.reset()
        return environment.step

    core = repeat(lambda: play.game.start().step)
    return core, repeat(lambda: reset(bare)), repeat(lambda: reset(env))


if __name__ == "__main__":
    main()
