"""ScienceWorld: primary-school science in text, thirty tasks with many variations each.

    pip install 'prm-gym[scienceworld]', and a Java runtime, such as `apt install default-jre-headless`

The reward is the increase of ScienceWorld's score, divided by 100. ScienceWorld scores focusing on a wrong object with
-100; here that reward is 0 and the episode ends as lost. Every environment is a Java process; keep `concurrency` small.
"""

from __future__ import annotations

import shutil
from typing import Any, SupportsFloat

import gymnasium
from gymnasium.spaces import Text

from prm_gym.envs.contract import Task
from prm_gym.errors import UserError

_VARIATIONS = {"train": "train", "valid_seen": "dev", "valid_unseen": "test"}  # ScienceWorld's names of the splits
_NO_LIMIT = 2**31 - 1  # the rollout sets the step limit


class ScienceWorld(gymnasium.Env[str, str]):
    """The variations of `task_names`, of all tasks if None.

    `simplifications` are those of ScienceWorld, such as "easy". `list_commands` adds the admissible commands to `info`;
    there are thousands. `expert_action` is the next step of ScienceWorld's gold path while the actions follow it.
    """

    def __init__(
        self, task_names: list[str] | None = None, *, simplifications: str = "", list_commands: bool = False
    ) -> None:
        from scienceworld import ScienceWorldEnv  # `NamedEnvironment` reports its absence

        if shutil.which("java") is None:
            raise UserError("scienceworld", "there is no Java runtime", "install one: apt install default-jre-headless")
        self.observation_space = Text(65536, min_length=0)
        self.action_space = Text(1024, min_length=0)
        self._env = ScienceWorldEnv("", envStepLimit=_NO_LIMIT)
        known = self._env.get_task_names()
        for name in task_names or ():
            if name not in known:
                raise UserError("task_names", f"no task {name!r}", f"say one of {', '.join(known)}")
        self._names, self._simplifications, self._lists = task_names or known, simplifications, list_commands
        self._score, self._task, self._gold = 0, "", list[str]()

    def tasks(self, split: str) -> list[Task]:
        """Every variation of ScienceWorld's train, dev (valid_seen) or test (valid_unseen) set."""
        if split not in _VARIATIONS:
            raise UserError("scienceworld", f"has no split {split!r}", f"say {', '.join(_VARIATIONS)}", field="split")
        found = []
        for name in self._names:
            self._env.load(name, 0, self._simplifications)
            for variation in getattr(self._env, f"get_variations_{_VARIATIONS[split]}")():
                options = {"task_name": name, "variation": int(variation)}
                found.append(Task(f"{split}/{name}/{variation}", split, name, options=options))
        return found

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin variation `options["variation"]` of `options["task_name"]`; by default the first of each."""
        super().reset(seed=seed)
        chosen = {"task_name": self._names[0], "variation": 0, **(options or {})}
        self._env.load(chosen["task_name"], chosen["variation"], self._simplifications, True)
        self._gold = self._env.get_gold_action_sequence()
        observation, info = self._env.reset()
        self._score = 0
        self._task = info["taskDesc"].removeprefix("Task Description:").strip()
        return observation.strip(), self._info(info)

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        followed = self._gold[:1] == [action.strip()]
        self._gold = self._gold[1:] if followed else []
        observation, _, done, info = self._env.step(action)
        score = max(self._score, info["score"])  # after a failure, rewards stay as they were
        reward, self._score = (score - self._score) / 100, score
        return observation.strip(), reward, bool(done), False, self._info(info)

    def close(self) -> None:
        self._env.close()

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        return {
            "task": self._task,
            "admissible_commands": sorted(set(info["valid"])) if self._lists else None,
            "won": info["score"] == 100,
            "expert_action": self._gold[0] if self._gold else None,
        }
