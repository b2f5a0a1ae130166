"""Stage 3: online DPO on Q through TRL's `OnlineDPOTrainer`, equation 3 of the paper with its KL term inside DPO.

At each prompt the policy samples two responses, Q ranks them, the DPO loss moves the policy towards the better one.
The reference is the initial policy, which is pi_{i-1}. Two responses that Q scores alike are usually the same text,
and then their gradients cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prm_gym.hosts.trl.data import check_same_vocabulary, load_split, load_tokenizer


@dataclass
class PolicyArguments:
    """What the recipe says beside TRL's own `OnlineDPOConfig` (whose `reward_model_path` names Q)."""

    model_name_or_path: str = field(metadata={"help": "pi_{i-1}: where training starts, and the reference."})
    dataset_name: str = field(metadata={"help": "Folder written by `prm-gym label prompts`."})


def main(arguments: list[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl import TrlParser
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    parser = TrlParser((PolicyArguments, OnlineDPOConfig))
    script, training = parser.parse_args_and_config(arguments, fail_with_unknown_args=True)[:2]
    tokenizer = load_tokenizer(script.model_name_or_path, "model_name_or_path")
    prm_tokenizer = load_tokenizer(training.reward_model_path, "reward_model_path")
    check_same_vocabulary(tokenizer, prm_tokenizer, training.reward_model_path)
    prompts = load_split(script.dataset_name, "train", ("prompt",)).select_columns(["prompt"])
    policy = AutoModelForCausalLM.from_pretrained(script.model_name_or_path, dtype=torch.float32)
    prm = AutoModelForSequenceClassification.from_pretrained(
        training.reward_model_path, num_labels=1, dtype=torch.float32
    )
    trainer = OnlineDPOTrainer(
        model=policy,
        reward_funcs=prm,
        reward_processing_classes=prm_tokenizer,
        args=training,
        train_dataset=prompts,
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
