"""Q(s, a) of a process reward model that is served as a one-logit classifier (vLLM's /classify).

The text is tokenised here, as in `in_process`: the prompt and the response, without the token that ends its turn.
Requests ask for the logit, since servers differ in what they apply to it by default. A softmax over one class is 1 for
every input; a server that applies it regardless is refused.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from os import PathLike
from typing import Any

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.inference.http_servers import Endpoints
from prm_gym.inference.served_model import served_model
from prm_gym.prm.scorer import Scorer
from prm_gym.prompts.chat import Tokenizer, scored_ids, template_of
from prm_gym.prompts.tokenizer import load_tokenizer
from prm_gym.provenance.fingerprints import of_prompt
from prm_gym.types import Response, State


class ServedPRMScorer(Scorer):
    """Scores responses with the classifier `model` at the servers `base_urls` (with or without a final /v1).

    `tokenizer` is the model's own, or its folder; `prompt` the template of its training data; the other options are
    those of `Endpoints`.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        model: str,
        *,
        prompt: str | prompts.Prompt,
        tokenizer: Tokenizer | str | PathLike[str],
        concurrency: int = 64,
        **connection: Any,
    ) -> None:
        urls = [base_urls] if isinstance(base_urls, str) else base_urls
        roots = [url.rstrip("/").removesuffix("/v1") for url in urls]
        self._endpoints = Endpoints(roots, concurrency=concurrency, **connection)
        self._model = model
        self._prompt = prompts.load(prompt) if isinstance(prompt, str) else prompt
        if isinstance(tokenizer, str | PathLike):
            self._folder, self._tokenizer = tokenizer, load_tokenizer(tokenizer, padding=False)
        else:
            self._folder, self._tokenizer = model, tokenizer
        template_of(self._tokenizer)
        self._trusted = False

    async def settings(self) -> dict[str, Any]:
        """The facts that the servers list of the model, and the prompt. Raises `UserError` as `Endpoints.served`."""
        told = await self._endpoints.served(self._model, "/v1/models")
        return {"kind": "server", **served_model(self._model, self._folder, told), "prompt": of_prompt(self._prompt)}

    async def logits(self, pairs: Sequence[tuple[State, Response]]) -> list[float]:
        """logit Q(s, a) of each pair. Raises as `Endpoints.post`."""
        texts = [scored_ids(self._tokenizer, self._prompt.messages(state), response.text) for state, response in pairs]
        if not self._trusted:
            await self._refuse_softmax(texts[0])
        return await self._classified(texts, activate=False)

    async def close(self) -> None:
        await self._endpoints.close()

    async def _refuse_softmax(self, text: list[int]) -> None:
        """Ask with and without the activation: a server that answers 1 both times always applies a softmax."""
        both = await asyncio.gather(*(self._classified([text], activate=activate) for activate in (False, True)))
        if both == [[1.0], [1.0]]:
            raise UserError(
                self._model,
                "is served with a softmax over its one class, which is 1 for every input",
                "serve it with a pooler that gives logits (vLLM: --pooler-config '{\"use_activation\": false}')",
            )
        self._trusted = True

    async def _classified(self, texts: list[list[int]], *, activate: bool) -> list[float]:
        body = {"model": self._model, "input": texts, "use_activation": activate}
        return await self._endpoints.post("/classify", body, partial(self._read, count=len(texts)))

    def _read(self, answer: dict[str, Any], count: int) -> list[float]:
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        logits = [float(logit) for row in rows for logit in row["probs"]]
        if not all(map(math.isfinite, logits)):
            raise ValueError("a score is not a number")
        if [int(row["index"]) for row in rows] != list(range(count)):
            raise ValueError(f"scores of other texts than the {count} that were sent")
        if len(logits) != count:
            raise UserError(self._model, f"gave {len(logits)} scores for {count} texts", "serve a one-logit model")
        return logits
