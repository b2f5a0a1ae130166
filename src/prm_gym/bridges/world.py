"""An environment and its tasks by name, so that no host has to know paths or options of `reset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import gymnasium

from prm_gym.envs import ALFWORLD, MAX_EPISODE_STEPS
from prm_gym.envs.games import find_games
from prm_gym.errors import UserError

TextEnv = gymnasium.Env[str, str]


@dataclass(frozen=True)
class World:
    """`make()` gives an environment whose observations and actions are str; `tasks` maps the name of a task to the
    arguments of `reset` that begin it.
    """

    make: Callable[[], TextEnv]
    tasks: Mapping[str, Mapping[str, Any]]

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
    tasks = {game.game_id: {"options": {"game_file": str(game.path)}} for game in found}
    return World(partial(gymnasium.make, ALFWORLD, game_files=files, max_episode_steps=max_episode_steps), tasks)


def seeded(make: Callable[[], TextEnv], tasks: int) -> World:
    """Any text environment; its tasks are the seeds 0 to `tasks` - 1, named "0", "1", and so on."""
    return World(make, {str(seed): {"seed": seed} for seed in range(tasks)})
