"""A small run folder made with the project's own writers, and a tiny random PRM for it. It plays at chance."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

from prm_gym.atomic import write_json
from prm_gym.evaluation.prm_quality import measure
from prm_gym.evaluation.results_file import add_result
from prm_gym.evaluation.results_table import SHORT_NAMES
from prm_gym.evaluation.success import summarise
from prm_gym.labels import monte_carlo
from prm_gym.policies.best_of_n import BestOf
from prm_gym.store import EpisodeWriter, read_episodes
from prm_gym.types import Episode, StopReason, Turn

GAMES = 12
LIMIT = 6
EVIL = "</script><img src=x onerror=\"window.injected='yes'\"><!--<script>\u2028&amp; {{ 7 * 7 }}"
COMMANDS = ["go to desk 1", "go to shelf 1", "open drawer 1", "take mug 1 from desk 1"]


def play(policy: str, game: int, skill: float, *, seed: int = 0, split: str = "valid_unseen", odd: str = "") -> Episode:
    """One episode; every action wins with the probability `skill`. `odd` is put into all that a run's data can hold."""
    draw = random.Random(f"{policy} {game} {seed} {skill}")
    turns: list[Turn] = []
    won = False
    while not won and len(turns) < LIMIT:
        won = draw.random() < skill
        action = draw.choice([*COMMANDS, "sing"]) + odd
        turns.append(
            Turn(
                len(turns),
                f"You are at desk {len(turns)}.{odd}",
                [command + odd for command in COMMANDS],
                f"REASON: I look{odd}\nACTION: {action}",
                f"I look{odd}",
                action,
                not action.startswith("sing"),
                float(won),
                terminated=won,
                truncated=not won and len(turns) == LIMIT - 1,
            )
        )
    turns.append(Turn(len(turns), "The end.", list(COMMANDS)))
    kind = list(SHORT_NAMES)[game % len(SHORT_NAMES)]
    stop = StopReason.WON if won else StopReason.STEP_LIMIT
    name = f"{policy}-{game}-{seed}"
    return Episode(name, f"{split}/{kind}-{game}", split, f"find mug {game}{odd}", kind, policy, 0, seed, stop, turns)


def store(folder: Path, episodes: list[Episode]) -> None:
    with EpisodeWriter(folder) as writer:
        for episode in episodes:
            writer.add(episode)


class FlatScorer:
    """Q of a text is a function of the text alone."""

    async def score(self, pairs) -> list[float]:
        return [random.Random(response.text).random() for _, response in pairs]

    async def close(self) -> None: ...


def make_run(
    folder: Path, *, iterations: int = 1, best_of: tuple[int, ...] = (), odd: str = "", seeds=(0,), prompt="full"
) -> Path:
    """A run as `prm-gym iter` leaves it, less the checkpoints: results, stores, labels, quality, training logs."""
    for n in range(1, iterations + 1):
        here = folder / f"iter{n}"
        before = [
            play(f"pi_{n - 1}", g, 0.05 * n, seed=s, split="train", odd=odd) for g in range(GAMES) for s in (0, 1)
        ]
        store(here / "rollouts", before)
        monte_carlo.label([here / "rollouts"], here / "dataset" / "prm", prompt=prompt, gamma=0.95)
        write_json(
            here / "dataset" / "prm" / "manifest.json",
            {"stage": "labels", "settings": {"prompt": prompt}, "seconds": 1},
        )
        quality = asyncio.run(measure(read_episodes(here / "rollouts"), FlatScorer()))
        (here / "eval" / "prm").mkdir(parents=True)
        write_json(here / "eval" / "prm" / "quality.json", quality.as_dict())
        last = here / "policy" / "checkpoint-20"
        last.mkdir(parents=True)
        log = [
            {"step": step, "loss": 0.7, "objective/scores": -2 + step / 20, "objective/kl": step / 100}
            for step in range(5, 25, 5)
        ]
        write_json(last / "trainer_state.json", {"global_step": 20, "log_history": [*log, {"step": 20, "runtime": 9}]})
        for i, modes in ([(0, ["policy"])] if n == 1 else []) + [(n, ["policy", *(f"best_of_{k}" for k in best_of)])]:
            for mode in modes:
                add_evaluation(folder, n, i, mode, odd=odd, seeds=seeds)
    return folder


def add_evaluation(run: Path, n: int, policy: int, mode: str, *, odd: str = "", seeds=(0,)) -> None:
    for seed in seeds:
        acting = f"pi_{policy}" if mode == "policy" else f"{mode}(pi_{policy})"
        skill = 0.08 * (policy + 1) + (0 if mode == "policy" else 0.02 * BestOf.of_mode(mode).n ** 0.5)
        episodes = [play(acting, g, skill, seed=seed, odd=odd) for g in range(GAMES)]
        out = run / f"iter{n}" / "eval" / f"pi_{policy}_{mode}" / "episodes"
        if seed == 0:
            store(out, episodes)
        prm = None if mode == "policy" else f"Q_{n - 1}"
        entry = summarise(episodes, policy=f"pi_{policy}", prm=prm, mode=mode, split="valid_unseen", seed=seed)
        add_result(run / "results.json", entry)


def make_prm(folder: Path) -> None:
    """A random one-logit Llama that reads this world's words."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    from prm_gym.hosts.tiny_model import make_tokenizer

    size = make_tokenizer([*COMMANDS, "You are at desk 1. REASON: I look ACTION: sing"] * 20, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=4096, num_labels=1, pad_token_id=AutoTokenizer.from_pretrained(folder).pad_token_id,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config)
    for parameter in model.parameters():
        parameter.data.mul_(6)
    model.save_pretrained(folder)


def page_data(page: str) -> dict:
    """The JSON that the page's script reads."""
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])
