"""Q of the in-process PRM against the classifier's own forward pass, one sequence at a time."""

from __future__ import annotations

import asyncio
import shutil
from decimal import Decimal

import numpy as np
import pytest
import torch
from tiny_models import classifier, language_model, state
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prm_gym import prompts, provenance
from prm_gym.errors import UserError
from prm_gym.prm.in_process import PRMScorer
from prm_gym.prm.scorer import sigmoid
from prm_gym.types import PromptTooLong, Response


def chat(s, text):
    return [*prompts.load("compact").messages(s), {"role": "assistant", "content": text}]


@torch.no_grad()
def stock_scores(chats):
    """By the rule of `...ForSequenceClassification` itself, on the ids of the chat template but for the last one, which
    ends the turn.
    """
    model = AutoModelForSequenceClassification.from_pretrained(classifier(), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier())
    ids = (tokenizer.apply_chat_template(c, return_tensors="pt", return_dict=False) for c in chats)
    return [float(torch.sigmoid(model(one[:, :-1], use_cache=False).logits)) for one in ids]


PAIRS = [(state(t, odd="?" * (i % 3)), f"go to shelf {i}") for t in (0, 2, 7) for i in range(6)]


def test_scores_are_those_of_the_classifier_alone():
    chats = [chat(s, text) for s, text in PAIRS]
    expected = stock_scores(chats)
    assert np.ptp(expected) > 0.1
    scores = PRMScorer(classifier(), prompt="compact", max_batch=4).score_messages(chats)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_logits_are_the_output_before_the_sigmoid():
    scorer = PRMScorer(classifier(), prompt="compact", max_batch=4)
    pairs = [(s, Response(text, "", text)) for s, text in PAIRS]

    async def both():
        logits, q = await scorer.logits(pairs), await scorer.score(pairs)
        await scorer.close()
        return np.array(logits), np.array(q)

    logits, q = asyncio.run(both())
    expected = np.array(stock_scores([chat(s, text) for s, text in PAIRS]))
    np.testing.assert_allclose(logits, np.log(expected / (1 - expected)), atol=1e-4)
    np.testing.assert_allclose(q, expected, atol=1e-5)


@pytest.mark.parametrize("logit", [-1000.0, -40.0, -1.0, 0.0, 0.5, 40.0, 1000.0])
def test_the_sigmoid_of_any_logit(logit):
    exact = 1 / (1 + Decimal(-logit).exp())
    assert sigmoid(logit) == pytest.approx(float(exact), abs=1e-15)


def test_concurrent_scores_are_the_same():
    async def main():
        scorer = PRMScorer(classifier(), prompt="compact", max_batch=4)
        pairs = [(s, Response(text, "", text)) for s, text in PAIRS]
        parts = await asyncio.gather(*(scorer.score(pairs[i : i + 6]) for i in (0, 6, 12)))
        await scorer.close()
        return [score for part in parts for score in part]

    np.testing.assert_allclose(asyncio.run(main()), stock_scores([chat(s, t) for s, t in PAIRS]), atol=1e-5)


def test_candidates_at_a_state_share_its_prompt(monkeypatch):
    scorer = PRMScorer(classifier(), prompt="compact", max_batch=16)
    fed, forward = [], scorer._model._forward
    monkeypatch.setattr(
        scorer._model, "_forward", lambda **inputs: fed.append(inputs["input_ids"].numel()) or forward(**inputs)
    )
    candidates = [chat(state(10), f"go to shelf {i}") for i in range(10)]
    scorer.score_messages(candidates)
    assert max(fed) > 100  # the prompt, once
    assert sum(fed) - max(fed) <= 10 * 4  # the answers


def test_over_the_context():
    with pytest.raises(PromptTooLong):
        PRMScorer(classifier(), prompt="compact").score_messages([chat(state(60), "look")])


@pytest.mark.parametrize("folder", [lambda: classifier(2), language_model], ids=["two labels", "a language model"])
def test_other_kinds_of_model_are_refused(folder):
    with pytest.raises(UserError, match="num_labels=1"):
        PRMScorer(folder(), prompt="compact")


def test_a_q_that_read_other_tokens_is_refused(tmp_path):
    old = shutil.copytree(classifier(), tmp_path / "old")
    provenance.write(old, {"kind": "training", "stage": "prm"})
    with pytest.raises(UserError, match=r"old/provenance.json: reads: .*; train it again"):
        PRMScorer(old, prompt="compact")
