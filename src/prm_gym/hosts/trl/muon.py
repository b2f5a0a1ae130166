"""Muon for the hidden weight matrices of a model and AdamW for the rest, as one optimizer.

Muon (K. Jordan et al., 2024) orthogonalises the momentum of each weight matrix. A model from scratch needs far fewer
steps with it. Embeddings, heads (the output matrix, a PRM's score) and vectors use AdamW, as its authors advise. Left
out: models with convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class MuonArguments:
    """A recipe's arguments beside those of a trainer."""

    muon_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Muon for hidden matrices at this rate; `learning_rate` is AdamW's, for the rest; no decay."},
    )


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` that orthogonalises in the dtype of the weights, all matrices of one shape together.

    torch's own step does so in bfloat16, matrix by matrix. On a CPU without bfloat16 instructions that takes three
    times as long as all the rest of training a small model.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for (rows, columns), params in shapes.items():
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                directions = _orthogonal(torch.stack([self._momentum(p, group) for p in params]), group)
                for p, direction in zip(params, directions, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-rate)
        return loss

    def _momentum(self, p: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        assert p.grad is not None
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p.grad)
        buffer = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer


def _orthogonal(matrices: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """U V^T of each of (n, rows, columns) matrices U S V^T, approximately, by the quintic Newton-Schulz iteration
    X <- a X + (b X X^T + c (X X^T)^2) X.
    """
    a, b, c = group["ns_coefficients"]
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class MuonWithAdamW(torch.optim.Optimizer):
    """Updates the hidden weight matrices of `model` by Muon at `muon_lr`, the rest by AdamW at `lr`.

    A scheduler scales both rates. State and parameter groups are those of an ordinary optimizer, so checkpoints contain
    both parts.
    """

    def __init__(
        self, model: PreTrainedModel, *, lr: float, muon_lr: float, betas: tuple[float, float], eps: float = 1e-8
    ) -> None:
        embedding = model.get_input_embeddings().weight
        inside = {id(p) for p in model.base_model.parameters() if p.ndim == 2 and p is not embedding}
        trained = [p for p in model.parameters() if p.requires_grad]
        hidden = [p for p in trained if id(p) in inside]
        rest = [p for p in trained if id(p) not in inside]
        self._muon = Muon(hidden, lr=muon_lr, weight_decay=0.0)
        self._adamw = torch.optim.AdamW(rest, lr=lr, betas=betas, eps=eps, weight_decay=0.0)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for part, group in zip((self._muon, self._adamw), self.param_groups, strict=True):
            # loading a checkpoint replaces groups and state
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss


def with_muon(trainer: type[Any], muon_lr: float | None) -> type[Any]:
    """A subclass of `trainer` (transformers' `Trainer`) with this optimizer; `trainer` itself if `muon_lr` is None."""
    if muon_lr is None:
        return trainer

    rate: float = muon_lr

    class MuonTrainer(trainer):  # type: ignore[misc]
        optimizer: Any

        def create_optimizer(self, model: Any = None) -> Any:
            if self.optimizer is None:
                self.optimizer = MuonWithAdamW(
                    model or self.model,
                    lr=self.args.learning_rate,
                    muon_lr=rate,
                    betas=(self.args.adam_beta1, self.args.adam_beta2),
                    eps=self.args.adam_epsilon,
                )
            return self.optimizer

    return MuonTrainer
