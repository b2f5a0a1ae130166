"""TRL as the host: `python -m prm_gym.hosts.trl {sft|prm|online_dpo} --config FILE.yaml`.

`sft` is TRL's own command. TRL trains no pointwise reward model and gives online DPO no command, so `prm` and
`online_dpo` are the few lines that join transformers' `Trainer` and TRL's `OnlineDPOTrainer` to a YAML file that TRL's
own parser reads.
"""
