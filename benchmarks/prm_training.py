"""Training Q with shared prefixes read once, as `hosts.trl.prm` does, against row by row. Tokens, padding
included, and CPU seconds.

python benchmarks/prm_training.py MODEL DATASET [--loss bradley_terry] [--groups 256] [--batch 8]
(DATASET: a folder of `prm-gym label`; a run folder has one in iter1/dataset/prm)
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prm_gym.hosts import losses
from prm_gym.hosts.losses import FIRST, NUMBERS, SECOND
from prm_gym.hosts.trl import prm, rows_by_prefix

GAMMA = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--loss", choices=losses.LABELS, default="bradley_terry")
    parser.add_argument("--groups", type=int, default=256, help="of pairs, states; of other rows, episodes")
    parser.add_argument("--batch", type=int, default=8, help="groups")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = load_dataset(options.dataset, split="train")
    pairs = options.loss == "bradley_terry"
    grouped = prm.grouping(options.loss, GAMMA, tokenizer)
    groups = list(grouped.group(grouped.encode(rows)).shuffle(seed=0))[: options.groups]
    batches = [groups[i : i + options.batch] for i in range(0, len(groups), options.batch)]
    compute_loss = losses.make_compute_loss(options.loss, GAMMA)

    def together(batch: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
        data = grouped.collate(batch)
        read = (data["prompt"], data["response"]) if pairs else (data["ids"],)
        return grouped.loss(model, data), sum(ids.numel() for ids in read)

    def row_by_row(batch: list[dict[str, Any]]) -> tuple[torch.Tensor, int]:
        names = [name for name in (FIRST, SECOND) if pairs or name in batch[0]]
        ids = [sequence for name in names for group in batch for sequence in sequences(group, name)]
        padded = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")["input_ids"]
        data = dict(zip(names, padded.chunk(len(names)), strict=True))
        for name in NUMBERS:
            if name in batch[0]:
                data[name] = torch.tensor([value for group in batch for value in group[name]])
        mean = compute_loss(model, data, tokenizer.pad_token_id)[0]
        if not pairs:  # as `rows_by_prefix` weights its batches
            mean = mean * len(ids) / len(names) * batch[0][rows_by_prefix.SHARE] / len(batch)
        return mean, padded.numel()

    row_by_row(batches[0])  # the first pass of a process is slower
    for name, of_batch in (("row by row", row_by_row), ("together", together)):
        start, tokens, total = time.process_time(), 0, 0.0
        for batch in batches:
            loss, read = of_batch(batch)
            loss.backward()
            tokens, total = tokens + read, total + loss.item()
        seconds = time.process_time() - start
        print(f"{name}: loss {total / len(batches):.5f}, {tokens:,} tokens, {seconds:.1f} s of CPU")


def sequences(group: dict[str, Any], name: str) -> list[list[int]]:
    """The sequences FIRST or SECOND of the rows of a group."""
    if "prompt" in group:
        return [group["prompt"] + group["responses"][i] for i in group["chosen" if name == FIRST else "rejected"]]
    return [group["sequences"][number][: last + 1] for number, last in group[name]]


if __name__ == "__main__":
    main()
