"""Muon for the matrices inside a model, AdamW for all else, as one optimizer.

Muon (K. Jordan et al., 2024; `torch.optim.Muon`) orthogonalises the momentum of each weight matrix. A model made from
scratch learns from far fewer steps with it; embeddings, heads (the output matrix, a PRM's score) and vectors stay with
AdamW, as its authors advise. Leaves out: models with convolutions.
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
    """What a recipe may say beside the arguments of a trainer."""

    muon_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Muon for hidden matrices at this rate; `learning_rate` is AdamW's, for the rest."},
    )


class MuonWithAdamW(torch.optim.Optimizer):
    """The parameters of `model`: hidden weight matrices by Muon at `muon_lr`, the rest by AdamW at `lr`.

    A scheduler scales both rates alike. State and parameter groups are those of an ordinary optimizer, so checkpoints
    hold both parts.
    """

    def __init__(self, model: PreTrainedModel, *, lr: float, muon_lr: float, betas: tuple[float, float]) -> None:
        embedding = model.get_input_embeddings().weight
        inside = {id(p) for p in model.base_model.parameters() if p.ndim == 2 and p is not embedding}
        trained = [p for p in model.parameters() if p.requires_grad]
        hidden = [p for p in trained if id(p) in inside]
        rest = [p for p in trained if id(p) not in inside]
        self._muon = torch.optim.Muon(hidden, lr=muon_lr, weight_decay=0.0)
        self._adamw = torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=0.0)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for part, group in zip((self._muon, self._adamw), self.param_groups, strict=True):
            # a checkpoint that was loaded brings groups and state of its own
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss


def with_muon(trainer: type[Any], muon_lr: float | None) -> type[Any]:
    """`trainer`, a class of transformers' `Trainer`, with this optimizer; as it is if `muon_lr` is None."""
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
                )
            return self.optimizer

    return MuonTrainer
