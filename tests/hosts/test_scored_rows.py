"""The sequences that each loss compares, against the tokenizer's own template over the whole conversation."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("transformers")
from transformers import AutoTokenizer

from prm_gym.hosts.losses import FIRST, SECOND
from prm_gym.hosts.scored_rows import ROWS, longest
from prm_gym.hosts.tiny_model import make_tiny_model
from prm_gym.types import Message

STATE: list[Message] = [{"role": "system", "content": "play"}, {"role": "user", "content": "You see a mug 1."}]
NEXT: list[Message] = [*STATE, {"role": "assistant", "content": "look"}, {"role": "user", "content": "You see it."}]


def said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, ["play You see a mug 1. look take it"], hidden_size=8, layers=1, heads=1)
    return AutoTokenizer.from_pretrained(folder)


def whole(tokenizer: Any, prompt: list[Message], text: str) -> list[int]:
    """The template's own ids, without the end of the turn."""
    *ids, end = tokenizer.apply_chat_template([*prompt, *said(text)], tokenize=True, return_dict=False)
    assert end == tokenizer.eos_token_id
    return ids


def test_a_pair_is_two_responses_to_one_prompt(tokenizer: Any) -> None:
    row = {"prompt": STATE, "chosen": said("look"), "rejected": said("take mug 1")}
    wanted = {FIRST: whole(tokenizer, STATE, "look"), SECOND: whole(tokenizer, STATE, "take mug 1")}
    assert ROWS["bradley_terry"](row, tokenizer) == wanted


@pytest.mark.parametrize("terminated", [False, True])
def test_a_transition_is_compared_with_the_next_unless_it_ended(tokenizer: Any, terminated: bool) -> None:
    row = {"prompt": STATE, "completion": said("look"), "terminated": terminated}
    row |= {"next_prompt": [] if terminated else NEXT, "next_completion": [] if terminated else said("take mug 1")}
    made = ROWS["inverse"](row, tokenizer)
    first = whole(tokenizer, STATE, "look")
    following = first if terminated else whole(tokenizer, NEXT, "take mug 1")
    assert made == {FIRST: first, SECOND: following}
    assert longest(made) == max(len(made[FIRST]), len(following))
