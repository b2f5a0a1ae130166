"""The conversation of an episode as the world sees it: it reads actions and writes observations.

A world model is a language model with a prompt for this conversation (`world`, `world_compact`), trained and sampled
like a policy. Its answer is o_{t+1}, and a mark if the episode ends there.
"""

from __future__ import annotations

from typing import NamedTuple

from prm_gym.types import State
from prm_gym.unicode import well_formed

_WON, _OVER = "[won]", "[over]"


class Answer(NamedTuple):
    """An observation; `over`: the episode ended there, won or lost."""

    observation: str
    won: bool
    over: bool


def world_state(state: State, action: str) -> State:
    """The world's state when it has to answer `action` in `state`: what it was told, and what it answered."""
    told = (*state.actions, action)
    return State(
        game_id=state.game_id,
        task=state.task,
        observations=(f"{state.observations[0]}\n\n{told[0]}", *told[1:]),
        actions=state.observations[1:],
        admissible_commands=None,
    )


def write(answer: Answer) -> str:
    """
    >>> write(Answer("You put the mug 1 on the desk 1.", won=True, over=True))
    'You put the mug 1 on the desk 1. [won]'
    """
    mark = f" {_WON}" if answer.won else f" {_OVER}" if answer.over else ""
    return well_formed(answer.observation) + mark


def read(text: str) -> Answer:
    """The inverse of `write`; white space around the text of a model is dropped."""
    text = text.strip()
    for mark in (_WON, _OVER):
        if text.endswith(mark):
            return Answer(text.removesuffix(mark).rstrip(), mark == _WON, over=True)
    return Answer(text, won=False, over=False)
