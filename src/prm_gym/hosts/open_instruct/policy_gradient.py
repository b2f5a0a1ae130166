"""Stage 3 on open-instruct: policy gradient on Q, equation 3 of the paper, in the loop of `online_dpo_vllm_thread`.

Of the two responses y_1, y_2 ~ pi(. | s) at a prompt each is the other's baseline (REINFORCE, leave-one-out), with the
KL penalty in the reward, as in TRL's `RLOOTrainer` with two generations:

    r_k = logit Q(s, y_k) - beta log(pi(y_k|s) / pi_{i-1}(y_k|s))
    loss = -1/2 [(r_1 - r_2) log pi(y_1|s) + (r_2 - r_1) log pi(y_2|s)]

Prompts with a response that was cut off are left out: Q was not trained on those. The host's own PPO and GRPO scripts
at this commit run in Ray actors that each hold a GPU, with flash attention and a vLLM of before 0.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct import online_dpo
from prm_gym.hosts.open_instruct.pair_selection import Pairs

if TYPE_CHECKING:
    from torch import Tensor


def parse(recipe: Path, overrides: dict[str, Any]) -> list[Any]:
    """The host's arguments, those of online DPO."""
    return online_dpo.parse(recipe, overrides)


def run(recipe: Path, overrides: dict[str, Any]) -> None:
    """Train, and leave pi_i in `output_dir`. Raises `UserError` before any weights are loaded."""
    args = parse(recipe, overrides)[0]
    if args.num_epochs != 1:
        problem = f"{args.num_epochs}, and the gradient is right for the policy that sampled"
        raise UserError(recipe, problem, "set it to 1", field="num_epochs")
    from open_instruct import online_dpo_vllm_thread as host

    host.pair_losses = pair_losses
    online_dpo.run(recipe, overrides, choose=both_ended)


def pair_losses(args: Any, logits: Tensor, margins: Tensor) -> Tensor:
    """The loss of each pair, float [pairs].

    `logits` is log(pi/pi_{i-1})(y_1) - log(pi/pi_{i-1})(y_2), with the gradient of log pi(y_1) - log pi(y_2); `margins`
    is logit Q(y_1) - logit Q(y_2). Both have the shape [pairs].
    """
    loss: Tensor = -0.5 * (margins - args.beta * logits.detach()) * logits
    return loss


def both_ended(first_scores: Tensor, second_scores: Tensor, first_ended: Tensor, second_ended: Tensor) -> Pairs:
    """As `pair_selection.choose_pairs`: the responses in order, and a weight of 0 where one did not end its turn."""
    import torch

    first = torch.arange(len(first_scores), device=first_scores.device)
    return first, first + len(first), (first_ended & second_ended).to(first_scores.dtype)
