"""A language model in this process as a policy, with dynamic batching and a KV cache across turns.

Cached prefixes are matched by token id (`inference.kv_cache`), for any chat template. Templates whose prompts only grow
reuse the most. For models that fill a GPU, a server (`policies.server`) is faster: here a batch runs until its last row
ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from prm_gym import prompts
from prm_gym.errors import HOTTEST, INT32, check_range
from prm_gym.inference.batching import Batcher
from prm_gym.inference.causal_model import CausalModel, Sampled
from prm_gym.inference.checkpoint import load_checkpoint
from prm_gym.inference.kv_cache import Tokens
from prm_gym.inference.model_location import check_policy
from prm_gym.prompts.chat import prompt_ids, template_of
from prm_gym.provenance.checkpoint_settings import prompt_for
from prm_gym.provenance.fingerprints import of_checkpoint, of_prompt
from prm_gym.types import Message, PromptTooLong, Response, State


class _Row(NamedTuple):
    prompt: Tokens
    uniforms: NDArray[np.float32]  # [max_new_tokens]


class TransformersPolicy:
    """Samples responses of the causal language model in the folder `model`.

    Parameters
    ----------
    prompt : the name or path of a prompt template, or a loaded one; by default the one that the model was trained on
        (`checkpoint_settings`), or `full` if that is unknown.
    temperature : 0 takes the likeliest token.
    max_new_tokens : of one response, its end-of-turn token included. A prompt that leaves less room in the model's
        context raises `PromptTooLong`.
    max_batch : samples generated together. Twice as many sequences are cached; with more concurrent episodes, each turn
        computes its whole prompt.
    device, dtype : by default a GPU in bfloat16 if there is one, else the CPU in float32.
    cache_bytes : size of the KV cache, by default 1 GiB or half of the GPU's free memory. Batches are smaller if it
        does not hold `max_batch` sequences.

    The same state, seed and sample index give the same tokens whatever else is in the batch, up to near ties (see
    `inference.causal_model`). `Response.token_ids` are the ids as sampled, the end-of-turn token included if it was
    sampled. The log-probabilities are sums over all of them; their last digits vary with the batch.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str | prompts.Prompt | None = None,
        temperature: float,
        max_new_tokens: int,
        max_batch: int = 256,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        policy_id: str | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        check_range("temperature", temperature, least=0, most=HOTTEST)
        check_range("max_new_tokens", max_new_tokens, least=1, most=INT32)
        check_policy(model)
        self.policy_id = str(model) if policy_id is None else policy_id
        self._prompt = prompt_for(model, prompt)
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._settings = {
            "kind": "transformers",
            "model": of_checkpoint(model),
            "prompt": of_prompt(self._prompt),
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
        }
        lm, self._tokenizer = load_checkpoint(AutoModelForCausalLM, model, device, dtype)
        self._max_length = lm.config.get_text_config().max_position_embeddings
        self._stop = _end_tokens(lm, self._tokenizer)
        self._model = CausalModel(
            lm,
            lambda **inputs: lm(**inputs, logits_to_keep=1).logits[:, -1],
            max_rows=max_batch,
            max_length=self._max_length,
            memory_bytes=cache_bytes,
        )
        self._batcher: Batcher[_Row, Sampled] = Batcher(self._generate, max_batch=max_batch, name="policy")

    async def settings(self) -> dict[str, Any]:
        return self._settings

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        """Sample `n` responses at `state`. Raises `PromptTooLong`."""
        return await self.reply(self._prompt.messages(state), n=n, seed=seed)

    async def reply(self, messages: Sequence[Message], *, n: int = 1, seed: int = 0) -> list[Response]:
        """Sample `n` responses to `messages`. Raises `PromptTooLong`."""
        prompt = np.array(prompt_ids(self._tokenizer, messages), np.int32)
        if len(prompt) + self._max_new_tokens > self._max_length:
            raise PromptTooLong(
                f"{len(prompt)} prompt and {self._max_new_tokens} response tokens, context {self._max_length}"
            )
        rows = [_Row(prompt, self._uniforms(prompt, seed, sample)) for sample in range(n)]
        sampled = await asyncio.gather(*(self._batcher.submit(row) for row in rows))
        return [self._response(len(prompt), each) for each in sampled]

    async def close(self) -> None:
        """Wait for pending calls and end the worker thread."""
        await self._batcher.close()

    def _generate(self, rows: list[_Row]) -> list[Sampled]:
        return self._model.generate(
            [row.prompt for row in rows],
            np.stack([row.uniforms for row in rows]),
            temperature=self._temperature,
            stop=self._stop,
        )

    def _uniforms(self, prompt: Tokens, seed: int, sample: int) -> NDArray[np.float32]:
        key = blake2b(prompt.tobytes(), digest_size=16, key=f"{seed}/{sample}".encode()).digest()
        stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        return stream.random(self._max_new_tokens, np.float32)

    def _response(self, prompt_tokens: int, sampled: Sampled) -> Response:
        ids, *logprobs = sampled
        finished = ids[-1] in self._stop
        text = self._tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
        reason, action = prompts.parse(text)
        return Response(text, reason, action, prompt_tokens, len(ids), tuple(ids), finished, *logprobs)


def _end_tokens(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that end a turn: those of the generation config, the tokenizer's eos, and the chat template's end."""
    configured = lm.generation_config.eos_token_id if lm.generation_config else None
    ends = configured if isinstance(configured, list) else [configured]
    written = template_of(tokenizer).end
    ends = [*ends, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(written) if written else None]
    return frozenset(end for end in ends if end is not None)
