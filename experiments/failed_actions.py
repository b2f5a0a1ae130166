"""Whether a language model knows, before it is told, that an action will fail: P("Nothing happens." | s, a).

    python -m experiments.failed_actions --branches FOLDER --model CHECKPOINT [CHECKPOINT ...]

Over the first actions of the branches in FOLDER (or all actions of its episodes): AUC of the probability that a model
trained on what the environment says gives to "Nothing happens." at the end of its turn, for all actions and by kind.
0.5 is chance. A Q that starts from a model of 0.5 cannot rank an action that fails against one that does not.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prm_gym.errors import run_program
from prm_gym.evaluation.ranking import kind
from prm_gym.prm.metrics import auc
from prm_gym.prompts import load
from prm_gym.prompts.chat import sequence_ids
from prm_gym.store import read_episodes
from prm_gym.types import State

FAILURE = "Nothing happens."


def actions(folder: Path, most: int) -> list[tuple[State, str, str, bool]]:
    """(state, response, action, failed) of up to `most` different states and actions."""
    found: dict[tuple[bytes, str], tuple[State, str, str, bool]] = {}
    for episode in read_episodes(folder):
        for t in [episode.branch_turn] if episode.parent_id else range(episode.actions):
            turn = episode.turns[t]
            failed = episode.turns[t + 1].observation.startswith(FAILURE)
            found.setdefault((turn.state_key, turn.action), (episode.state_at(t), turn.response, turn.action, failed))
        if len(found) >= most:
            break
    return list(found.values())[:most]


@torch.inference_mode()
def probabilities(checkpoint: str, made: list[tuple[State, str, str, bool]], batch: int = 64) -> np.ndarray:
    """P [actions] of a next token that begins with the words of failure, after the token that ends the turn."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    first = [
        i for i in range(len(tokenizer)) if (text := tokenizer.decode([i])) and text.startswith(FAILURE.split()[0])
    ]
    prompt, found = load("compact"), []
    for start in range(0, len(made), batch):
        rows = [
            sequence_ids(tokenizer, prompt.messages(s), response) for s, response, _, _ in made[start : start + batch]
        ]
        padded = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
        last = padded["attention_mask"].sum(1) - 1
        logits = model(**padded, use_cache=False).logits[torch.arange(len(rows)), last]
        found.append(logits.softmax(-1)[:, first].sum(-1).numpy())
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=Path, required=True)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--most", type=int, default=4000)
    options = parser.parse_args()
    made = actions(options.branches, options.most)
    failed = np.array([failed for *_, failed in made])
    groups: dict[str, list[int]] = defaultdict(list)
    for i, (_, _, action, _) in enumerate(made):
        groups[kind(action)].append(i)
    print(f"{len(made)} actions, {failed.mean():.3f} of them fail")
    for checkpoint in options.model:
        p = probabilities(checkpoint, made)
        of = {"all": np.arange(len(made)), **{name: np.array(rows) for name, rows in groups.items()}}
        shown = [
            f"{name} {value:.3f}" for name, rows in of.items() if (value := auc(p[rows], failed[rows])) is not None
        ]
        print(f"{checkpoint}: AUC {', '.join(shown)}")


if __name__ == "__main__":
    run_program(main)
