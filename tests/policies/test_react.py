"""ReAct: what the model reads at every turn."""

from __future__ import annotations

import asyncio

import pytest

from prm_gym.errors import UserError
from prm_gym.policies.react import ReActPolicy
from prm_gym.prompts import load
from prm_gym.types import Episode, Response, State, Turn

PROMPT = load("react")
STATE = State(
    "g", "put a clean mug on the desk", ("A room.", "A mug."), ("look",), ("take mug 1",), reasons=("I look first.",)
)


class Model:
    policy_id = "m"

    def __init__(self):
        self.read = []

    async def settings(self):
        return {"kind": "server", "model": "m"}

    async def reply(self, messages, *, n=1, seed=0):
        self.read.append((messages, n, seed))
        return [Response("REASON: r\nACTION: look", "r", "look")] * n

    async def close(self): ...


def played(number, task, *, won=True, game=None):
    turns = [
        Turn(0, f"seen {number}", ["look"], reason=f"because {number}", action=f"do {number}", reward=float(won)),
        Turn(1, f"end {number}", []),
    ]
    return Episode(f"e{number}", game or f"g{number}", "train", task, "t", "x", 0, 0, "won" if won else "lost", turns)


def text(policy, state=STATE):
    return "\n".join(message["content"] for message in policy.messages(state))


def test_the_model_reads_its_own_reasoning():
    past = [message["content"] for message in PROMPT.messages(STATE) if message["role"] == "assistant"]
    assert past == ["REASON: I look first.\nACTION: look"]


@pytest.mark.parametrize("name", ["compact", "full", "general"])
def test_a_trained_prompt_never_shows_reasoning(name):
    assert "I look first." not in str(load(name).messages(STATE))


def test_only_the_present_turn_lists_the_available_actions():
    *past, present = (message["content"] for message in PROMPT.messages(STATE) if message["role"] == "user")
    assert "- take mug 1" in present
    assert not any("Available" in content for content in past)


def test_the_examples_with_the_most_words_of_the_task_are_shown_the_nearest_last():
    tasks = ["heat an egg", "put a clean mug on the shelf", "put a mug on the desk", "look at a book"]
    policy = ReActPolicy(Model(), PROMPT, examples=[played(i, task) for i, task in enumerate(tasks)], shots=2)
    shown = text(policy)
    assert [i for i in range(4) if f"because {i}" in shown] == [1, 2]
    # common words over all words: 6 of 8 for the shelf, 6 of 7 for the desk
    assert shown.index("do 1") < shown.index("do 2")


def test_the_game_itself_and_lost_games_are_no_examples():
    others = [
        played(0, STATE.task, game=STATE.game_id),
        played(1, STATE.task, won=False),
        played(2, "x"),
        played(3, "y"),
    ]
    shown = text(ReActPolicy(Model(), PROMPT, examples=others, shots=2))
    assert [i for i in range(4) if f"because {i}" in shown] == [2, 3]


def test_too_few_examples_are_refused():
    with pytest.raises(UserError, match="1 won games for 1 shots"):
        ReActPolicy(Model(), PROMPT, examples=[played(0, "x"), played(1, "y", won=False)], shots=1)


def test_lessons_are_shown_in_their_game_alone_before_its_first_observation():
    policy = ReActPolicy(Model(), PROMPT, lessons={"g": ["Open the fridge."]})
    first = next(message["content"] for message in policy.messages(STATE) if message["role"] == "user")
    assert first.index("Open the fridge.") < first.index("A room.")
    other = State("h", STATE.task, STATE.observations, STATE.actions, STATE.admissible_commands, reasons=STATE.reasons)
    assert policy.messages(other) == PROMPT.messages(other)


def test_the_policy_asks_for_what_it_shows():
    model = Model()
    policy = ReActPolicy(model, PROMPT)
    asyncio.run(policy.act(STATE, n=3, seed=5))
    assert model.read == [(policy.messages(STATE), 3, 5)]


def test_lessons_and_examples_are_settings():
    def settings(**options):
        return asyncio.run(ReActPolicy(Model(), PROMPT, **options).settings())

    examples = [played(0, "x"), played(1, "y")]
    found = [
        settings(),
        settings(lessons={"g": ["a"]}),
        settings(lessons={"g": ["b"]}),
        settings(examples=examples, shots=1),
    ]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])
