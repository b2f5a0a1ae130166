"""A language model as a world: it imagines the observation that follows an action (paper, section 4.3)."""

from __future__ import annotations

from typing import Any

from prm_gym.policies.worlds import Imagined, extended
from prm_gym.prompts import Prompt
from prm_gym.prompts.world import read, world_state
from prm_gym.types import ChatModel, Response, State


class LearnedWorld:
    """Asks `model`, in process, served or an API, what follows an action.

    Train it on `labels.world` and give the `prompt` of that dataset. At temperature 0 it imagines the likeliest
    observation, above it samples one. The admissible commands of an imagined state are unknown, so the policy and Q
    need a prompt without them (`compact`, `general`).
    """

    def __init__(self, model: ChatModel, prompt: Prompt, *, name: str = "world") -> None:
        self._model, self._prompt, self.name = model, prompt, name

    async def settings(self) -> dict[str, Any]:
        return {"kind": "learned", "model": await self._model.settings()}

    async def step(self, state: State, response: Response, *, seed: int = 0) -> Imagined:
        """Raises `PromptTooLong`, and the errors of the model."""
        messages = self._prompt.messages(world_state(state, response.action))
        [said] = await self._model.reply(messages, n=1, seed=seed)
        observation, won, over = read(said.text)
        return Imagined(extended(state, response, observation, None), won, over)

    async def close(self) -> None:
        await self._model.close()
