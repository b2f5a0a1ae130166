"""TRL as the host: `python -m prm_gym.hosts.trl {sft|prm|online_dpo|policy_gradient} --config FILE.yaml`.

`sft` is TRL's own command. TRL has no trainer for pointwise reward models and no command for online DPO, so `prm` and
`online_dpo` connect transformers' `Trainer` and TRL's `OnlineDPOTrainer` to a YAML file, read by TRL's parser.
"""
