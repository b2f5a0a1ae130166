"""pi_0 by `trl sft`: TRL's script and arguments, with `muon_learning_rate`, and the ids of `prm_gym.prompts.chat`."""

from __future__ import annotations


def main(arguments: list[str]) -> None:
    import trl
    from trl.scripts import sft

    from prm_gym.hosts.trl.muon import MuonArguments, with_muon
    from prm_gym.hosts.trl.tokenization import on_demonstrations
    from prm_gym.provenance.checkpoint_settings import carry

    parser = trl.TrlParser(
        (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig, MuonArguments)
    )
    *stock, optimizer = parser.parse_args_and_config(arguments, fail_with_unknown_args=True)[:5]
    trainer = with_muon(trl.SFTTrainer, optimizer.muon_learning_rate)
    trl.SFTTrainer = on_demonstrations(trainer)  # the script takes it from there
    script, training = stock[:2]
    if training.process_index == 0:
        carry([script.dataset_name], training.output_dir)
    sft.main(*stock)
