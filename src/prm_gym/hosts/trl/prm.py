"""Stage 2: the process reward model Q(s, a), a sequence classifier with one logit, trained with soft BCE.

Equation 2 of the paper, L(Q) = -E[ q log Q + (1 - q) log(1 - Q) ] with Q = sigmoid(logit) and the target q in [0, 1]:
transformers computes it for `problem_type="multi_label_classification"` and float labels of shape [batch, 1].
A sequence is the chat template over prompt and completion, and its score is read at the last token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prm_gym.hosts.trl.data import load_split, load_tokenizer


@dataclass
class PRMArguments:
    """What the recipe says beside transformers' own `TrainingArguments`."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint that Q starts from: a policy, or Q of before."})
    dataset_name: str = field(metadata={"help": "Folder written by `prm-gym label monte_carlo`."})
    max_length: int = field(default=2048, metadata={"help": "Longer sequences are left out, and counted."})


def main(arguments: list[str]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments
    from trl import TrlParser

    from prm_gym.hosts.trl.muon import MuonArguments, with_muon

    parser = TrlParser((PRMArguments, TrainingArguments, MuonArguments))
    script, training, optimizer = parser.parse_args_and_config(arguments, fail_with_unknown_args=True)[:3]
    # The loss is a mean over rows; the Trainer would multiply it by the number of processes as if it were over tokens.
    training.average_tokens_across_devices = False
    tokenizer = load_tokenizer(script.model_name_or_path, "model_name_or_path")

    def encode(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        chats = [prompt + completion for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True)]
        ids = tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True)["input_ids"]
        return {"input_ids": ids, "labels": [[target] for target in rows["target"]], "length": [len(x) for x in ids]}

    def load(split: str) -> Any:
        rows = load_split(script.dataset_name, split, ("prompt", "completion", "target"))
        with training.main_process_first():  # the others read what it has cached
            encoded = rows.map(encode, batched=True, remove_columns=rows.column_names)
            short = encoded.filter(lambda length: length <= script.max_length, input_columns="length")
        if len(short) < len(encoded) and training.process_index == 0:
            print(f"{split}: {len(encoded) - len(short)} of {len(encoded)} rows exceed max_length={script.max_length}")
        return short

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = {"input_ids": [row["input_ids"] for row in rows]}
        batch = tokenizer.pad(ids, padding_side="right", return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.float32)}

    torch.manual_seed(training.seed)  # the score head of a policy checkpoint is drawn here
    model = AutoModelForSequenceClassification.from_pretrained(
        script.model_name_or_path, num_labels=1, problem_type="multi_label_classification", dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = with_muon(Trainer, optimizer.muon_learning_rate)(
        model=model,
        args=training,
        train_dataset=load("train"),
        eval_dataset=load("test"),
        data_collator=collate,
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
