"""The server policy: its requests, its results, and no text tokenised twice."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

pytest.importorskip("httpx")

from fake_server import FakeServer, Reply, completion

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.inference.http_servers import RequestFailed
from prm_gym.policies.server import ServerPolicy
from prm_gym.types import PromptTooLong, State

STATE = State("g", "put a mug in the sink", ("You see a desk.", "It is open."), ("open desk",), ("look", "go to sink"))


class Letters:
    """A tokenizer with one id per character and a BOS, 1, that its template puts first."""

    chat_template = "yes"

    def apply_chat_template(self, messages, *, add_generation_prompt, tokenize, return_dict):
        assert not return_dict
        text = "\1" + "".join(f"<{message['role']}>{message['content']}" for message in messages)
        text += "<assistant>" if add_generation_prompt else ""
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return list(map(ord, text))


def act(handler, *, n=1, seed=7, state=STATE, models=None, context=0, **options):
    """The responses to one `act`, and what the server was sent."""

    async def main():
        async with FakeServer(handler, models=models, context=context) as server:
            policy = ServerPolicy(server.url, "tiny", prompt="compact", **{"backoff": 0.01, **options})
            try:
                return await policy.act(state, n=n, seed=seed), server.requests
            finally:
                await policy.close()

    return asyncio.run(asyncio.wait_for(main(), 30))


async def answer(request):
    return completion(request)


def test_ids_are_sent_as_the_template_made_them_with_one_bos():
    _, [request, *_] = act(answer, tokenizer=Letters())
    messages = prompts.load("compact").messages(STATE)
    expected = Letters().apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert request.path == "/v1/completions"
    assert request.body["prompt"] == expected
    assert request.body["prompt"].count(1) == 1
    assert request.body["return_token_ids"] is True
    assert "messages" not in request.body


def test_a_real_llama_3_tokenizer_sends_one_bos(tmp_path):
    """Llama 3: the template writes the BOS itself and the tokenizer would add another to a rendered string."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "<bos>": 1, "<end>": 2}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<end>")
    tokenizer.chat_template = "{{ bos_token }} {% for m in messages %} {{ m.content }} {% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    rendered = tokenizer.apply_chat_template(prompts.load("compact").messages(STATE), tokenize=False)
    assert tokenizer(rendered).input_ids.count(1) == 2, "the trap is set"
    _, [request, *_] = act(answer, tokenizer=tmp_path)
    assert request.body["prompt"].count(1) == 1


def test_the_ids_sampled_are_the_ids_kept():
    async def with_ids(request):
        return completion(request, token_ids=[5, 6, 7], finish_reason="stop")

    [response], _ = act(with_ids, tokenizer=Letters())
    assert response.token_ids == (5, 6, 7)
    assert response.response_tokens == 3


def test_a_server_without_ids_gives_none_and_counts():
    """It is believed when the second answer has none either."""
    [first, second], [request, again] = act(answer, n=2, tokenizer=Letters())
    assert again.body == request.body
    assert first.token_ids is None
    assert first.response_tokens == second.response_tokens == 5
    assert first.prompt_tokens == len(request.body["prompt"])


@pytest.mark.parametrize("difference", [1, -3])
def test_a_server_that_adds_or_cuts_prompt_tokens_is_refused(difference):
    async def wrong(request):
        reply = completion(request)
        reply.body["usage"]["prompt_tokens"] += difference
        return reply

    with pytest.raises(UserError, match="prompt tokens where"):
        act(wrong, tokenizer=Letters())


def test_api_models_get_messages_and_standard_fields_only():
    [response], [request] = act(answer, temperature=0.7, max_tokens=64)
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "tiny",
        "messages": prompts.load("compact").messages(STATE),
        "temperature": 0.7,
        "max_tokens": 64,
        "n": 1,
        "seed": 7,
    }
    assert (response.reason, response.action) == ("r", "look")
    assert response.prompt_tokens == 7


def test_sampling_fields_are_sent():
    _, [request, *_] = act(
        answer,
        n=3,
        tokenizer=Letters(),
        temperature=0.0,
        stop=["\n\n"],
        extra_body={"top_p": 0.9, "max_tokens": None, "max_completion_tokens": 9},
    )
    body = request.body
    assert (body["n"], body["seed"], body["temperature"], body["stop"]) == (3, 7, 0.0, ["\n\n"])
    assert (body["top_p"], body["max_completion_tokens"]) == (0.9, 9)
    assert "max_tokens" not in body


def test_finish_reasons_are_kept():
    async def cut(request):
        return completion(request, finish_reason="length")

    assert act(answer)[0][0].finished
    assert not act(cut)[0][0].finished


def test_a_server_that_ignores_n_is_asked_again_with_other_seeds():
    async def one_at_a_time(request):
        reply = completion(request, text=f"ACTION: {request.body['seed']}")
        del reply.body["choices"][1:]
        return reply

    responses, requests = act(one_at_a_time, n=3)
    assert [response.action for response in responses] == ["7", "8", "9"]
    assert [request.body["n"] for request in requests] == [3, 2, 1]


def test_a_message_without_content_is_an_empty_action():
    async def silent(request):
        return completion(request, message={"content": None})

    [response], _ = act(silent)
    assert (response.text, response.action) == ("", "")


