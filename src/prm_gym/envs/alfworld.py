"""`prm_gym/ALFWorld-v0`: text households as a gymnasium environment.

The class wraps an engine (`prm_gym.envs.engine_interface`). It adds the choice of the game, the reward, the step limit
and the info dictionary. The texts are the engine's: those of stock alfworld, byte for byte.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any, SupportsFloat, TypedDict

import gymnasium
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Text
from gymnasium.wrappers import TimeLimit

from prm_gym.envs import STEP_LIMIT
from prm_gym.envs import engine as exact
from prm_gym.envs.engine_interface import Play, PlayableGame, Snapshot
from prm_gym.envs.games import Game, default_games, game_id, task_type
from prm_gym.envs.stock import StockGame
from prm_gym.envs.text_space import ObservationText
from prm_gym.errors import UserError

ENGINES = ("exact", "stock")
# The games' texts are ASCII; human-written tasks contain a few typographic marks.
CHARACTERS = string.printable + "\u00e9\u2013\u2014\u2018\u2019\u201c\u201d\u2026"


class EpisodeSnapshot(TypedDict):
    """A state of the environment as plain data: the game, the number of steps taken, and the engine's state."""

    game_id: str
    steps: int
    play: Snapshot


class ALFWorldEnv(gymnasium.Env[str, str]):
    """One household task at a time, chosen at every reset from `game_files`.

    Parameters
    ----------
    game_files: paths of `game.tw-pddl` files, or the games of `find_games`; the train games of $ALFWORLD_DATA if None.
        A reset without `options` draws one of them uniformly with the environment's generator.
    engine: "exact" (the default: fast, the same texts) or "stock" (alfworld's own).
    max_episode_steps: steps after which the episode is truncated; None for no limit. Commands that the game does not
        accept count as steps. In `gymnasium.make` the default is 30 (the paper's) and -1 means no limit; `make` passes
        the limit to this class, in place of the `TimeLimit` wrapper.
    cache: the folder of compiled games, see `prm_gym.envs.engine`; None for the default.
    render_mode: with "ansi", `render` gives the last command and the observation as text; None for no rendering.

    Step and reset
    --------------
    The reward is 1.0 on the step that wins and 0.0 on every other. `terminated` means that the game is won, `truncated`
    that the limit was reached without a win. `info` has `task`, `task_type`, `game_file`, `game_id`, `won` and
    `admissible_commands` (a sorted list of str).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012  (gymnasium requires this form)

    def __init__(
        self,
        game_files: Sequence[str | PathLike[str]] | None = None,
        *,
        engine: str = "exact",
        max_episode_steps: int | None = None,
        cache: str | PathLike[str] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if game_files is None:
            game_files = default_games()
        if isinstance(game_files, (str, PathLike)) or len(game_files) == 0:
            raise UserError("game_files", "not a list of at least one path", "use prm_gym.envs.games.find_games")
        if engine not in ENGINES:
            raise UserError("engine", f"no engine {engine!r}", f"use one of {', '.join(ENGINES)}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise UserError("max_episode_steps", f"{max_episode_steps} is no limit", "use at least 1, or None")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError("render_mode", f"no mode {render_mode!r}", "use 'ansi', or None")
        self.game_files = game_files
        self.engine = engine
        self.max_episode_steps = max_episode_steps
        self.cache = cache
        self.render_mode = render_mode
        self.action_space = Text(1024, min_length=0, charset=CHARACTERS)
        self.observation_space = ObservationText(65536, min_length=0, charset=CHARACTERS)
        self._path = ""
        self._constant_info: dict[str, Any] = {}
        self._play: Play | None = None
        self._steps = 0
        self._over = False
        self._command: str | None = None  # the last one, None at the start and after `restore`

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode: of the game `options["game_file"]`, or of a drawn one.

        Raises `UserError` when the game file is missing or damaged, or an option is unknown.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := options.keys() - {"game_file"}:
            raise UserError("options", "unknown", "give game_file alone", field=", ".join(sorted(unknown)))
        chosen = options.get("game_file")
        if chosen is None:
            chosen = self.game_files[int(self.np_random.integers(len(self.game_files)))]
        elif not isinstance(chosen, str | PathLike):
            raise UserError("options", f"got {chosen!r}", "give the path of a game file", field="game_file")
        self._set_play(fspath(chosen), self._load(fspath(chosen)).start(), 0)
        assert self._play is not None
        return self._play.observation, self._info(self._play)

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Execute one command.

        Raises `UserError` for an action that is not a str, which does not count as a step. Raises
        `gymnasium.error.ResetNeeded` when the episode is over or not begun.
        """
        if not isinstance(action, str):
            raise UserError("action", f"got {action!r}", "give one command as a str, such as 'look'")
        play = self._play
        if play is None or self._over:
            raise ResetNeeded("the episode is over or not begun: call reset, or restore a snapshot")
        observation = play.step(action)
        self._steps += 1
        self._command = action
        won = play.won
        truncated = not won and self.max_episode_steps is not None and self._steps >= self.max_episode_steps
        self._over = won or truncated
        return observation, 1.0 if won else 0.0, won, truncated, self._info(play)

    def render(self) -> str | None:
        """The last command (`> go to desk 1`), if any, and below it the observation; None without a render mode."""
        if self.render_mode is None:
            return None
        if self._play is None:
            raise ResetNeeded("no episode has begun: call reset")
        shown = self._play.observation
        return shown if self._command is None else f"> {self._command}\n{shown}"

    def snapshot(self) -> EpisodeSnapshot:
        """The state as plain data under 1 kB, valid for the same game file in any folder."""
        if self._play is None:
            raise ResetNeeded("no episode has begun: call reset")
        return {"game_id": self._constant_info["game_id"], "steps": self._steps, "play": self._play.snapshot()}

    def restore(self, snapshot: EpisodeSnapshot) -> tuple[str, dict[str, Any]]:
        """Return to the state of `snapshot`. Returns its observation and info, as `reset` does.

        The game is looked up in `game_files` by its `game_id`. Raises `UserError` when it is missing, when its content
        is not that of the snapshot's game, and when `snapshot` is not a snapshot.
        """
        try:
            wanted, steps, state = snapshot["game_id"], snapshot["steps"], snapshot["play"]
        except (TypeError, KeyError):
            raise UserError("snapshot", f"got {snapshot!r}", "give what `snapshot` returned") from None
        path = self._path
        if self._play is None or wanted != self._constant_info["game_id"]:
            path = self._find(wanted)
        self._set_play(path, self._load(path).restore(state), steps)
        assert self._play is not None
        play = self._play
        return play.observation, self._info(play)

    def fork(self) -> ALFWorldEnv:
        """A copy of the environment at the same state; its own generator draws the same games."""
        twin = ALFWorldEnv(
            self.game_files,
            engine=self.engine,
            max_episode_steps=self.max_episode_steps,
            cache=self.cache,
            render_mode=self.render_mode,
        )
        twin.spec = self.spec
        twin.np_random.bit_generator.state = self.np_random.bit_generator.state
        if self._play is not None:
            twin._set_play(self._path, self._play.fork(), self._steps)
            twin._command = self._command
        return twin

    def _load(self, path: str) -> PlayableGame:
        return StockGame(path) if self.engine == "stock" else exact.load(path, cache=self.cache)

    def _find(self, wanted: str) -> str:
        for path in self.game_files:
            if (path.game_id if isinstance(path, Game) else game_id(path)) == wanted:
                return fspath(path)
        raise UserError("snapshot", f"no game {wanted!r} among game_files", "make the environment with that game")

    def _set_play(self, path: str, play: Play, steps: int) -> None:
        if path != self._path:
            self._constant_info = {
                "task": play.game.task,
                "task_type": task_type(path),
                "game_file": path,
                "game_id": game_id(path),
            }
        self._path, self._play, self._steps, self._command = path, play, steps, None
        at_limit = self.max_episode_steps is not None and steps >= self.max_episode_steps
        self._over = steps > 0 and (play.won or at_limit)

    def _info(self, play: Play) -> dict[str, Any]:
        return {**self._constant_info, "admissible_commands": list(play.admissible_commands), "won": play.won}


def with_own_step_limit(env: gymnasium.Env[str, str]) -> gymnasium.Env[str, str]:
    """Move the limit of `gymnasium.make` from the `TimeLimit` wrapper into the environment.

    `TimeLimit` marks a win on the last step as truncated and does not support `restore`; the environment's own limit is
    right in both cases. The spec keeps the limit, so `env.spec.max_episode_steps` and `make(env.spec)` work as usual.
    """
    if not isinstance(env, TimeLimit):
        return env
    household = env.unwrapped
    assert isinstance(household, ALFWorldEnv)
    # Not `env.spec`: every wrapper caches it, and would keep the value from before the change below.
    household.max_episode_steps = env.get_wrapper_attr("_max_episode_steps")
    if household.spec is not None:
        household.spec.max_episode_steps = household.max_episode_steps
        household.spec.additional_wrappers = (STEP_LIMIT,)
    return env.env
