"""The served reward model: logits asked for, sigmoid taken here, softmax over one class refused."""

from __future__ import annotations

import asyncio
import math

import pytest

pytest.importorskip("httpx")

from fake_server import FakeServer, Reply
from test_server import STATE, Letters

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import BestOfN
from prm_gym.prm.served import ServedPRMScorer
from prm_gym.types import Response

LOOK, GO = Response("ACTION: look", "", "look"), Response("ACTION: go to sink", "", "go to sink")


def classifier(logit_of, *, activation=None):
    """vLLM's /classify; `activation` is what it does however it is asked, None what `use_activation` says."""

    async def handler(request):
        rows = []
        for index, ids in enumerate(request.body["input"]):
            logit = logit_of(ids)
            apply = activation or (lambda x: 1 / (1 + math.exp(-x)) if request.body["use_activation"] else x)
            rows.append({"index": index, "label": "LABEL_0", "probs": [apply(logit)], "num_classes": 1})
        return Reply(body={"data": rows[::-1]})

    return handler


def score(handler, pairs, suffix="", tokenizer=None):
    async def main():
        async with FakeServer(handler) as server:
            options = {"prompt": "compact", "tokenizer": tokenizer or Letters(), "backoff": 0.01}
            scorer = ServedPRMScorer(server.url + suffix, "q", **options)
            try:
                return await scorer.score(pairs), server.requests
            finally:
                await scorer.close()

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_scores_are_the_sigmoid_of_the_logit_in_the_order_asked():
    scores, requests = score(classifier(lambda ids: len(ids) / 100 - 1), [(STATE, LOOK), (STATE, GO)])
    texts = requests[-1].body["input"]
    assert scores == [pytest.approx(1 / (1 + math.exp(1 - len(ids) / 100))) for ids in texts]
    assert scores[0] != scores[1]


class Ending(Letters):
    """Letters whose assistant's turns end with the token "$", which is its eos."""

    eos_token = "$"

    def apply_chat_template(self, messages, **options):
        ends = {"assistant": "$"}
        ended = [{**each, "content": each["content"] + ends.get(each["role"], "")} for each in messages]
        return super().apply_chat_template(ended, **options)

    def convert_tokens_to_ids(self, token):
        return ord(token)


@pytest.mark.parametrize(("tokenizer", "end"), [(Letters(), ""), (Ending(), "$")], ids=["no end", "an end"])
def test_the_ids_are_those_of_the_chat_without_the_end_of_the_turn(tokenizer, end):
    _, requests = score(classifier(len), [(STATE, LOOK)], tokenizer=tokenizer)
    chat = [*prompts.load("compact").messages(STATE), {"role": "assistant", "content": "ACTION: look"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=False, tokenize=False, return_dict=False)
    assert text.endswith("ACTION: look" + end)
    assert requests[-1].body["input"] == [list(map(ord, text.removesuffix(end)))]
    assert requests[-1].path == "/classify"


def test_a_softmax_over_one_class_is_refused():
    with pytest.raises(UserError, match="softmax"):
        score(classifier(len, activation=lambda logit: 1.0), [(STATE, LOOK)])


def test_a_two_class_model_is_refused():
    async def two(request):
        return Reply(body={"data": [{"index": 0, "probs": [0.4, 0.6]}]})

    with pytest.raises(UserError, match="2 scores for 1 texts"):
        score(two, [(STATE, LOOK)])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"index": 0, "probs": [0.5]}],
        [{"index": 0, "probs": [0.5]}, {"index": 0, "probs": [0.5]}],
        [{"index": 0, "probs": [0.5]}, {"index": 1, "probs": [None]}],
        [{"index": 0, "probs": [0.5]}, {"index": 1, "probs": [float("nan")]}],
    ],
)
def test_scores_of_something_else_are_asked_for_again(rows):
    right, wrong = classifier(lambda ids: len(ids) / 100), [Reply(body={"data": rows})]

    async def handler(request):
        return wrong.pop() if len(request.body["input"]) == 2 and wrong else await right(request)

    scores, _ = score(handler, [(STATE, LOOK), (STATE, GO)])
    assert not wrong
    assert scores == score(right, [(STATE, LOOK), (STATE, GO)])[0]


@pytest.mark.parametrize("logit", [-1000.0, 1000.0])
def test_extreme_logits(logit):
    [q], _ = score(classifier(lambda ids: logit, activation=lambda x: x), [(STATE, LOOK)])
    assert q == (logit > 0)


def test_best_of_n_with_a_served_model():
    class Both:
        policy_id = "both"

        async def act(self, state, *, n=1, seed=0):
            return [LOOK, GO]

        async def close(self):
            pass

    async def main():
        async with FakeServer(classifier(lambda ids: ids[-1] - 110)) as server:
            scorer = ServedPRMScorer(server.url, "q", prompt="compact", tokenizer=Letters())
            best = BestOfN(Both(), scorer, 2)
            try:
                return await best.act(STATE)
            finally:
                await best.close()

    [response] = asyncio.run(main())
    assert response is max((LOOK, GO), key=lambda response: response.text[-1])


def test_what_the_server_tells_of_the_model_is_a_setting():
    async def main():
        async with FakeServer(classifier(len), models=["q"], told={"root": "org/q", "max_model_len": 64}) as server:
            return await ServedPRMScorer(server.url, "q", prompt="compact", tokenizer=Letters()).settings()

    settings = asyncio.run(asyncio.wait_for(main(), 30))
    assert settings["served"] == {"root": "org/q", "max_model_len": 64}
    assert settings["prompt"]["name"] == "compact"


def test_served_logits_are_those_of_the_same_model_in_process(tmp_path):
    """The server computes what `transformers` does for the ids that it gets, and a sigmoid if it is asked for one."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    from prm_gym.hosts.tiny_model import make_tiny_model
    from prm_gym.prm.in_process import PRMScorer

    make_tiny_model(tmp_path, ["You see a desk 1. REASON: go ACTION: look"] * 20, hidden_size=32, layers=2, heads=2)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    model.score.weight.data.normal_()
    model.save_pretrained(tmp_path)

    def logit_of(ids):
        with torch.no_grad():
            return float(model(torch.tensor([ids])).logits)

    async def main():
        async with FakeServer(classifier(logit_of)) as server:
            served = ServedPRMScorer(server.url, "q", prompt="compact", tokenizer=tmp_path)
            ours = PRMScorer(tmp_path, prompt="compact")
            pairs = [(STATE, LOOK), (STATE, GO)]
            try:
                return await served.logits(pairs), await ours.logits(pairs)
            finally:
                await served.close()
                await ours.close()

    served, ours = asyncio.run(main())
    assert served == pytest.approx(ours, abs=1e-5)
    assert abs(ours[0] - ours[1]) > 1e-3
