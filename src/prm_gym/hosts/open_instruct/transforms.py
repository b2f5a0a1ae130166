"""Label rows to the token ids that Q reads, and batches of them.

One rule for training, Stage 3 and best-of-N: the chat template up to the assistant's turn, then the response's own
tokens, then the end-of-turn token. It is what the policy is prompted with and samples, so Stage 3, which scores sampled
ids, shows Q what it was trained on. (The template over the whole conversation may append text after the end token,
which no sample has.)

The host asks for the column `chosen_input_ids` in every data set; where a loss compares two sequences, the other is
`rejected_input_ids`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prm_gym.hosts.losses import FIRST, NUMBERS, SECOND
from prm_gym.types import Message

if TYPE_CHECKING:
    from torch import Tensor

SEQUENCES = (FIRST, SECOND)
ROW = "row"  # which row of the recipe's data sets, so that an evaluation counts each once
Row = dict[str, Any]

SFT_COLUMNS = ("prompt", "completion")
# The columns that each loss trains on.
TRAIN_COLUMNS = {
    "soft_bce": (FIRST, ROW, "target"),
    "value": (FIRST, ROW, "target"),
    "bradley_terry": (FIRST, SECOND, ROW),
    "inverse": (FIRST, SECOND, ROW, "terminated", "expert"),
}


def prompt_ids(tokenizer: Any, prompt: Sequence[Message]) -> list[int]:
    """Token ids of the state: the template over `prompt`, open for the assistant's turn."""
    ids: list[int] = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    return ids


def sequence_ids(tokenizer: Any, prompt: Sequence[Message], completion: Sequence[Message]) -> list[int]:
    """Token ids of the state and one response to it, up to and with the end-of-turn token."""
    response: list[int] = tokenizer.encode(completion[0]["content"], add_special_tokens=False)
    return [*prompt_ids(tokenizer, prompt), *response, tokenizer.eos_token_id]


def soft_bce_row(row: Row, tokenizer: Any) -> Row:
    return {FIRST: sequence_ids(tokenizer, row["prompt"], row["completion"])}


def value_row(row: Row, tokenizer: Any) -> Row:
    """V is read at the last token of the open prompt, where the policy is about to act."""
    return {FIRST: prompt_ids(tokenizer, row["prompt"])}


def bradley_terry_row(row: Row, tokenizer: Any) -> Row:
    return {
        FIRST: sequence_ids(tokenizer, row["prompt"], row["chosen"]),
        SECOND: sequence_ids(tokenizer, row["prompt"], row["rejected"]),
    }


def inverse_row(row: Row, tokenizer: Any) -> Row:
    """A terminal transition has no (s', a'); the end token alone stands there, and the loss gives it weight zero."""
    following = [tokenizer.eos_token_id]
    if not row["terminated"]:
        following = sequence_ids(tokenizer, row["next_prompt"], row["next_completion"])
    return {FIRST: sequence_ids(tokenizer, row["prompt"], row["completion"]), SECOND: following}


def sft_row(row: Row, tokenizer: Any, max_seq_length: int) -> Row:
    """For the host's SFT: loss on the responses alone; a row too long has no loss at all, which the host filters out.

    A completion of several turns (a whole episode) is responses with what was seen between them.
    """
    made = sft_whole_row(row, tokenizer, max_seq_length)
    ids, before = made["input_ids"], list(row["prompt"])
    labels = [-100] * len(ids)
    if made["labels"] == ids:
        for message in row["completion"]:
            if message["role"] == "assistant":
                start, end = len(prompt_ids(tokenizer, before)), len(sequence_ids(tokenizer, before, [message]))
                labels[start:end] = ids[start:end]
            before.append(message)
    return {**made, "labels": labels}


def sft_whole_row(row: Row, tokenizer: Any, max_seq_length: int) -> Row:
    """The same with loss on everything."""
    messages = [*row["prompt"], *row["completion"]]
    ids = sequence_ids(tokenizer, messages[:-1], messages[-1:])
    labels = ids if len(ids) <= max_seq_length else [-100] * len(ids)
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


ROWS: dict[str, Callable[[Row, Any], Row]] = {
    "soft_bce": soft_bce_row,
    "value": value_row,
    "bradley_terry": bradley_terry_row,
    "inverse": inverse_row,
}


def within_length(row: Row, tokenizer: Any, max_token_length: int, max_prompt_token_length: int | None = None) -> bool:
    """Whether each whole sequence fits; `max_prompt_token_length`, which the host also passes, adds nothing to that."""
    return all(len(row[name]) <= max_token_length for name in SEQUENCES if name in row)


def register(transform_fns: dict[str, tuple[Callable[..., Any], str]]) -> None:
    """Add `prm_<loss>` and `prm_length` to the host's table of data set transforms."""
    for loss, function in ROWS.items():
        transform_fns[f"prm_{loss}"] = (function, "map")
    transform_fns["prm_sft"], transform_fns["prm_sft_whole"] = (sft_row, "map"), (sft_whole_row, "map")
    transform_fns["prm_length"] = (within_length, "filter")


class Collator:
    """Rows to a batch: ids padded on the right to int64 [batch, longest of both], numbers [batch], nothing else."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[Row]) -> dict[str, Tensor]:
        import torch

        sequences = [name for name in SEQUENCES if name in rows[0]]
        longest = max(len(row[name]) for row in rows for name in sequences)
        batch = {ROW: torch.tensor([row[ROW] for row in rows])}
        for name in sequences:
            batch[name] = torch.tensor([row[name] + [self.pad_token_id] * (longest - len(row[name])) for row in rows])
        for name in NUMBERS:
            if name in rows[0]:
                batch[name] = torch.tensor([float(row[name]) for row in rows])
        return batch