def test_a_prompt_over_the_context_is_told_apart():
    async def refuse(request):
        return Reply(400, {"message": "This model's maximum context length is 2048 tokens."})

    with pytest.raises(PromptTooLong):
        act(refuse)


@pytest.mark.parametrize("tokenizer", [Letters(), None])
def test_a_prompt_that_leaves_too_little_room_is_refused_though_the_server_would_shorten_the_response(tokenizer):
    _, [request, *_] = act(answer, tokenizer=tokenizer)
    length = len(request.body.get("prompt", range(7)))
    act(answer, tokenizer=tokenizer, max_tokens=10, context=length + 10)
    with pytest.raises(PromptTooLong, match=f"{length} prompt and 11 response tokens, context {length + 10}"):
        act(answer, tokenizer=tokenizer, max_tokens=11, context=length + 10)


ODD = [
    {},
    {"choices": []},
    {"choices": [{"index": 0}]},
    {"choices": 3},
    {"choices": [{"text": 3}]},
    {"choices": 2 * [{"text": "ACTION: look"}]},
    {"choices": [{"text": "ACTION: look"}], "usage": "none"},
    {"choices": [{"text": "ACTION: look", "prompt_token_ids": [1, 2]}]},
    {"choices": [{"text": "ACTION: look", "token_ids": ["1"]}]},
    {"choices": [{"text": "ACTION: look", "token_ids": [1, 2], "logprobs": {"token_logprobs": [-1.0]}}]},
]


@pytest.mark.parametrize("body", ODD)
def test_an_answer_to_something_else_is_tried_again(body):
    replies = iter([Reply(200, body)])

    async def odd(request):
        return next(replies, None) or completion(request, token_ids=[5])

    [response], requests = act(odd, tokenizer=Letters(), extra_body={"logprobs": None})
    assert response.action == "look"
    assert len(requests) == 2
    replies = itertools.repeat(Reply(200, body))
    with pytest.raises(RequestFailed, match=r"the answer is not usable .*, after 3 tries"):
        act(odd, tokenizer=Letters(), retries=2)


@pytest.mark.parametrize("damaged", [1, 2])
@pytest.mark.parametrize("field", ["token_ids", "logprobs"])
def test_an_answer_without_what_others_have_is_tried_again(field, damaged):
    full = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-0.5, -0.25], "top_logprobs": [{"a": -0.5}]}}
    count = 0

    async def forgetful(request):
        nonlocal count
        count += request.body["max_tokens"] > 1  # not the question about the scale
        given = {**full, field: None} if count == damaged else full
        return completion(request, **{**given, "token_ids": given["token_ids"] and [5, 6]})

    async def main():
        async with FakeServer(forgetful) as server:
            policy = ServerPolicy(server.url, "tiny", prompt="compact", tokenizer=Letters(), backoff=0.01)
            responses = [(await policy.act(STATE))[0] for _ in range(2)]
            await policy.close()
            return responses

    first, second = asyncio.run(asyncio.wait_for(main(), 30))
    assert count == 3
    assert first == second


def test_a_model_that_is_not_served_is_named_before_anything_is_sampled():
    with pytest.raises(UserError, match="serves no model 'tiny'; name one of: big, small"):
        act(answer, models=["small", "big"])


def test_no_server_is_told_before_work_starts():
    async def main():
        async with FakeServer(answer) as gone:
            url = gone.url
        policy = ServerPolicy(url, "tiny", prompt="compact")
        try:
            await policy.act(STATE)
        finally:
            await policy.close()

    with pytest.raises(UserError, match=r"base_urls: http.* cannot be reached"):
        asyncio.run(asyncio.wait_for(main(), 20))


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=str(tmp_path)):
        ServerPolicy("http://x", "tiny", prompt="compact", tokenizer=tmp_path)


def test_rollouts_over_a_server_that_fails_now_and_then_lose_nothing(tmp_path):
    """Policy, endpoints and collector together: every fifth request fails, and every episode is stored."""
    from rollout_world import Corridor, content, make_games

    from prm_gym.rollout import collect

    count = 0

    async def moody(request):
        nonlocal count
        count += 1
        if count % 5 == 0:
            return Reply(503) if count % 2 else Reply(drop=True)
        return completion(request, text=f"ACTION: {('go left', 'go right', 'open door')[request.body['seed'] % 3]}")

    async def main():
        async with FakeServer(moody) as server:
            policy = ServerPolicy(server.url, "tiny", prompt="compact", tokenizer=Letters(), backoff=0.01)
            summary = await collect(make_games(6), policy, tmp_path, make_env=Corridor, progress=False)
            await policy.close()
            return summary

    summary = asyncio.run(asyncio.wait_for(main(), 60))
    assert summary.failures == 0
    assert len(content(tmp_path)) == 6
    assert json.loads((tmp_path / "provenance.json").read_text())["settings"]["policy_id"] == "tiny"


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_sampling_out_of_range_is_refused(options):
    with pytest.raises(UserError, match=f"{next(iter(options))}: got .*; must be at least"):
        ServerPolicy("http://localhost:8000/v1", "tiny", prompt="compact", **options)
