"""Label rows as the token ids that Q is trained on, for both hosts.

The ids are those of `prm_gym.prompts.chat`, which the policy reads and samples, without the token that ends the turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prm_gym.hosts.losses import FIRST, SECOND
from prm_gym.prompts.chat import prompt_ids, scored_ids, scored_turn_ids

Row = dict[str, Any]


def soft_bce_row(row: Row, tokenizer: Any) -> Row:
    return {FIRST: scored_ids(tokenizer, row["prompt"], row["completion"][0]["content"])}


def value_row(row: Row, tokenizer: Any) -> Row:
    """V is read at the last token of the prompt, open for the assistant's turn."""
    return {FIRST: prompt_ids(tokenizer, row["prompt"])}


def pair_ids(row: Row, tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The ids of a pair's prompt, of its chosen and of its rejected response."""
    both = [row["chosen"][0]["content"], row["rejected"][0]["content"]]
    prompt, [chosen, rejected] = scored_turn_ids(tokenizer, row["prompt"], both)
    return prompt, chosen, rejected


def bradley_terry_row(row: Row, tokenizer: Any) -> Row:
    prompt, chosen, rejected = pair_ids(row, tokenizer)
    return {FIRST: prompt + chosen, SECOND: prompt + rejected}


def inverse_row(row: Row, tokenizer: Any) -> Row:
    """After a terminal transition there is no (s', a'): in its place (s, a), with weight 0 in the loss."""
    first = following = scored_ids(tokenizer, row["prompt"], row["completion"][0]["content"])
    if not row["terminated"]:
        following = scored_ids(tokenizer, row["next_prompt"], row["next_completion"][0]["content"])
    return {FIRST: first, SECOND: following}


ROWS: dict[str, Callable[[Row, Any], Row]] = {
    "soft_bce": soft_bce_row,
    "value": value_row,
    "bradley_terry": bradley_terry_row,
    "inverse": inverse_row,
}


def longest(row: Row) -> int:
    """The length of the longest sequence of a row that one of `ROWS` has made."""
    return max(len(row[name]) for name in (FIRST, SECOND) if name in row)
