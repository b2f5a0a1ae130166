"""An environment and its tasks by name, so that no host has to know paths or options of `reset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, cast

import gymnasium

from prm_gym.envs import ALFWORLD, MAX_EPISODE_STEPS
from prm_gym.envs.contract import Environment
from prm_gym.envs.games import find_games
from prm_gym.envs.named import NamedEnvironment, named_by
from prm_gym.errors import UserError


@dataclass(frozen=True)
class World:
    """`make()` gives an environment that keeps the contract of `envs.contract`; `tasks` maps the name of a task to the
    arguments of `reset` that begin it. An episode ends after `max_episode_steps` actions.
    """

    make: Callable[[], Environment]
    tasks: Mapping[str, Mapping[str, Any]]
    max_episode_steps: int = MAX_EPISODE_STEPS

    def arguments(self, task: str) -> Mapping[str, Any]:
        """The arguments of `reset` for `task`. Raises `UserError` if there is no such task."""
        if task not in self.tasks:
            some = ", ".join(sorted(self.tasks)[:3])
            raise UserError("task", f"no task {task!r:.100}", f"name one of the {len(self.tasks)}, such as {some}")
        return self.tasks[task]


def alfworld(games: str | PathLike[str], split: str = "train", *, max_episode_steps: int = MAX_EPISODE_STEPS) -> World:
    """The games of `split` in the folder `games`, on the exact engine; a task is named by its game id.

    Raises `UserError` as `find_games`.
    """
    found = find_games(games, split)
    files = [game.path for game in found]
    make = partial(gymnasium.make, ALFWORLD, max_episode_steps=max_episode_steps, game_files=files)
    return World(
        cast(Callable[[], Environment], make),
        {game.game_id: game.reset_arguments() for game in found},
        max_episode_steps,
    )


def named(env: str | NamedEnvironment, split: str = "train", *, max_episode_steps: int = MAX_EPISODE_STEPS) -> World:
    """The tasks of `split` of any text environment, by its gymnasium id or factory (see `envs.named`). Rewards are as
    it gives them.

    Raises `UserError` as `NamedEnvironment`.
    """
    env = named_by(env) if isinstance(env, str) else env
    return World(env.make, {task.game_id: task.reset_arguments() for task in env.tasks(split)}, max_episode_steps)


def configured(games: str, env: str, split: str, max_episode_steps: int) -> World:
    """The world of a host's configuration: `named(env)` if there is an `env`, otherwise `alfworld(games)`."""
    if env:
        return named(env, split, max_episode_steps=max_episode_steps)
    return alfworld(games, split, max_episode_steps=max_episode_steps)
