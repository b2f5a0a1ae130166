"""From label rows to token ids as transforms of the host's data sets (`hosts.scored_rows` for Q), and to batches.

The host requires a column `chosen_input_ids` in every data set. If a loss compares two sequences, the other is
`rejected_input_ids`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prm_gym.hosts.demonstrations import demonstrations
from prm_gym.hosts.losses import FIRST, NUMBERS, SECOND
from prm_gym.hosts.scored_rows import ROWS, Row, longest

if TYPE_CHECKING:
    from torch import Tensor

SEQUENCES = (FIRST, SECOND)
ROW = "row"  # index of the row in the recipe's data sets, so an evaluation counts it once

SFT_COLUMNS = ("prompt", "completion")
# The columns that each loss trains on.
TRAIN_COLUMNS = {
    "soft_bce": (FIRST, ROW, "target"),
    "value": (FIRST, ROW, "target"),
    "bradley_terry": (FIRST, SECOND, ROW),
    "inverse": (FIRST, SECOND, ROW, "terminated", "expert"),
}


def sft_row(row: Row, tokenizer: Any, max_seq_length: int, counted: str = "responses") -> Row:
    """For the host's SFT: the loss is on the responses. The host filters out rows without any loss: those too long.

    A completion may have several turns (a whole episode); `sft.check_row` has split those that are not one sequence.
    """
    [made] = demonstrations(tokenizer, row["prompt"], row["completion"])
    labels = made.labels(counted) if len(made.ids) <= max_seq_length else [-100] * len(made.ids)
    return {"input_ids": made.ids, "labels": labels, "attention_mask": [1] * len(made.ids)}


def sft_whole_row(row: Row, tokenizer: Any, max_seq_length: int) -> Row:
    """The same with loss on everything."""
    return sft_row(row, tokenizer, max_seq_length, counted="all")


def within_length(row: Row, tokenizer: Any, max_token_length: int, max_prompt_token_length: int | None = None) -> bool:
    """Whether each sequence fits. The host also passes `max_prompt_token_length`, which is not needed."""
    return longest(row) <= max_token_length


def register(transform_fns: dict[str, tuple[Callable[..., Any], str]]) -> None:
    """Add `prm_<loss>` and `prm_length` to the host's table of data set transforms."""
    for loss, function in ROWS.items():
        transform_fns[f"prm_{loss}"] = (function, "map")
    transform_fns["prm_sft"], transform_fns["prm_sft_whole"] = (sft_row, "map"), (sft_whole_row, "map")
    transform_fns["prm_length"] = (within_length, "filter")


class Collator:
    """Rows to a batch: ids padded on the right, int64 [batch, longest of both], and numbers [batch]."""

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
