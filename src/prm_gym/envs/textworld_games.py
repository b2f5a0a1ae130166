"""Games of TextWorld's own generator, one for each seed.

    NamedEnvironment(
        factory="prm_gym.envs.textworld_games:TextWorldGames",
        kwargs={"challenge": "tw-treasure_hunter", "settings": {"level": 5}},
    )

Generating and compiling a game takes about a second and is done once; `folder` caches it. The reward is the increase of
the game's score, divided by its maximum. `info["expert_action"]` is the next command of TextWorld's winning policy.
TextWorld holds global state: use several processes instead of more concurrency.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
from gymnasium.spaces import Text

from prm_gym.envs.contract import Task
from prm_gym.envs.games import SPLITS
from prm_gym.envs.textworld_lock import exclusive
from prm_gym.errors import UserError
from prm_gym.user_cache import user_cache

_ATTEMPTS, _NEXT_SEED = 10, 10_000_000  # the step is above the seeds of all splits
_BANNER = re.compile(r"\A[\s\\/|_$]*\n")  # the logo at the start of a game
# What the interpreter does rather than the game: it asks back, starts again, or reads and writes files that the other
# games share. The parser tells words apart by their first nine letters.
_INTERPRETER = {"q", "quit", "restart", "restore", "save", "script", "noscript", "unscript", "transcrip", "notranscr"}
_REFUSED = "That's not a verb I recognise."  # the parser's own words
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# The prompt and the status line behind it or, at the end of a game, the offer to start again.
_AFTER = re.compile(r"\s*(>\s+-= .+ =-\d+/\d+\s*|\*\*\* (The End|You lost!) \*\*\*.*)\Z", re.DOTALL)


class TextWorldGames(gymnasium.Env[str, str]):
    """Games of one of TextWorld's challenges.

    Parameters
    ----------
    challenge: tw-simple, tw-coin_collector, tw-treasure_hunter or tw-cooking.
    settings: options of the challenge, as in the command `tw-make`, such as {"level": 5}.
    grammar: options of the texts, as in TextWorld's `GrammarOptions`; with {"only_last_action": True} the task states
        the goal without the way there.
    games: the number of tasks of each split.
    folder: the cache of compiled games; by default `prm_gym/textworld` in `$XDG_CACHE_HOME` (`~/.cache`).
    """

    def __init__(
        self,
        challenge: str,
        settings: dict[str, Any] | None = None,
        *,
        grammar: dict[str, Any] | None = None,
        games: int = 1000,
        folder: str | None = None,
    ) -> None:
        import textworld  # `NamedEnvironment` reports its absence
        from textworld.challenges import CHALLENGES

        if challenge not in CHALLENGES:
            raise UserError("challenge", f"no challenge {challenge!r}", f"say one of {', '.join(CHALLENGES)}")
        self.observation_space = Text(65536, min_length=0)
        self.action_space = Text(1024, min_length=0)
        self._challenge, self._settings, self._grammar = challenge, settings or {}, grammar or {}
        self._games = games
        made_with = json.dumps([textworld.__version__, challenge, self._settings, self._grammar], sort_keys=True)
        kind = f"{challenge}-{blake2b(made_with.encode(), digest_size=6).hexdigest()}"
        self._folder = Path(folder or user_cache() / "textworld") / kind
        self._env: Any = None
        self._state: Any = None
        self._score = 0

    def tasks(self, split: str) -> list[Task]:
        """`games` seeds for each split; splits share none."""
        if split not in SPLITS:
            raise UserError(self._challenge, f"has no split {split!r}", f"say {', '.join(SPLITS)}", field="split")
        first = SPLITS.index(split) * 1_000_000
        seeds = range(first, first + self._games)
        return [Task(f"{split}/{self._challenge}/{seed}", split, self._challenge, seed=seed) for seed in seeds]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin the game of `seed`, or of a drawn one if None. The observation is the room; `info` holds the task."""
        import textworld

        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31)) if seed is None else seed
        wanted = textworld.EnvInfos(
            description=True,
            admissible_commands=True,
            policy_commands=True,
            won=True,
            lost=True,
            score=True,
            max_score=True,
            objective=True,
        )
        with exclusive():
            path = self._compiled(seed)
            self.close()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Jericho cannot score the game, but TextWorld can
                self._env = textworld.start(str(path), wanted)
                self._state = self._env.reset()
        self._score = 0
        return self._state.description.strip(), self._info()

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Send `action` to the game; a command to the interpreter or to TextWorld is refused in the parser's words.

        Control characters, which can hang or crash the interpreter, are sent as spaces, others outside ASCII as "?".
        """
        action = _CONTROL.sub(" ", action).encode("ascii", "replace").decode()
        if self._outside_the_game(action):
            return _REFUSED, 0.0, False, False, self._info()
        with exclusive():
            self._state, _, done = self._env.step(action)
        increase, self._score = self._state.score - self._score, self._state.score
        text = _AFTER.sub("", self._state.feedback).strip()
        return text, increase / max(1, self._state.max_score), bool(done), False, self._info()

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _outside_the_game(self, action: str) -> bool:
        words = re.findall(r"[a-z-]+", action.lower())
        asked = any(word[:9] in _INTERPRETER or word.startswith("tw-") for word in words)
        return asked and action not in (self._state.admissible_commands or ())

    def _info(self) -> dict[str, Any]:
        state = self._state
        expert = state.policy_commands or [None]
        return {
            "task": _BANNER.sub("", state.objective).strip(),
            "admissible_commands": list(state.admissible_commands or []),
            "won": bool(state.won),
            "expert_action": expert[0],
        }

    def _compiled(self, seed: int) -> Path:
        """The compiled game from the cache, where a file appears only when it is complete."""
        path = self._folder / f"{seed}.z8"
        if not path.exists():
            from textworld.generator import compile_game

            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder) as work:
                compile_game(*self._generated(seed, Path(work, path.name)))
                for file in (path.with_suffix(".json"), path):  # the game's facts go first
                    Path(work, file.name).replace(file)
        return path

    def _generated(self, seed: int, path: Path) -> tuple[Any, Any]:
        """The game of `seed` and its options. Some maps have no quest of the length asked for: the next of a series of
        seeds is taken instead.
        """
        from textworld import GameOptions
        from textworld.challenges import CHALLENGES
        from textworld.generator.chaining import QuestGenerationError

        _, make, _ = CHALLENGES[self._challenge]
        for attempt in range(_ATTEMPTS):
            options = GameOptions()
            options.seeds, options.path = (seed + attempt * _NEXT_SEED) % 2**31, str(path)
            for name, value in self._grammar.items():
                setattr(options.grammar, name, value)
            with suppress(QuestGenerationError):
                return make(self._settings, options), options
        problem = f"has no game of these settings for seed {seed} and {_ATTEMPTS - 1} more"
        raise UserError(self._challenge, problem, "ask for fewer rooms or a shorter quest", field="settings")
