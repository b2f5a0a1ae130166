"""A prompt that also shows how the episode went on, for reasons in hindsight (PosteriorExplorer, section 4.1).

The model reads what no agent can know at that turn, the actions that won from there and what they showed, and is asked
to reason as if it did not know them. `labels.posterior` has it write the reason of the action that was taken, Stage 3
samples from it as an exploration prompt; both train on the plain prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from prm_gym.prompts.render import Prompt
from prm_gym.types import Message, State

Future = Sequence[tuple[str, str]]
"""(action, the observation that followed), from the present turn on"""

_SHOWN = 12  # steps of the future; those after them say little about the present action

_KNOWN = "For your eyes only: the game was won from here by these actions, and this is what they showed."
_TASK = (
    "Answer in the usual form, but let nobody notice that you know this. Your reasoning may use what has been seen so "
    "far, the task, and what is likely in such a world. Where only the lines above tell you something, such as where "
    "an object is, give a good reason to try it and call it a guess. Do not speak of the outcome or of later steps as "
    "if they were known."
)


def hindsight_messages(prompt: Prompt, state: State, future: Future, action: str | None = None) -> list[Message]:
    """The chat of `prompt` at `state` with the won `future`; with `action`, the response must take exactly that."""
    shown = [f"{number}. {done} -> {seen}" for number, (done, seen) in enumerate(future[:_SHOWN], 1)]
    asked = [_TASK] if action is None else [_TASK, f"The action must be exactly: {action}"]
    *chat, last = prompt.messages(state)
    content = "\n\n".join([last["content"], "\n".join([_KNOWN, *shown]), *asked])
    return [*chat, {"role": last["role"], "content": content}]
