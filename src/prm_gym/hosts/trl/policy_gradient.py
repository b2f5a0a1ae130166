"""Stage 3: policy gradient on Q through TRL's `RLOOTrainer`, equation 3 of the paper.

    pi_i = argmax_pi E_{a ~ pi(.|s)} [Q(s, a)] - beta KL(pi(.|s) || pi_{i-1}(.|s))

At each prompt the policy samples `num_generations` responses. The reward of a response is logit Q, less beta times its
log ratio to pi_{i-1}; the mean reward of the prompt's other responses is the baseline (REINFORCE, leave-one-out), so Q
counts by differences at one state alone. A response cut off at the length limit has no reward and is no baseline, since
Q was not trained on those. TRL 1.16 has no PPO; its value model would learn what this baseline estimates by sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prm_gym.hosts.trl.arguments import parse
from prm_gym.hosts.trl.inputs import load_model, load_policy, load_prompts
from prm_gym.hosts.trl.tokenization import check_vllm, q_logits
from prm_gym.prompts.tokenizer import check_same_vocabulary, load_tokenizer
from prm_gym.provenance.checkpoint_settings import carry, check_reads


@dataclass
class PolicyGradientArguments:
    """The recipe's arguments beside TRL's `RLOOConfig`."""

    model_name_or_path: str = field(metadata={"help": "pi_{i-1}: where training starts, and the reference."})
    reward_model_path: str = field(metadata={"help": "Q."})
    dataset_name: str = field(metadata={"help": "Folder written by `prm-gym label prompts`."})


def argument_classes() -> tuple[type[Any], ...]:
    from trl import RLOOConfig

    return PolicyGradientArguments, RLOOConfig


def main(arguments: list[str]) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl import RLOOTrainer

    script, training = parse(arguments, argument_classes())
    tokenizer = load_tokenizer(script.model_name_or_path, "model_name_or_path")
    prm_tokenizer = load_tokenizer(script.reward_model_path, "reward_model_path")
    check_same_vocabulary(tokenizer, prm_tokenizer, script.reward_model_path)
    check_reads(script.reward_model_path)
    if training.use_vllm:
        check_vllm(tokenizer, "policy_gradient")
    prompts = load_prompts(script.dataset_name, ("prompt",), tokenizer, training)
    policy = load_policy(script.model_name_or_path, tokenizer)
    prm = load_model(AutoModelForSequenceClassification, script.reward_model_path, "reward_model_path", num_labels=1)
    trainer = rewarded_by_q(RLOOTrainer)(
        model=policy,
        reward_funcs=prm,
        reward_processing_classes=prm_tokenizer,
        args=training,
        train_dataset=prompts,
        processing_class=tokenizer,
    )
    if training.process_index == 0:
        carry([script.dataset_name], training.output_dir)
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)


def rewarded_by_q(trainer: type[Any]) -> type[Any]:
    """A subclass of `trainer` (TRL's `RLOOTrainer`) whose reward is logit Q on the ids of its training, nan if the
    response did not end its turn.
    """
    import torch

    class RewardedTrainer(trainer):  # type: ignore[misc]
        def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> Any:
            [prm], [tokenizer] = self.reward_funcs, self.reward_processing_classes
            rewards = q_logits(prm, tokenizer, prompts, completions, self.accelerator.device)
            ended = torch.tensor([ids[-1] in self.eos_token_ids for ids in completion_ids], device=rewards.device)
            scores = self.accelerator.gather(torch.where(ended, rewards, torch.nan).unsqueeze(1))
            mode = "train" if self.model.training else "eval"
            # The report reads it under online DPO's name.
            self._metrics[mode]["objective/scores"].append(torch.nanmean(scores).item())
            return scores

    return RewardedTrainer
