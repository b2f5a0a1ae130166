"""The four losses of Stage 2. Q's output is a logit; sigmoid(Q) is the value in [0, 1] that the targets are about.

Each loss takes logits of shape [batch] and gives `(loss, first, second)`: the mean over the batch, and two tensors of
shape [batch] that the host averages into its log (`LOGGED` says what they are).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prm_gym.hosts.open_instruct.transforms import FIRST, SECOND

if TYPE_CHECKING:
    from torch import Tensor

Output = tuple["Tensor", "Tensor", "Tensor"]

# The host's names of its four training averages, and what they hold under each loss.
_HOST_NAMES = ("chosen_rewards", "rejected_rewards", "reward_margin", "accuracy")
_VALUES = ("predicted", "target", "bias", "above_target")
LOGGED = {
    "soft_bce": _VALUES,
    "value": _VALUES,
    "bradley_terry": ("chosen", "rejected", "margin", "pair_accuracy"),
    "inverse": ("predicted_expert", "expert", "bias", "above_label"),
}


def log_names(loss: str) -> dict[str, str]:
    """{the host's metric name: ours} for the training log of `loss`."""
    pairs = zip(_HOST_NAMES, LOGGED[loss], strict=True)
    return {f"train/rm/{theirs}": f"train/rm/{ours}" for theirs, ours in pairs}


def soft_bce(q: Tensor, target: Tensor) -> Output:
    """Equation 2: -E[t log sigmoid(q) + (1 - t) log(1 - sigmoid(q))], `target` in [0, 1]. Also V on states alone."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(q, target), q.detach().sigmoid(), target


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Output:
    """-E[log sigmoid(q(s, a) - q(s, a'))] over pairs of responses to one state."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(chosen - rejected).mean(), chosen.detach(), rejected.detach()


def inverse(q: Tensor, q_next: Tensor, terminated: Tensor, expert: Tensor, gamma: float) -> Output:
    """Algorithm 2, line 8: BCE of sigmoid(q(s, a) - gamma q(s', a')) against expert (1) or learner (0).

    No value follows a terminal transition. The gradient flows through both terms, as the equation has it.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    advantage = q - gamma * q_next * (1 - terminated)
    return binary_cross_entropy_with_logits(advantage, expert), advantage.detach().sigmoid(), expert


def score(model: Any, ids: Tensor, pad_token_id: int) -> Tensor:
    """Logits [batch] at the last token of each row of `ids` [batch, length], padded on the right.

    The call goes through the wrapped model, so that gradients are averaged under DistributedDataParallel as under
    DeepSpeed.
    """
    getattr(model, "module", model).config.pad_token_id = pad_token_id  # where transformers looks for the last token
    logits: Tensor = model(input_ids=ids, attention_mask=ids != pad_token_id, use_cache=False).logits
    return logits.squeeze(-1).float()


def make_compute_loss(loss: str, gamma: float) -> Callable[[Any, dict[str, Tensor], int], Output]:
    """The function that takes the place of the host's `compute_loss(model, data, pad_token_id)`."""

    def compute_loss(model: Any, data: dict[str, Tensor], pad_token_id: int) -> Output:
        import torch

        if loss in ("soft_bce", "value"):
            return soft_bce(score(model, data[FIRST], pad_token_id), data["target"])
        both = score(model, torch.cat((data[FIRST], data[SECOND])), pad_token_id)
        first, second = both.chunk(2)
        if loss == "bradley_terry":
            return bradley_terry(first, second)
        return inverse(first, second, data["terminated"], data["expert"], gamma)

    return compute_loss
