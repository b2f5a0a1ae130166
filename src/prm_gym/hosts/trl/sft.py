"""pi_0 by `trl sft`: TRL's own script and arguments, and `muon_learning_rate` beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class OptimizerArguments:
    """What a recipe may say beside the arguments of `trl sft`."""

    muon_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Muon for hidden matrices at this rate; `learning_rate` is AdamW's, for the rest."},
    )


def main(arguments: list[str]) -> None:
    import trl
    from trl.scripts import sft

    parser = trl.TrlParser(
        (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig, OptimizerArguments)
    )
    *stock, optimizer = parser.parse_args_and_config(arguments, fail_with_unknown_args=True)[:5]
    if optimizer.muon_learning_rate is not None:
        trl.SFTTrainer = _with_muon(trl.SFTTrainer, optimizer.muon_learning_rate)  # the script reads it from here
    sft.main(*stock)


def _with_muon(trainer: type[Any], muon_lr: float) -> type[Any]:
    from prm_gym.hosts.trl.muon import MuonWithAdamW

    class MuonTrainer(trainer):  # type: ignore[misc]
        optimizer: Any

        def create_optimizer(self, model: Any = None) -> Any:
            if self.optimizer is None:
                self.optimizer = MuonWithAdamW(
                    model or self.model,
                    lr=self.args.learning_rate,
                    muon_lr=muon_lr,
                    betas=(self.args.adam_beta1, self.args.adam_beta2),
                )
            return self.optimizer

    return MuonTrainer
