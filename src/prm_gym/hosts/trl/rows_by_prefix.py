"""Label rows grouped by prefix: a sequence that begins another is scored in the other's forward pass.

Under a causal model the logit at a token depends on nothing after it. The state and action of one turn begin the
sequences of the turns after it, so one pass over the longest sequence of an episode scores all of its rows. Prefixes
are found by token id: under a chat template that renders earlier turns differently, each row is a group of its own.

The rows of a group are in the same batch. A batch of G groups with n rows has the loss sum / (G m), where m is the mean
number of rows of a group in the split: over all batches and processes the mean over rows, however uneven the groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prm_gym.hosts.losses import FIRST, NUMBERS, SECOND, of_scores
from prm_gym.hosts.scored_rows import Row

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

Batch = dict[str, "Tensor"]

GAME = "game_id"  # sequences are compared within a game, since those of a large dataset do not fit into memory
SHARE = "groups_per_row"  # of the split: 1 / m


def chains(sequences: Sequence[list[int]]) -> list[list[int]]:
    """The indices of `sequences` in lists; within a list, each sequence begins the next or equals it."""
    found: list[list[int]] = []
    before = None
    for index in sorted(range(len(sequences)), key=sequences.__getitem__):  # the order of a dictionary
        if before is not None and sequences[index][: len(before)] == before:
            found[-1].append(index)
        else:
            found.append([index])
        before = sequences[index]
    return found


def by_prefix(rows: Dataset) -> Dataset:
    """Rows of FIRST, perhaps SECOND, numbers and `game_id` as a row per group. Without `game_id` all rows are compared,
    which takes the memory of a list of all sequences.

    A group has the rows whose FIRST form one of the `chains` of a game: `sequences`, none of which begins another;
    for each row and each of FIRST and SECOND a pair [index into `sequences`, index of the last token]; the numbers of
    its rows; the `length` of its longest sequence; and SHARE.
    """
    from datasets import Dataset

    names = [name for name in (FIRST, SECOND) if name in rows.column_names]
    numbers = [name for name in NUMBERS if name in rows.column_names]
    rows_of: dict[str, list[int]] = {}
    for index, game in enumerate(rows[GAME] if GAME in rows.column_names else [""] * len(rows)):
        rows_of.setdefault(game, []).append(index)

    def groups() -> Iterator[Row]:
        for indices in rows_of.values():
            game = rows[indices]
            for chain in chains(game[FIRST]):
                every = [game[name][row] for name in names for row in chain]
                kept = chains(every)
                places = {index: [i, len(every[index]) - 1] for i, of in enumerate(kept) for index in of}
                of_rows = [places[index] for index in range(len(every))]
                yield {
                    "sequences": [every[of[-1]] for of in kept],
                    **{name: of_rows[i * len(chain) :][: len(chain)] for i, name in enumerate(names)},
                    **{name: [float(game[name][row]) for row in chain] for name in numbers},
                    "length": max(map(len, every)),
                }

    grouped: Dataset = Dataset.from_generator(groups)
    return grouped.add_column(SHARE, [len(grouped) / len(rows)] * len(grouped))


def collate(groups: list[Row], tokenizer: Any) -> Batch:
    """`ids` [sequences, length] of all groups, padded on the right, and their `mask`; FIRST and SECOND [rows, 2],
    indices into `ids`; the numbers [rows]; SHARE [groups].
    """
    import torch

    sequences = [sequence for group in groups for sequence in group["sequences"]]
    padded = tokenizer.pad({"input_ids": sequences}, padding_side="right", return_tensors="pt")
    batch = {"ids": padded["input_ids"], "mask": padded["attention_mask"]}
    batch[SHARE] = torch.tensor([group[SHARE] for group in groups])
    count = torch.tensor([len(group["sequences"]) for group in groups])
    for name in (FIRST, SECOND):
        if name in groups[0]:
            start = (count.cumsum(0) - count).repeat_interleave(torch.tensor([len(group[name]) for group in groups]))
            place = torch.tensor([place for group in groups for place in group[name]])
            batch[name] = torch.stack((place[:, 0] + start, place[:, 1]), dim=1)
    numbers = [name for name in NUMBERS if name in groups[0]]
    return batch | {name: torch.tensor([value for group in groups for value in group[name]]) for name in numbers}


def loss(model: Any, batch: Batch, name: str, gamma: float) -> Tensor:
    """The loss `name` of `hosts.losses` of a batch of `collate`: the sum over its rows, divided by G m.

    It calls the wrapped model, so gradients are averaged under DistributedDataParallel. The model returns the logit at
    the last token alone; its head computes that of all tokens.
    """
    computed: list[Tensor] = []
    head = getattr(model, "module", model).score
    hook = head.register_forward_hook(lambda _module, _inputs, logits: computed.append(logits))
    try:
        model(input_ids=batch["ids"], attention_mask=batch["mask"], use_cache=False)
    finally:
        hook.remove()
    first, second = (
        computed[0][batch[of][:, 0], batch[of][:, 1], 0].float() if of in batch else None for of in (FIRST, SECOND)
    )
    assert first is not None
    mean = of_scores(name, gamma, first, second, batch)[0]
    return mean * len(first) * batch[SHARE].mean() / len(batch[SHARE])
