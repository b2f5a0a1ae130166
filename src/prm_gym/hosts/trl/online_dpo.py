"""Stage 3: online DPO on Q through TRL's `OnlineDPOTrainer`, equation 3 of the paper with its KL term inside DPO.

At each prompt the policy samples two responses, Q ranks them, and the DPO loss moves the policy towards the better one.
The reference is the initial policy, pi_{i-1}. Two responses with equal scores are usually the same text, and then their
gradients cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts.trl.arguments import parse
from prm_gym.hosts.trl.inputs import load_model, load_policy, load_prompts
from prm_gym.hosts.trl.tokenization import check_vllm, scored_as_trained
from prm_gym.prompts.tokenizer import check_same_vocabulary, load_tokenizer
from prm_gym.provenance.checkpoint_settings import carry, check_reads


@dataclass
class PolicyArguments:
    """The recipe's arguments beside TRL's `OnlineDPOConfig` (whose `reward_model_path` is Q)."""

    model_name_or_path: str = field(metadata={"help": "pi_{i-1}: where training starts, and the reference."})
    dataset_name: str = field(metadata={"help": "Folder written by `prm-gym label prompts`."})
    reward_ensemble: list[str] = field(
        default_factory=list, metadata={"help": "More Qs; the reward is the mean of all of them."}
    )
    exploration_probability: float = field(
        default=0.0, metadata={"help": "Of sampling from a row's `exploration_prompt` (Steered Exploration)."}
    )


def argument_classes() -> tuple[type[Any], ...]:
    from trl.experimental.online_dpo import OnlineDPOConfig

    return PolicyArguments, OnlineDPOConfig


def main(arguments: list[str]) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl.experimental.online_dpo import OnlineDPOTrainer

    from prm_gym.hosts.trl.exploration_prompts import steered

    script, training = parse(arguments, argument_classes())
    tokenizer = load_tokenizer(script.model_name_or_path, "model_name_or_path")
    if training.reward_model_path is None:
        raise UserError("online_dpo", "Stage 3 needs Q", "name its checkpoint", field="reward_model_path")
    prm_paths = [training.reward_model_path, *script.reward_ensemble]
    prm_tokenizers = [load_tokenizer(path, "reward_model_path") for path in prm_paths]
    for path, prm_tokenizer in zip(prm_paths, prm_tokenizers, strict=True):
        check_same_vocabulary(tokenizer, prm_tokenizer, path)
        check_reads(path)
    if training.use_vllm:
        check_vllm(tokenizer, "online_dpo")
    columns: tuple[str, ...] = ("prompt",)
    trainer_class = scored_as_trained(OnlineDPOTrainer)
    if script.exploration_probability:
        if not 0 < script.exploration_probability <= 1 or training.use_vllm:
            problem = f"{script.exploration_probability} with use_vllm={training.use_vllm}"
            remedy = "give a probability, and sample in the training process (use_vllm: false)"
            raise UserError("online_dpo", problem, remedy, field="exploration_probability")
        columns = ("prompt", "exploration_prompt")
        trainer_class = steered(trainer_class, script.exploration_probability)
    prompts = load_prompts(script.dataset_name, columns, tokenizer, training)
    policy = load_policy(script.model_name_or_path, tokenizer)
    prms = [
        load_model(AutoModelForSequenceClassification, path, "reward_model_path", num_labels=1) for path in prm_paths
    ]
    training.reward_weights = [1 / len(prms)] * len(prms)
    trainer = trainer_class(
        model=policy,
        reward_funcs=prms,
        reward_processing_classes=prm_tokenizers,
        args=training,
        train_dataset=prompts,
        processing_class=tokenizer,
    )
    # TRL backpropagates the loss of every microbatch undivided; the accelerator divides it by this.
    trainer.accelerator.gradient_accumulation_steps = training.gradient_accumulation_steps
    if training.process_index == 0:
        carry([script.dataset_name], training.output_dir)
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
