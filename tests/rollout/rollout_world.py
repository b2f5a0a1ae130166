"""A corridor environment and policies for it: small, exact, and importable by a child process, here one that a test
kills.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.envs.games import Game
from prm_gym.types import Response, State

if TYPE_CHECKING:
    from prm_gym.rollout.monitoring import Summary

COMMANDS = ["go left", "go right", "open door"]


def make_games(count: int, split: str = "train") -> list[Game]:
    return [
        Game(f"{split}/walk-{i}/trial", split, "pick_and_place_simple", path=Path(f"/nowhere/{i}"))
        for i in range(count)
    ]


class Corridor:
    """The door stands (game number mod 4) + 1 steps to the right; opening it there wins."""

    steps_taken = 0  # of all corridors

    def __init__(self, limit: int = 8) -> None:
        self.limit = limit
        self.closed = False

    def reset(self, *, options: dict[str, Any], seed: int | None = None) -> tuple[str, dict[str, Any]]:
        number = int(Path(options["game_file"]).name)
        self.door, self.place, self.steps = number % 4 + 1, 0, 0
        return f"You stand in corridor {number}.", self._info(False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        Corridor.steps_taken += 1
        self.steps += 1
        won = action == "open door" and self.place == self.door
        if action == "go right":
            self.place += 1
        elif action == "go left":
            self.place -= 1
        text = f"You are at {self.place}." if action in COMMANDS else "Nothing happens."
        return text, float(won), won, self.steps >= self.limit and not won, self._info(won)

    def _info(self, won: bool) -> dict[str, Any]:
        return {"task": "open the door", "task_type": "walk", "admissible_commands": COMMANDS, "won": won}

    def close(self) -> None:
        self.closed = True


class Walker:
    """Draws a command by the seed alone. `before` is awaited first: a latency, a failure, a count."""

    def __init__(
        self,
        before: Callable[[State], Awaitable[None]] | None = None,
        *,
        commands: Sequence[str] = (*COMMANDS, "Sing"),
        policy_id: str = "walker",
    ) -> None:
        self.policy_id = policy_id
        self.before, self.commands = before, commands
        self.calls: list[tuple[State, int, int]] = []
        self.closed = False

    async def settings(self) -> dict[str, Any]:
        return {"kind": "walker"}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        self.calls.append((state, n, seed))
        if self.before:
            await self.before(state)
        rng = random.Random(seed)
        drawn = [rng.choice(self.commands) for _ in range(n)]
        return [
            Response(
                f"REASON: because\nACTION: {action}",
                "because",
                action,
                prompt_tokens=10,
                response_tokens=5,
                logprob=-seed % 64 / 8,
                sampling_logprob=-seed % 32 / 8,
            )
            for action in drawn
        ]

    async def close(self) -> None:
        self.closed = True


def content(folder: Path) -> dict[str, Any]:
    """The store's episodes by id; an id met twice is an error."""
    from prm_gym.store import read_episodes

    episodes = list(read_episodes(folder))
    by_id = {episode.episode_id: episode for episode in episodes}
    assert len(by_id) == len(episodes), "an episode is there twice"
    return by_id


def run(policy: Walker, out: Path, games: int = 8, **options: Any) -> Summary:
    """Three rollouts a game, if not asked otherwise."""
    from prm_gym.rollout import rollout

    options = {"make_env": Corridor, "progress": False, "rollouts_per_game": 3, "seed": 5, **options}
    return rollout(make_games(games), policy, out, **options)


def child(out: Path, *more: str, pause: float, **variables: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PAUSE": str(pause), **variables}
    return subprocess.Popen([sys.executable, __file__, str(out), *more], env=env)


def kill_again_and_again(out: Path, *more: str, ready: Callable[[], bool]) -> None:
    """Start the same command until it ends by itself; the first ones are killed soon after they wrote something."""
    for delay in (0.3, 0.6):
        process = child(out, *more, pause=0.03)
        while process.poll() is None and not ready():
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert child(out, *more, pause=0).wait() == 0


if __name__ == "__main__":  # the child that is killed: collects slowly into argv[1]
    from prm_gym.rollout import rollout, rollout_branches

    async def pause(state: State) -> None:
        await asyncio.sleep(float(os.environ["PAUSE"]))

    if sys.argv[2:]:
        rollout_branches(
            sys.argv[2],
            make_games(12),
            Walker(pause),
            sys.argv[1],
            make_env=Corridor,
            concurrency=4,
            continuations=3,
            progress=False,
        )
    else:
        rollout(
            make_games(12),
            Walker(pause),
            sys.argv[1],
            rollouts_per_game=5,
            make_env=Corridor,
            concurrency=4,
            progress=False,
            tensorboard=bool(os.environ.get("TENSORBOARD")),
        )
