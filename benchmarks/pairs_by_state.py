"""Training Q on preference pairs: all pairs of a state together, against pair by pair. Tokens and CPU seconds.

python benchmarks/pairs_by_state.py MODEL DATASET [--states 256] [--batch 8]
(DATASET: a folder of `prm-gym label preferences`; such a run folder has them in iter1/dataset/prm)
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prm_gym.hosts import losses
from prm_gym.hosts.losses import FIRST, SECOND
from prm_gym.hosts.trl import pairs_by_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--states", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="states")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=1, dtype=torch.float32)
    rows = load_dataset(options.dataset, split="train")
    rows = rows.map(pairs_by_state.pair_row, fn_kwargs={"tokenizer": tokenizer}, remove_columns=rows.column_names)
    states = list(pairs_by_state.by_state(rows).shuffle(seed=0).select(range(options.states)))
    batches = [states[i : i + options.batch] for i in range(0, len(states), options.batch)]

    def together(batch: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
        data = pairs_by_state.collate(batch, tokenizer)
        loss = pairs_by_state.loss(model, data, tokenizer.pad_token_id)
        return loss, int(data["seen"].sum() + data["said"].sum())

    compute_loss = losses.make_compute_loss("bradley_terry", 1.0)

    def pair_by_pair(batch: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
        ids = [
            state["prompt"] + state["responses"][i]
            for name in ("chosen", "rejected")
            for state in batch
            for i in state[name]
        ]
        first, second = tokenizer.pad({"input_ids": ids}, return_tensors="pt")["input_ids"].chunk(2)
        return compute_loss(model, {FIRST: first, SECOND: second}, tokenizer.pad_token_id)[0], sum(map(len, ids))

    for name, of_batch in (("pair by pair", pair_by_pair), ("state by state", together)):
        start, tokens, total = time.process_time(), 0, 0.0
        for batch in batches:
            loss, read = of_batch(batch)
            loss.backward()
            tokens, total = tokens + read, total + loss.item()
        seconds = time.process_time() - start
        print(f"{name}: loss {total / len(batches):.5f}, {tokens:,} tokens, {seconds:.1f} s of CPU")


if __name__ == "__main__":
    main()
