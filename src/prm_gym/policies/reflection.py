"""Reflection: after a lost game the model says in words what went wrong, for its next try (Reflexion).

The method is that of Shinn et al. (2023, arXiv:2303.11366), in wording of our own. The model reads its whole episode
and its earlier lessons, and is told that the game was lost. It is told nothing else of the game.
"""

from __future__ import annotations

from collections.abc import Sequence

from prm_gym.policies.react import transcript
from prm_gym.prompts import Prompt
from prm_gym.types import ChatModel, Episode, Message, Response

REMEMBERED = 3  # lessons of a game, the latest ones, as in the paper's ALFWorld experiments

_SYSTEM = (
    "You review a game that you have just played in a text world and did not win. You will play the same game again "
    "from its start, and everything will be in the same place."
)
_QUESTION = (
    "Look for the point from which the game went wrong: a place that you did not search, a step that you took too "
    "early or left out, an action that you repeated in vain. Then write a note to yourself for the next try, in two to "
    "four sentences: what went wrong, what you know now about where things are, and what you will do differently, as "
    "concrete actions. Write the note alone."
)


def messages(episode: Episode, prompt: Prompt, lessons: Sequence[str]) -> list[Message]:
    """The chat that asks for a lesson of the lost `episode`; `lessons` are those of earlier tries."""
    known = "".join(f"\n- {lesson}" for lesson in lessons)
    before = f"\n\nYour notes before this try:{known}" if known else ""
    played = transcript(episode, prompt)
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": f"{played}{before}\n\nThe game ended here and is lost. {_QUESTION}"},
    ]


async def reflect(model: ChatModel, episode: Episode, prompt: Prompt, lessons: Sequence[str], seed: int) -> Response:
    """The lesson is the `text` of the response."""
    [response] = await model.reply(messages(episode, prompt, lessons), n=1, seed=seed)
    return response
