r"""A check that a reason tells nothing of the future in words.

A reason is refused for one of three causes, tried in this order:

`name`     It names a numbered object or place (`mug 2`) that the future shows and that is nowhere in what was visible:
           the task, the history, the present observation and commands, and the action itself.
`outcome`  It speaks of the outcome or of later turns as known (`_OUTCOME`): "as it turns out", "will find", "later on".
`place`    A sentence without a word of doubt (`_DOUBT`: "may", "look", "if", ...) holds both a place and an object that
           only a *future observation* shows together, before an action of the agent has brought them together.

The check reads words, so it can refuse a good reason and cannot see a hint without names ("I have a feeling about the
fridge"). It knows names of the form `word number`, as in ALFWorld; for other worlds only `outcome` applies.
"""

from __future__ import annotations

import re

from prm_gym.prompts.hindsight import Future
from prm_gym.types import State

_NAME = re.compile(r"\b([a-z]+) (\d+)\b")
_WORD = re.compile(r"[a-z]+")
_SENTENCE = re.compile(r"[.!?;\n]+(?:\s|$)")
_OUTCOME = re.compile(
    r"\b(?:in the end|hindsight|turn(?:s|ed)? out|later (?:on|turns?|steps?)|eventually|in the future|the future"
    r"|will (?:then )?(?:be )?(?:find|found|win|won|succeed|work)|was (?:found|won|successful)|won the game"
    r"|(?:this|the) (?:episode|trajectory|game) (?:is|was|will|ends?|ended)|already know (?:that|where|how)"
    r"|(?:actions|lines|steps) (?:above|that won)|for my eyes)\b"
)
_DOUBT = re.compile(
    r"\b(?:may|might|could|can|perhaps|maybe|probably|likely|possibly|if|guess|expect|assume|suppose|hope|check|look"
    r"|search|try|see|whether|usually|often|typically|explore|unknown)\b"
)


def leak(reason: str, state: State, action: str, future: Future) -> str | None:
    """The cause to refuse `reason` for `action` in `state`, or None. `future` begins with `action` and its answer."""
    said = reason.lower()
    commands = state.admissible_commands or ()
    visible = [text.lower() for text in (state.task, *state.observations, *state.actions, *commands, action)]
    to_come = "\n".join(text for step in future for text in step).lower()
    if (_names(said) & _names(to_come)) - _names("\n".join(visible)):
        return "name"
    if _OUTCOME.search(said):
        return "outcome"
    revealed = _revealed(future).difference(*map(_together, visible))
    for sentence in _SENTENCE.split(said):
        words = set(_WORD.findall(sentence))
        if not _DOUBT.search(sentence) and any(kind in words and place in _names(sentence) for kind, place in revealed):
            return "place"
    return None


def _names(text: str) -> set[str]:
    return {match[0] for match in _NAME.finditer(text)}


def _together(text: str) -> set[tuple[str, str]]:
    """(kind of object, place) for all two names of one observation, action or command."""
    names = {match[0]: match[1] for match in _NAME.finditer(text)}
    return {(kind, place) for one, kind in names.items() for place in names if place != one}


def _revealed(future: Future) -> set[tuple[str, str]]:
    """The pairs that observations show before an action has brought them together."""
    revealed: set[tuple[str, str]] = set()
    made: set[tuple[str, str]] = set()
    for action, observation in future:
        made |= _together(action.lower())
        revealed |= _together(observation.lower()) - made
    return revealed
