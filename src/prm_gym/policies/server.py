"""A policy behind an OpenAI-compatible server: vLLM, SGLang, or a provider's API.

With a `tokenizer` the prompt is tokenised here and its ids are sent to /completions, so nothing is tokenised twice and
the server adds no second BOS. The server returns the sampled ids if it can (vLLM: `return_token_ids`), and their
log-probabilities (see `inference.server_logprobs` for their temperature). A server that reads more or fewer prompt
tokens than were sent is refused once the retries are used up. Without a tokenizer (API models) the messages go to
/chat/completions, with standard fields only.

Left out: streaming, tools, log-probabilities of API models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

from prm_gym import prompts
from prm_gym.errors import HOTTEST, INT32, check_range
from prm_gym.inference.http_servers import Endpoints
from prm_gym.inference.served_model import served_model
from prm_gym.inference.server_answers import Reader
from prm_gym.inference.server_logprobs import Scale, by_temperature, find_scale
from prm_gym.prompts.chat import Tokenizer, prompt_ids, template_of
from prm_gym.prompts.tokenizer import load_tokenizer
from prm_gym.provenance.fingerprints import of_prompt
from prm_gym.types import Message, PromptTooLong, Response, State


class ServerPolicy:
    """Samples responses of `model` at the servers `base_urls`.

    Parameters
    ----------
    base_urls: one or more, such as "http://localhost:8000/v1"; requests go to the least busy.
    model: the name under which the servers know it; `policy_id` is the same unless given.
    prompt: the name or path of a prompt template, or a loaded one.
    tokenizer: the model's own, or its folder; None for API models.
    temperature, max_tokens, stop: as the API means them; `max_tokens` of one response.
    extra_body: further fields of the request; None removes a field, such as {"max_tokens": None,
        "max_completion_tokens": 256} for a provider that renamed it.
    connection: the options of `Endpoints`: concurrency, timeout, retries, backoff, api_key_env.

    Raises `UserError` as `Endpoints`, and as `chat.template_of` for a tokenizer.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        model: str,
        *,
        prompt: str | prompts.Prompt,
        tokenizer: Tokenizer | str | PathLike[str] | None = None,
        temperature: float = 0.3,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        extra_body: Mapping[str, Any] | None = None,
        policy_id: str | None = None,
        **connection: Any,
    ) -> None:
        check_range("temperature", temperature, least=0, most=HOTTEST)
        check_range("max_tokens", max_tokens, least=1, most=INT32)
        self.policy_id = model if policy_id is None else policy_id
        self._prompt = prompts.load(prompt) if isinstance(prompt, str) else prompt
        self._endpoints = Endpoints(base_urls, **connection)
        if isinstance(tokenizer, str | PathLike):
            self._folder, self._tokenizer = tokenizer, load_tokenizer(tokenizer, padding=False)
        else:
            self._folder, self._tokenizer = model, tokenizer
        if self._tokenizer is not None:
            template_of(self._tokenizer)
        fields = {"model": model, "temperature": temperature, "max_tokens": max_tokens, "stop": list(stop) or None}
        if self._tokenizer is not None:
            fields |= {"return_token_ids": True, "logprobs": 1}
        self._fields = {**fields, **(extra_body or {})}
        self._model, self._max_tokens = model, max_tokens
        names = {"return_token_ids": "token_ids", "logprobs": "logprobs"}  # of requests, of answers
        self._reader = Reader(frozenset(names[name] for name in names if self._fields.get(name)))
        self._context: asyncio.Task[int | None] | None = None
        self._scale: asyncio.Task[Scale] | None = None

    async def settings(self) -> dict[str, Any]:
        """The fields of a request, and what the servers tell of the model. Raises `UserError` as `Endpoints.served`."""
        asked = ("model", "return_token_ids", "logprobs")  # of which no response depends on the last two
        fields = {name: value for name, value in self._fields.items() if name not in asked}
        return {
            "kind": "server",
            **served_model(self._model, self._folder, await self._endpoints.served(self._model)),
            "prompt": of_prompt(self._prompt),
            "max_new_tokens": fields.pop("max_tokens", None),
            **fields,
        }

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        """As `reply` to the prompt of `state`."""
        return await self.reply(self._prompt.messages(state), n=n, seed=seed)

    async def reply(self, messages: Sequence[Message], *, n: int = 1, seed: int = 0) -> list[Response]:
        """Sample `n` responses to `messages`; a server that gives fewer at once is asked again, with other seeds.

        Raises `PromptTooLong` for a prompt that leaves no room for `max_tokens` (a server would shorten the response
        in silence), `RequestFailed` after the retries, and `UserError` for what no retry can mend.
        """
        if self._context is None:
            self._context = asyncio.ensure_future(self._context_length())
        context = await asyncio.shield(self._context)
        responses: list[Response] = []
        while len(responses) < n:
            body = {**self._fields, "n": n - len(responses), "seed": seed + len(responses)}
            responses += await self._sample(messages, body, context)
        return responses[:n]

    async def close(self) -> None:
        """Close the connections; `act` opens new ones."""
        self._context = self._scale = None
        await self._endpoints.close()

    async def _context_length(self) -> int | None:
        length: int | None = (await self._endpoints.served(self._model)).get("max_model_len")
        return length

    async def _sample(self, messages: Sequence[Message], fields: dict[str, Any], context: int | None) -> list[Response]:
        body = {name: value for name, value in fields.items() if value is not None}
        ids: list[int] | None = None
        if self._tokenizer is None:
            path, request = "/chat/completions", {**body, "messages": list(messages)}
        else:
            ids = prompt_ids(self._tokenizer, messages)
            self._refuse_too_long(len(ids), context)
            path, request = "/completions", {**body, "prompt": ids}
        read = await self._endpoints.post(path, request, partial(self._reader.read, prompt=ids, most=fields["n"]))
        self._refuse_too_long(read[0][0].prompt_tokens, context)
        if ids is None:
            return [response for response, _ in read]
        unscored = all(returned is None for _, returned in read)
        scale = Scale.UNKNOWN if unscored else await self._returned(body, ids)
        responses = []
        for response, returned in read:
            plain, sampling = by_temperature(returned, scale, body.get("temperature", 1.0))
            responses.append(replace(response, logprob=plain, sampling_logprob=sampling))
        return responses

    async def _returned(self, body: dict[str, Any], prompt: list[int]) -> Scale:
        """The distribution that the servers' log-probabilities belong to; asked once."""
        if self._scale is None:
            self._scale = asyncio.ensure_future(find_scale(self._endpoints, self._reader, body, prompt))
        return await asyncio.shield(self._scale)

    def _refuse_too_long(self, prompt_tokens: int, context: int | None) -> None:
        if context is not None and prompt_tokens + self._max_tokens > context:
            raise PromptTooLong(f"{prompt_tokens} prompt and {self._max_tokens} response tokens, context {context}")
