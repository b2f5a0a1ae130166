"""Turns and tokens per second of `TransformersPolicy` against plain `model.generate` on the same requests.

Every episode is a scripted conversation in the compact prompt with text of ALFWorld's kind; all episodes are in
flight at once. Plain generation batches them turn by turn, pads the full prompts on the left and calls
`model.generate`, to which sampling, end tokens and limits are given alike. The model has random weights, so an eighth
of its vocabulary counts as end of turn: responses then have about six tokens. Left out: environments.

    python benchmarks/hf_policy.py [--episodes 64] [--turns 16] [--stagger 0] [--threads 1] [--kv-heads 4]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from prm_gym import prompts
from prm_gym.hosts.tiny_model import make_tiny_model
from prm_gym.policies.transformers import TransformersPolicy
from prm_gym.types import State

TEMPERATURE, MAX_NEW_TOKENS = 1.0, 24
PLACES = ["cabinet", "countertop", "drawer", "shelf", "sinkbasin", "fridge", "microwave", "stoveburner", "toaster"]
OBJECTS = ["mug", "plate", "apple", "knife", "egg", "tomato", "bowl", "fork", "kettle", "potato"]


def scripted_states(episodes: int, turns: int, stagger: int) -> list[list[State]]:
    """For every episode its states at `turns` consecutive turns, from a turn between 0 and `stagger` on."""
    begins = [random.Random(-episode - 1).randint(0, stagger) for episode in range(episodes)]
    return [
        _script(random.Random(episode), f"game-{episode}", begin + turns)[begin:]
        for episode, begin in enumerate(begins)
    ]


def _script(rng: random.Random, game_id: str, turns: int) -> list[State]:
    def things(names: list[str], count: int) -> str:
        return ", ".join(f"a {rng.choice(names)} {rng.randint(1, 9)}" for _ in range(count))

    task = f"put a clean {rng.choice(OBJECTS)} in {rng.choice(PLACES)}."
    room = f"You are in the middle of a room. Looking quickly around you, you see {things(PLACES, 8)}."
    observations, actions, states = [room], [], []
    for _ in range(turns):
        states.append(State(game_id, task, tuple(observations), tuple(actions), ()))
        place = f"{rng.choice(PLACES)} {rng.randint(1, 9)}"
        actions.append(f"go to {place}")
        observations.append(f"You arrive at {place}. On the {place}, you see {things(OBJECTS, rng.randint(1, 3))}.")
    return states


def make_model(folder: Path, texts: list[str], kv_heads: int) -> None:
    make_tiny_model(folder, texts)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if kv_heads != model.config.num_key_value_heads:
        config = model.config
        config.num_key_value_heads = kv_heads
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[*range(5, model.config.vocab_size, 8), model.config.eos_token_id], pad_token_id=0
    )
    model.save_pretrained(folder)


def plain(folder: Path, scripts: list[list[State]], max_batch: int) -> tuple[float, float, int]:
    """Seconds, seconds of CPU and response tokens of `model.generate`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    prompt = prompts.load("compact")
    tokens = 0
    started, cpu = time.perf_counter(), time.process_time()
    for states in zip(*scripts, strict=True):
        for first in range(0, len(states), max_batch):
            inputs = tokenizer.apply_chat_template(
                [prompt.messages(state) for state in states[first : first + max_batch]],
                add_generation_prompt=True,
                padding=True,
                return_tensors="pt",
                return_dict=True,
            )
            with torch.inference_mode():
                output = model.generate(
                    **inputs, do_sample=True, temperature=TEMPERATURE, top_k=0, max_new_tokens=MAX_NEW_TOKENS
                )
            tokens += int((output[:, inputs["input_ids"].shape[1] :] != tokenizer.pad_token_id).sum())
    return time.perf_counter() - started, time.process_time() - cpu, tokens


async def slots(folder: Path, scripts: list[list[State]], max_batch: int) -> tuple[float, float, int]:
    """Seconds, seconds of CPU and response tokens of `TransformersPolicy`."""
    policy = TransformersPolicy(
        folder,
        prompt="compact",
        temperature=TEMPERATURE,
        max_new_tokens=MAX_NEW_TOKENS,
        max_batch=max_batch,
    )

    async def episode(states: list[State]) -> int:
        return sum([(await policy.act(state))[0].response_tokens for state in states])

    started, cpu = time.perf_counter(), time.process_time()
    tokens = sum(await asyncio.gather(*map(episode, scripts)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    await policy.close()
    return seconds, cpu, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--stagger", type=int, default=0, help="episodes begin at turns 0 to this")
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--skip-plain", action="store_true", help="measure the policy alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    scripts = scripted_states(arguments.episodes, arguments.turns, arguments.stagger)
    turns = arguments.episodes * arguments.turns
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = [m["content"] for script in scripts for m in prompts.load("compact").messages(script[-1])]
        make_model(folder, texts, arguments.kv_heads)
        rates = {}
        for name in ["plain generate", "TransformersPolicy"][arguments.skip_plain :]:
            if name == "plain generate":
                seconds, cpu, tokens = plain(folder, scripts, arguments.max_batch)
            else:
                seconds, cpu, tokens = asyncio.run(slots(folder, scripts, arguments.max_batch))
            rates[name] = turns / seconds, turns / cpu
            print(
                f"{name:20} {turns} turns, {tokens} tokens in {seconds:6.2f} s ({cpu:6.2f} s of CPU): "
                f"{turns / seconds:7.1f} turns/s, {tokens / seconds:7.1f} tokens/s, {turns / cpu:7.1f} turns/CPU-s"
            )
    if len(rates) == 2:
        wall, cpu = (ours / theirs for ours, theirs in zip(*reversed(rates.values()), strict=True))
        print(f"ratio {wall:.1f}x in turns/s, {cpu:.1f}x in turns per second of CPU")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
