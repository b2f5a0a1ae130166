"""The four losses of Stage 2. The model's output q is a logit; sigmoid(q), in [0, 1], is compared with targets.

Each loss takes logits of shape [batch] and returns `(loss, first, second)`: the mean over the batch, and two tensors of
shape [batch] for the host's log, which are prediction and target, or the logits of both sequences of a pair.

A batch has `FIRST`, int64 [batch, length]; `SECOND` of the same form if the loss compares two sequences; and numbers
[batch]. The two sequences are (s, a) and (s, a'), or (s, a) and (s', a').
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Output = tuple["Tensor", "Tensor", "Tensor"]

FIRST, SECOND = "chosen_input_ids", "rejected_input_ids"  # open-instruct's names
NUMBERS = ("target", "terminated", "expert")

# The labels that each loss is of.
LABELS = {
    "soft_bce": ("monte_carlo", "shaping"),
    "value": ("value",),
    "bradley_terry": ("preferences",),
    "inverse": ("inverse",),
}
# Columns of the label folder that each loss reads.
SOURCE_COLUMNS = {
    "soft_bce": ("prompt", "completion", "target"),
    "value": ("prompt", "target"),
    "bradley_terry": ("prompt", "chosen", "rejected"),
    "inverse": ("prompt", "completion", "next_prompt", "next_completion", "terminated", "expert"),
}


def soft_bce(q: Tensor, target: Tensor) -> Output:
    """Equation 2: -E[t log sigmoid(q) + (1 - t) log(1 - sigmoid(q))], with t = `target` in [0, 1]. Also fits V(s)."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(q, target), q.detach().sigmoid(), target


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Output:
    """-E[log sigmoid(q(s, a) - q(s, a'))] over pairs of responses to one state."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(chosen - rejected).mean(), chosen.detach(), rejected.detach()


def inverse(q: Tensor, q_next: Tensor, terminated: Tensor, expert: Tensor, gamma: float) -> Output:
    """Algorithm 2, line 8: BCE of sigmoid(q(s, a) - gamma q(s', a')) against expert (1) or learner (0).

    After a terminal transition q(s', a') counts as 0. The gradient flows through both terms, as in the equation.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    advantage = q - gamma * q_next * (1 - terminated)
    return binary_cross_entropy_with_logits(advantage, expert), advantage.detach().sigmoid(), expert


def score(model: Any, ids: Tensor, pad_token_id: int) -> Tensor:
    """Logits [batch] at the last token of each row of `ids` [batch, length], padded on the right.

    It calls the wrapped model, so gradients are averaged under DistributedDataParallel and DeepSpeed.
    """
    getattr(model, "module", model).config.pad_token_id = pad_token_id  # where transformers looks for the last token
    logits: Tensor = model(input_ids=ids, attention_mask=ids != pad_token_id, use_cache=False).logits
    return logits.squeeze(-1).float()


def of_scores(loss: str, gamma: float, first: Tensor, second: Tensor | None, numbers: dict[str, Tensor]) -> Output:
    """The loss of that name, of the logits of FIRST and SECOND (None if it compares no two sequences)."""
    if second is None:
        return soft_bce(first, numbers["target"])
    if loss == "bradley_terry":
        return bradley_terry(first, second)
    return inverse(first, second, numbers["terminated"], numbers["expert"], gamma)


def make_compute_loss(loss: str, gamma: float) -> Callable[[Any, dict[str, Tensor], int], Output]:
    """A function `compute_loss(model, batch, pad_token_id)` for the loss of that name."""

    def compute_loss(model: Any, data: dict[str, Tensor], pad_token_id: int) -> Output:
        import torch

        if SECOND not in data:
            return of_scores(loss, gamma, score(model, data[FIRST], pad_token_id), None, data)
        first, second = score(model, torch.cat((data[FIRST], data[SECOND])), pad_token_id).chunk(2)
        return of_scores(loss, gamma, first, second, data)

    return compute_loss
