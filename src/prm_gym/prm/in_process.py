"""Q(s, a) of a process reward model in this process: a sequence classifier with one output, logit Q.

The model reads the ids it was trained on (`prompts.chat`): the prompt and the response, without the token that ends its
turn (`chat.scored_turn_ids`). The logit is read at the last token, as by transformers' `...ForSequenceClassification`
(the last token that is not padding).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.inference.batching import Batcher
from prm_gym.inference.causal_model import CausalModel
from prm_gym.inference.checkpoint import load_checkpoint
from prm_gym.inference.kv_cache import Tokens
from prm_gym.prm.scorer import Scorer, sigmoid
from prm_gym.prompts.chat import scored_turn_ids
from prm_gym.provenance.checkpoint_settings import check_reads, prompt_for
from prm_gym.provenance.fingerprints import of_checkpoint, of_prompt
from prm_gym.types import Message, PromptTooLong, Response, State


class PRMScorer(Scorer):
    """Scores responses with the one-logit classifier in the folder `model`.

    `prompt` must be the template of the policy's data; by default it is the one that the model was trained on.
    `max_batch` sequences are scored together; prefixes that they share with each other or with earlier ones are
    computed once. `device`, `dtype` and `cache_bytes` are as for `TransformersPolicy`. Raises `UserError` for a model
    of another kind, or without a pad token of its own.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str | prompts.Prompt | None = None,
        max_batch: int = 256,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        self._prompt = prompt_for(model, prompt)
        self._settings = {"kind": "transformers", "model": of_checkpoint(model), "prompt": of_prompt(self._prompt)}
        classifier, self._tokenizer = load_checkpoint(AutoModelForSequenceClassification, model, device, dtype)
        config = classifier.config.get_text_config()
        if classifier.config.num_labels != 1 or not hasattr(classifier, "score"):
            problem = f"is not a one-logit classifier of a causal model ({classifier.config.num_labels} labels)"
            raise UserError(model, problem, "train it with num_labels=1", field="num_labels")
        check_reads(model)
        if config.pad_token_id != self._tokenizer.pad_token_id:
            problem = f"is {config.pad_token_id}, the tokenizer's is {self._tokenizer.pad_token_id}"
            raise UserError(model, problem, "set both to the same id", field="pad_token_id")
        self._max_length = config.max_position_embeddings
        self._model = CausalModel(
            classifier,
            lambda **inputs: classifier.score(classifier.base_model(**inputs).last_hidden_state[:, -1]),
            max_rows=max_batch,
            max_length=self._max_length,
            memory_bytes=cache_bytes,
        )
        self._lock = Lock()  # the model is used by the batcher's thread and by callers of `score_messages`
        self._batcher: Batcher[Tokens, float] = Batcher(self._logits_of, max_batch=max_batch, name="prm")

    async def settings(self) -> dict[str, Any]:
        return self._settings

    async def logits(self, pairs: Sequence[tuple[State, Response]]) -> list[float]:
        """logit Q(s, a) of each pair, the model's output. Concurrent calls are batched.

        Raises `PromptTooLong` if a pair is over the model's context.
        """
        texts: list[Tokens] = []
        for state, group in groupby(pairs, key=lambda pair: pair[0]):
            texts += self._encode(self._prompt.messages(state), [response.text for _, response in group])
        return list(await asyncio.gather(*map(self._batcher.submit, texts)))

    def score_messages(self, chats: Sequence[Sequence[Message]]) -> list[float]:
        """Q in [0, 1] of each chat, which ends with the assistant's message. Raises `PromptTooLong`."""
        return [sigmoid(logit) for logit in self.message_logits(chats)]

    def message_logits(self, chats: Sequence[Sequence[Message]]) -> list[float]:
        """logit Q of each chat, as `score_messages`."""
        texts = [text for *prompt, answer in chats for text in self._encode(prompt, [answer["content"]])]
        return self._logits_of(texts)

    async def close(self) -> None:
        """Wait for pending calls and end the worker thread."""
        await self._batcher.close()

    def _encode(self, messages: Sequence[Message], responses: Sequence[str]) -> list[Tokens]:
        prompt, answers = scored_turn_ids(self._tokenizer, messages, responses)
        longest = len(prompt) + max(map(len, answers))
        if longest > self._max_length:
            raise PromptTooLong(f"{longest} tokens of prompt and response, context {self._max_length}")
        return [np.array(prompt + answer, np.int32) for answer in answers]

    def _logits_of(self, texts: Sequence[Tokens]) -> list[float]:
        if not texts:
            return []
        with self._lock:
            logits = self._model.outputs(texts)
        return [float(logit) for logit in logits.float().squeeze(1).tolist()]
