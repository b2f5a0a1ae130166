"""Steered Exploration (section 4.1) on TRL: sample from the exploration prompt, score and train with the plain one.

`prm_gym.hosts.open_instruct.steering` is the same for open-instruct.
"""

from __future__ import annotations

import random
from typing import Any


def steered(trainer: type[Any], probability: float) -> type[Any]:
    """A subclass of `trainer` (TRL's `OnlineDPOTrainer`) for rows with an `exploration_prompt` beside their `prompt`.

    With `probability`, both responses of a row are sampled from the exploration prompt. The draw depends on the seed,
    the step and the prompt, so runs are repeatable.
    """

    class SteeredTrainer(trainer):  # type: ignore[misc]
        _sampled_from: list[Any]

        def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any) -> Any:
            step = f"{self.args.seed} {self.state.global_step}"
            rows = zip(inputs["prompt"], inputs.pop("exploration_prompt"), strict=True)
            self._sampled_from = [
                other if random.Random(f"{step} {plain}").random() < probability else plain for plain, other in rows
            ]
            return super().training_step(model, inputs, *arguments)

        def _generate(self, model: Any, prompts: list[Any], images: Any = None) -> Any:
            *_, completion_ids, completion_mask, vision = super()._generate(model, self._sampled_from, images)
            texts = [
                self.processing_class.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
                for prompt in prompts
            ]
            plain = self.processing_class(
                text=texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
            ).to(completion_ids.device)
            ids, mask = (plain[name].repeat(2, 1) for name in ("input_ids", "attention_mask"))
            return ids, mask, completion_ids, completion_mask, vision

    return SteeredTrainer
