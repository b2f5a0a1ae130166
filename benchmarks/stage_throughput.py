"""Tokens per second of each stage of a finished iteration, against the device's limit.

    python benchmarks/stage_throughput.py RUN [--episodes 256] [--max-batch 128]

The limit is what a large matrix product reaches here (bfloat16 on a GPU, float32 on a CPU). A token costs 2 floating
point operations a parameter in a forward pass and 6 in training (Kaplan et al., 2020, arXiv:2001.08361); attention and
the optimizer are left out. Sampling and Q are measured on the states of RUN/iter1/rollouts: all episodes
are in flight at once, tokens that the turn before has cached are counted as read, not as computed. Trainings are timed
by their manifests, with the start of the process; one of online DPO has 12 operations (the policy 6; sampling, the
reference and Q 2 each).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import load_dataset

from prm_gym.errors import UserError, no_folder, run_program
from prm_gym.hosts.demonstrations import demonstrations
from prm_gym.inference.checkpoint import load_tokenizer
from prm_gym.policies.transformers import TransformersPolicy
from prm_gym.prm.in_process import PRMScorer
from prm_gym.prompts.chat import prompt_ids, sequence_ids
from prm_gym.provenance.checkpoint_settings import trained_for
from prm_gym.runs.dry_run import _parameters
from prm_gym.store import read_episodes
from prm_gym.types import Response, State

FORWARD, TRAINING, ONLINE_DPO = 2, 6, 12  # operations a parameter and token
Visit = tuple[State, Response]


def limit(device: str) -> float:
    """Operations a second of a square matrix product."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def run(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    run(3)
    return 20 * 2 * size**3 / run(20)


def visits(folder: Path, count: int) -> list[list[Visit]]:
    """The states and responses of `count` stored episodes."""
    return [
        [
            (episode.state_at(t), Response(turn.response, turn.reason, turn.action))
            for t, turn in enumerate(episode.turns[:-1])
        ]
        for episode in islice(read_episodes(folder), count)
    ]


def computed(sequences: list[list[int]]) -> int:
    """Tokens of consecutive sequences that the one before does not begin with."""
    total, before = 0, list[int]()
    for ids in sequences:
        shared = next(
            (i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), min(len(ids), len(before))
        )
        total += len(ids) - shared
        before = ids
    return total


async def sampling(policy: TransformersPolicy, episodes: list[list[Visit]]) -> tuple[float, int]:
    """Seconds, and tokens sampled."""

    async def play(turns: list[Visit]) -> int:
        return sum([(await policy.act(state))[0].response_tokens for state, _ in turns])

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(play, episodes)))
    seconds = time.perf_counter() - started
    await policy.close()
    return seconds, tokens


async def scoring(scorer: PRMScorer, episodes: list[list[Visit]]) -> float:
    """Seconds."""

    async def score(turns: list[Visit]) -> None:
        for visit in turns:
            await scorer.score([visit])

    started = time.perf_counter()
    await asyncio.gather(*map(score, episodes))
    return time.perf_counter() - started


def trained_tokens(stage: Path, tokenizer: Any) -> tuple[int, int] | None:
    """Tokens of a training by its config and dataset, and operations a parameter; None if it is not there."""
    configs = [file for file in stage.glob("*.yaml") if file.stem in ("sft", "prm", "online_dpo")]
    if not configs or not (stage / "manifest.json").exists():
        return None
    config = yaml.safe_load(configs[0].read_text())
    rows = load_dataset(config["dataset_name"], split="train")
    if configs[0].stem == "online_dpo":
        lengths = [2 * (len(prompt_ids(tokenizer, row["prompt"])) + config["max_new_tokens"]) for row in rows]
    else:
        answers = [name for name in ("completion", "chosen", "rejected") if name in rows.column_names]
        lengths = [
            sum(len(each.ids) for name in answers for each in demonstrations(tokenizer, row["prompt"], row[name]))
            for row in rows
        ]
    batch = config["per_device_train_batch_size"]
    epochs = config.get("num_train_epochs", 1)
    seen = config["max_steps"] * batch if config.get("max_steps", 0) > 0 else epochs * len(lengths)
    return int(sum(lengths) / len(lengths) * seen), ONLINE_DPO if configs[0].stem == "online_dpo" else TRAINING


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--max-batch", type=int, default=128)
    options = parser.parse_args()
    for needed in (options.run, options.run / "pi_0", options.run / "iter1" / "rollouts"):
        if not needed.is_dir():
            raise UserError(needed, no_folder(needed), "name the folder of a run, after `prm-gym iter 1`")
    run, device = options.run, "cuda" if torch.cuda.is_available() else "cpu"
    parameters, most = _parameters(run / "pi_0"), limit(device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}: {most / 1e12:.2f} TFLOP/s in a matrix product; {parameters / 1e6:.0f} million parameters")

    def show(stage: str, seconds: float, tokens: int, operations: int, more: str = "") -> None:
        share = operations * parameters * tokens / seconds / most
        rate = f"{tokens / seconds:10,.0f} tokens/s, {share:6.1%} of the limit"
        print(f"{stage:28} {tokens:12,} tokens in {seconds:8.1f} s: {rate}{more}")

    tokenizer, trained = load_tokenizer(run / "pi_0"), trained_for(run / "pi_0")
    if trained is None:
        raise UserError(run / "pi_0", "does not say which prompt it reads", "name a run of `prm-gym iter`")
    prompt = trained.prompt
    episodes = visits(run / "iter1" / "rollouts", options.episodes)
    prompts = [[prompt_ids(tokenizer, prompt.messages(state)) for state, _ in turns] for turns in episodes]
    read = sum(len(ids) for turns in prompts for ids in turns)
    policy = TransformersPolicy(run / "pi_0", temperature=0.3, max_new_tokens=64, max_batch=options.max_batch)
    seconds, sampled = asyncio.run(sampling(policy, episodes))
    of = f" (computed; {read / seconds:,.0f} read and {sampled / seconds:,.0f} sampled a second)"
    show("sampling by pi_0", seconds, sum(map(computed, prompts)) + sampled, FORWARD, of)
    del policy
    if (run / "iter1" / "prm" / "manifest.json").exists():
        seconds = asyncio.run(scoring(PRMScorer(run / "iter1" / "prm", max_batch=options.max_batch), episodes))
        whole = [
            [sequence_ids(tokenizer, prompt.messages(state), answer.text) for state, answer in turns]
            for turns in episodes
        ]
        of = f" (computed; {sum(len(ids) for turns in whole for ids in turns) / seconds:,.0f} read a second)"
        show("scoring by Q_0", seconds, sum(map(computed, whole)), FORWARD, of)
    for stage in (run / "pi_0", run / "iter1" / "prm", run / "iter1" / "policy"):
        if found := trained_tokens(stage, tokenizer):
            seconds = json.loads((stage / "manifest.json").read_text())["seconds"]
            show(f"training of {stage.relative_to(run)}", seconds, *found)


if __name__ == "__main__":
    run_program(main)
