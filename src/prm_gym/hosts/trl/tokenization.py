"""TRL's trainers on the ids of `prm_gym.prompts.chat`, instead of their own use of the chat template."""

from __future__ import annotations

from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts.demonstrations import demonstrations
from prm_gym.prompts.chat import adapted, scored_ids, template_of


def on_demonstrations(trainer: type[Any]) -> type[Any]:
    """A subclass of `trainer` (TRL's `SFTTrainer`) that uses `demonstrations` for rows of messages in `prompt` and
    `completion`. `assistant_only_loss` then needs no generation marks in the template. TRL handles other data.
    """

    class DemonstrationTrainer(trainer):  # type: ignore[misc]
        def __init__(self, *, args: Any, train_dataset: Any, **options: Any) -> None:
            self._responses_only = bool(args.assistant_only_loss) and _conversational(train_dataset)
            args.assistant_only_loss &= not self._responses_only  # TRL would require the marks
            super().__init__(args=args, train_dataset=train_dataset, **options)

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, *options: Any) -> Any:
            if _conversational(dataset):
                template_of(processing_class)  # raises for an unusable template before any row is processed
                counted = "responses" if self._responses_only else "completion" if self.completion_only_loss else "all"
                settings = {"tokenizer": processing_class, "counted": counted}
                names = list(next(iter(dataset)))
                with args.main_process_first():  # the other processes read its cache
                    dataset = dataset.map(to_ids, batched=True, remove_columns=names, fn_kwargs=settings)
            return super()._prepare_dataset(dataset, processing_class, args, *options)

    return DemonstrationTrainer


def to_ids(rows: dict[str, list[Any]], tokenizer: Any, counted: str) -> dict[str, list[Any]]:
    """Label rows (columns to lists) to `input_ids` and `labels`."""
    found = [
        each
        for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True)
        for each in demonstrations(tokenizer, prompt, completion)
    ]
    return {"input_ids": [each.ids for each in found], "labels": [each.labels(counted) for each in found]}


def _conversational(dataset: Any) -> bool:
    row = next(iter(dataset))
    chats = [row.get("prompt"), row.get("completion")]
    return not row.keys() & {"tools", "chat_template_kwargs"} and all(
        isinstance(chat, list) and chat and isinstance(chat[0], dict) for chat in chats
    )


def adapt(rows: dict[str, list[Any]], tokenizer: Any) -> dict[str, list[Any]]:
    """Rows of prompts with the roles that the chat template supports, so that TRL can apply it."""
    return {name: [adapted(tokenizer, chat) for chat in chats] for name, chats in rows.items()}


def q_logits(model: Any, tokenizer: Any, prompts: Any, completions: Any, device: Any) -> Any:
    """logit Q of each response, float [batch], on the ids that Q was trained on. TRL gives both as message lists."""
    import torch

    ids = [
        scored_ids(tokenizer, prompt, answer["content"]) for prompt, [answer] in zip(prompts, completions, strict=True)
    ]
    inputs = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs.to(device)).logits[:, 0].float()


def scored_as_trained(trainer: type[Any]) -> type[Any]:
    """A subclass of `trainer` (TRL's `OnlineDPOTrainer`) whose reward models read the ids of their training.

    Its figures (KL, entropy) are of the responses alone. TRL 1.16 adds those of the padding after shorter ones.
    """
    import torch

    class ScoredTrainer(trainer):  # type: ignore[misc]
        def _calculate_rewards_from_functions(self, prompts: Any, completions: Any, *_: Any, **__: Any) -> Any:
            device = self.accelerator.device
            rewards = [
                q_logits(model, tokenizer, prompts, completions, device)
                for model, tokenizer in zip(self.reward_funcs, self.reward_processing_classes, strict=True)
            ]
            return self.reward_weights.to(device) @ torch.stack(rewards)

        def _forward(self, model: Any, prompt_ids: Any, prompt_mask: Any, ids: Any, mask: Any, *images: Any) -> Any:
            """The log-probabilities of `ids` [batch, length], 0 for padding; DPO's loss leaves padding out anyway."""
            return super()._forward(model, prompt_ids, prompt_mask, ids, mask, *images) * mask

    return ScoredTrainer


def check_vllm(tokenizer: Any, stage: str) -> None:
    """Raise `UserError` if the tokenizer adds tokens to the rendered chat, which TRL sends to vLLM as text."""
    if tokenizer.encode("") != []:
        problem = "TRL sends the rendered chat as text, to which the tokenizer adds special tokens once more"
        raise UserError(stage, problem, "set it to false, or use open-instruct's host", field="use_vllm")
