"""pi_0 by `trl sft`: TRL's script and arguments, with `muon_learning_rate`, and the ids of `prm_gym.prompts.chat`."""

from __future__ import annotations

from typing import Any

KINDS = ("sft", "dagger", "rejection_sampling", "posterior", "plans", "world")


def argument_classes() -> tuple[type[Any], ...]:
    import trl

    from prm_gym.hosts.trl.muon import MuonArguments

    return trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig, MuonArguments


def main(arguments: list[str]) -> None:
    import trl
    from trl.scripts import sft

    from prm_gym.hosts.trl.arguments import parse
    from prm_gym.hosts.trl.inputs import check_kind
    from prm_gym.hosts.trl.muon import with_muon
    from prm_gym.hosts.trl.tokenization import on_demonstrations
    from prm_gym.provenance.checkpoint_settings import carry

    *stock, optimizer = parse(arguments, argument_classes())
    check_kind(stock[0].dataset_name, KINDS)
    trainer = with_muon(trl.SFTTrainer, optimizer.muon_learning_rate)
    trl.SFTTrainer = on_demonstrations(trainer)  # the script takes it from there
    script, training = stock[:2]
    if training.process_index == 0:
        carry([script.dataset_name], training.output_dir)
    sft.main(*stock)
