"""Preference pairs grouped by state: a batch encodes the prompt of a state once, and each response to it once.

The loss is the mean over the pairs of the batch, as without grouping. The k responses to a state make up to
k (k - 1) / 2 pairs of two sequences; here they are one prompt and k responses. Ouyang et al. (2022, section 3.5) put
all pairs of a prompt into one batch for two reasons: the cost, and the overfitting of a response that returns in other
batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from inspect import signature
from typing import TYPE_CHECKING, Any

from prm_gym.hosts.losses import bradley_terry
from prm_gym.hosts.scored_rows import Row, pair_ids

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

Batch = dict[str, "Tensor"]


def pair_row(row: Row, tokenizer: Any) -> Row:
    """The row `of_ids` of a label row."""
    return of_ids(*pair_ids(row, tokenizer))


def of_ids(prompt: list[int], chosen: list[int], rejected: list[int]) -> Row:
    """A pair as token ids: `prompt`, `chosen`, `rejected`, and `length`, that of the longer sequence.

    The last token of the prompt begins the responses: an empty response is scored there.
    """
    length = len(prompt) + max(len(chosen), len(rejected))
    last = prompt[-1:]
    return {"prompt": prompt[:-1], "chosen": last + chosen, "rejected": last + rejected, "length": length}


def by_state(pairs: Dataset) -> Dataset:
    """Rows of `pair_row` as a row per prompt: `prompt`, its different `responses`, their indices in each pair as
    `chosen` and `rejected`, and the `length` of the longest sequence.
    """
    from datasets import Dataset

    rows_of: dict[bytes, list[int]] = {}
    for index, prompt in enumerate(pairs["prompt"]):
        rows_of.setdefault(blake2b(repr(prompt).encode(), digest_size=16).digest(), []).append(index)

    def states() -> Iterator[Row]:
        for indices in rows_of.values():
            rows = pairs[indices]
            chosen, rejected = ([tuple(response) for response in rows[name]] for name in ("chosen", "rejected"))
            place = {response: i for i, response in enumerate(dict.fromkeys(chosen + rejected))}
            yield {
                "prompt": rows["prompt"][0],
                "responses": [list(response) for response in place],
                "chosen": [place[response] for response in chosen],
                "rejected": [place[response] for response in rejected],
                "length": max(rows["length"]),
            }

    grouped: Dataset = Dataset.from_generator(states)
    return grouped


def collate(states: list[Row], tokenizer: Any) -> Batch:
    """`prompt` [states, P], padded on the left, and its mask `seen`; `response` [responses, R] of all states in turn,
    padded on the right, and its mask `said`; the `state` of each response; `chosen` and `rejected` [pairs], indices
    into the responses.
    """
    import torch

    def padded(ids: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
        both = tokenizer.pad({"input_ids": ids}, padding_side=side, return_tensors="pt")
        return both["input_ids"], both["attention_mask"].bool()

    count = torch.tensor([len(row["responses"]) for row in states])
    first = count.cumsum(0) - count
    prompt, seen = padded([row["prompt"] for row in states], "left")
    response, said = padded([response for row in states for response in row["responses"]], "right")
    chosen, rejected = (
        torch.cat([start + torch.tensor(row[name]) for start, row in zip(first, states, strict=True)])
        for name in ("chosen", "rejected")
    )
    return {
        "prompt": prompt,
        "seen": seen,
        "response": response,
        "said": said,
        "state": torch.arange(len(states)).repeat_interleave(count),
        "chosen": chosen,
        "rejected": rejected,
    }


def score(model: Any, batch: Batch) -> Tensor:
    """The logit [responses] of each response of a batch, at its last token.

    The keys and values of a prompt are computed once, with their gradients, and repeated for its responses. Gradient
    checkpointing keeps no keys and values: there, every response is encoded with its prompt.
    """
    import torch

    bare = getattr(model, "module", model)
    renamed = hasattr(bare, "is_activation_checkpointing")  # these two names change in the course of transformers 5
    checkpointing = bare.is_activation_checkpointing if renamed else bare.is_gradient_checkpointing
    state, seen = batch["state"], batch["seen"]
    mask = torch.cat((seen[state], batch["said"]), dim=1)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    width = seen.shape[1]
    if checkpointing:
        ids = torch.cat((batch["prompt"][state], batch["response"]), dim=1)
        output = model(input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False)
    else:
        name = "cache" if "cache" in signature(bare.forward).parameters else "past_key_values"
        before = (seen.cumsum(1) - 1).clamp(min=0)
        cache = model(input_ids=batch["prompt"], attention_mask=seen, position_ids=before, use_cache=True)[name]
        cache.batch_select_indices(state)
        response, position = batch["response"], position[:, width:]
        output = model(input_ids=response, attention_mask=mask, position_ids=position, **{name: cache})
    logits: Tensor = output.logits
    return logits.squeeze(-1).float()


def loss(model: Any, batch: Batch, pad_token_id: int) -> Tensor:
    """The Bradley-Terry loss of a batch of `collate`: the mean over its pairs."""
    getattr(model, "module", model).config.pad_token_id = pad_token_id  # where transformers looks for the last token
    q = score(model, batch)
    return bradley_terry(q[batch["chosen"]], q[batch["rejected"]])[0]
