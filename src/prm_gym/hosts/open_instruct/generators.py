"""Generators of the responses of Stage 3: a copy of the policy in this process, or a vLLM server (`vllm_server`).

Both sample from the whole distribution softmax(logits / temperature), and both return the ids as sampled: up to and
including the end-of-turn token, or exactly `length` ids without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Generator(Protocol):
    def load(self, model: Any) -> None:
        """Load the weights of `model`, a causal language model; returns when they are in use."""

    def generate(self, prompts: Sequence[list[int]], seed: int) -> list[list[int]]:
        """One response to each prompt, as token ids."""

    def close(self) -> None: ...


class TransformersGenerator:
    """Samples in this process, with its own copy of the policy and its own random generator."""

    def __init__(self, path: str, *, dtype: Any, device: Any, temperature: float, length: int, stop_id: int) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=dtype).to(device).eval()
        self.temperature, self.length, self.stop_id = temperature, length, stop_id

    def load(self, model: Any) -> None:
        self.model.load_state_dict(model.state_dict())  # copies into the generator's own tensors

    def generate(self, prompts: Sequence[list[int]], seed: int) -> list[list[int]]:
        import torch

        device = self.model.device
        random = torch.Generator(device).manual_seed(seed)
        longest = max(map(len, prompts))
        ids = torch.tensor([[self.stop_id] * (longest - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        sampled: list[Any] = []
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        cache = None
        with torch.no_grad():
            while len(sampled) < self.length and not ended.all():
                out = self.model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
                )
                cache = out.past_key_values
                probabilities = (out.logits[:, -1].float() / self.temperature).softmax(-1)
                ids = torch.multinomial(probabilities, 1, generator=random)
                sampled.append(ids)
                ended |= ids[:, 0] == self.stop_id
                mask = torch.cat((mask, torch.ones_like(ids)), 1)
                positions = positions[:, -1:] + 1
        rows = torch.cat(sampled, 1).tolist()
        return [row[: row.index(self.stop_id) + 1] if self.stop_id in row else row for row in rows]

    def close(self) -> None:
        pass
