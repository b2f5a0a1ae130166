"""ReAct: a model that is prompted and not trained reasons before every action, and reads its earlier reasoning.

The form is that of Yao et al. (2022, arXiv:2210.03629), in wording of our own (`prompts/react.jinja`). Two things may
stand before the first observation: won episodes as examples, those whose task has the most words in common with the
present one, and lessons that the model wrote after losing the same game (`policies.reflection`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prm_gym.errors import UserError, check_range
from prm_gym.prompts import Prompt
from prm_gym.provenance.fingerprints import of_text
from prm_gym.types import ChatModel, Episode, Message, Response, State


class ReActPolicy:
    """Prompts `model` with `prompt`.

    Parameters
    ----------
    examples: episodes to show; lost ones are left out. One of the present game is never shown to it.
    shots: how many are shown.
    lessons: by game_id, in the order written.

    Raises `UserError` unless there are won episodes of more than `shots` games.
    """

    def __init__(
        self,
        model: ChatModel,
        prompt: Prompt,
        *,
        examples: Iterable[Episode] = (),
        shots: int = 0,
        lessons: Mapping[str, Sequence[str]] | None = None,
        policy_id: str | None = None,
    ) -> None:
        check_range("shots", shots, least=0)
        self.policy_id = f"react({model.policy_id})" if policy_id is None else policy_id
        self._model, self._prompt, self._shots, self._lessons = model, prompt, shots, dict(lessons or {})
        won = {each.game_id: each for each in sorted(examples, key=lambda each: each.episode_id) if each.won}
        if shots and len(won) <= shots:  # one may be of the present game
            problem = f"{len(won)} won games for {shots} shots"
            raise UserError("examples", problem, f"name episodes with at least {shots + 1} won games")
        self._examples = [(each, _words(each.task), transcript(each, prompt)) for each in won.values()] if shots else []

    async def settings(self) -> dict[str, Any]:
        """Those of the model, the examples and the lessons."""
        shown = {"examples": of_text("\n".join(text for *_, text in self._examples))} if self._shots else {}
        learned = {"lessons": of_text(repr(sorted(self._lessons.items())))} if self._lessons else {}
        return {**await self._model.settings(), "react": {"shots": self._shots, **shown, **learned}}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        return await self._model.reply(self.messages(state), n=n, seed=seed)

    async def close(self) -> None:
        await self._model.close()

    def messages(self, state: State) -> list[Message]:
        """The chat at `state`: that of the prompt, with examples and lessons before the first observation."""
        chat = self._prompt.messages(state)
        before = [*self._examples_for(state), *self._lessons_for(state)]
        if before:
            first = next(i for i, message in enumerate(chat) if message["role"] == "user")
            content = "\n\n".join([*before, "The game begins.", chat[first]["content"]])
            chat[first] = {"role": "user", "content": content}
        return chat

    def _examples_for(self, state: State) -> list[str]:
        """The most similar tasks, by the share of common words (Jaccard); the most similar comes last."""
        words = _words(state.task)
        others = [(task, text) for each, task, text in self._examples if each.game_id != state.game_id]
        nearest = sorted(others, key=lambda other: -len(words & other[0]) / len(words | other[0]))[: self._shots]
        return [f"Here is a game that was won.\n\n{text}" for _, text in reversed(nearest)]

    def _lessons_for(self, state: State) -> list[str]:
        lessons = self._lessons.get(state.game_id, ())
        if not lessons:
            return []
        said = "\n".join(f"- {lesson}" for lesson in lessons)
        return [f"You have played this very game before and did not win. What you noted afterwards:\n{said}"]


def transcript(episode: Episode, prompt: Prompt) -> str:
    """The whole episode as text: the task, then observations and responses in turn."""
    lines = [f"Task: {episode.task}"]
    for turn in episode.turns:
        lines.append(f"World: {turn.observation}")
        if turn.reward is not None:
            lines.append(prompt.response(turn.reason, turn.action))
    return "\n".join(lines)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower())) or frozenset({""})
