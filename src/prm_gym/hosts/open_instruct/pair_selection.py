"""Select the chosen response of each pair in Stage 3, and leave out pairs without a preference."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Pairs = tuple["Tensor", "Tensor", "Tensor"]
ChoosePairs = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], Pairs]


def choose_pairs(first_scores: Tensor, second_scores: Tensor, first_ended: Tensor, second_ended: Tensor) -> Pairs:
    """Indices of the chosen and the rejected response of each prompt, and a weight of 1 or 0; all of shape [prompts].

    The rules, in this order:
    1. A response that ended its turn is better than one truncated at `response_length`, whatever their scores.
    2. Two truncated responses make no pair: Q was not trained on such responses.
    3. Of two that ended, the higher score is better; equal scores (or nan) make no pair.

    The first response of prompt i has index i, the second i + prompts, as the host concatenates them. A pair left out
    has weight 0 in the mean over all prompts, so the weight of a prompt does not depend on the others.
    """
    import torch

    first_better = (first_ended & ~second_ended) | (first_ended & second_ended & (first_scores > second_scores))
    second_better = (second_ended & ~first_ended) | (first_ended & second_ended & (second_scores > first_scores))
    first = torch.arange(len(first_scores), device=first_scores.device)
    second = first + len(first)
    chosen = torch.where(second_better, second, first)
    rejected = torch.where(second_better, first, second)
    return chosen, rejected, (first_better | second_better).to(first_scores.dtype)


class PairCounter:
    """`choose_pairs` that also keeps, for the log, the share of this process's last prompts that made a pair."""

    def __init__(self, choose: ChoosePairs = choose_pairs) -> None:
        self.choose = choose
        self.share = 0.0

    def __call__(self, first_scores: Tensor, second_scores: Tensor, first_ended: Tensor, second_ended: Tensor) -> Pairs:
        pairs = self.choose(first_scores, second_scores, first_ended, second_ended)
        self.share = float(pairs[2].float().mean())
        return pairs
