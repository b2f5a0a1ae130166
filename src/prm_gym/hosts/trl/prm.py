"""Stage 2: the process reward model Q(s, a), a sequence classifier with one logit, by transformers' `Trainer`.

`loss` chooses one of the four of `prm_gym.hosts.losses`, each with the labels it reads: `soft_bce` (Eq. 2, labels
`monte_carlo` or `shaping`), `bradley_terry` (`preferences`), `inverse` (Algorithm 2, `inverse`), `value` (`value`: V of
states alone). A sequence is the prompt and the response without the token that ends its turn (`chat.scored_ids`),
scored at the last token. V is read at the end of the prompt, open for the assistant's turn.

Shared prefixes are encoded once. A batch of `bradley_terry` has all pairs of `per_device_train_batch_size` states
(`pairs_by_state`; its `eval_loss` is weighted by states, so it depends on the batch size), of the other losses all rows
of as many episodes (`rows_by_prefix`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from prm_gym.errors import UserError
from prm_gym.hosts.losses import LABELS, NUMBERS, SOURCE_COLUMNS
from prm_gym.hosts.scored_rows import ROWS, Row, longest
from prm_gym.hosts.trl import pairs_by_state, rows_by_prefix
from prm_gym.hosts.trl.arguments import parse
from prm_gym.hosts.trl.inputs import load_model, load_split
from prm_gym.prompts.tokenizer import load_tokenizer
from prm_gym.provenance.checkpoint_settings import READS, carry

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

Batch = dict[str, "Tensor"]


@dataclass
class PRMArguments:
    """The recipe's arguments beside transformers' `TrainingArguments`."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint that Q starts from: a policy, or Q of before."})
    dataset_name: str = field(metadata={"help": "Folder written by `prm-gym label`."})
    max_length: int = field(default=2048, metadata={"help": "Longer sequences are left out, and counted."})
    loss: str = field(default="soft_bce", metadata={"help": f"One of {', '.join(SOURCE_COLUMNS)}."})
    gamma: float = field(default=0.95, metadata={"help": "Discount of the loss `inverse`; the others have none."})


class Grouping(NamedTuple):
    """From label rows to the loss of a batch, with shared prefixes encoded once."""

    encode: Callable[[Dataset], Dataset]  # label rows to token ids, and their `length`
    group: Callable[[Dataset], Dataset]
    collate: Callable[[list[Row]], Batch]
    loss: Callable[[Any, Batch], Tensor]  # of the model on a batch


def grouping(loss: str, gamma: float, tokenizer: Any) -> Grouping:
    """How the rows of `loss`, one of `hosts.losses` with its equation, are encoded, grouped, collated and scored."""

    def encode(rows: Dataset) -> Dataset:
        unused = [name for name in rows.column_names if name not in (*NUMBERS, rows_by_prefix.GAME)]
        return rows.map(of_row, fn_kwargs={"tokenizer": tokenizer}, remove_columns=unused)

    if loss == "bradley_terry":
        of_row: Callable[..., Row] = pairs_by_state.pair_row
        collate = partial(pairs_by_state.collate, tokenizer=tokenizer)
        of_batch = partial(pairs_by_state.loss, pad_token_id=tokenizer.pad_token_id)
        return Grouping(encode, pairs_by_state.by_state, collate, of_batch)
    of_row = partial(to_ids, loss=loss)
    collate = partial(rows_by_prefix.collate, tokenizer=tokenizer)
    return Grouping(encode, rows_by_prefix.by_prefix, collate, partial(rows_by_prefix.loss, name=loss, gamma=gamma))


def argument_classes() -> tuple[type[Any], ...]:
    from transformers import TrainingArguments

    from prm_gym.hosts.trl.muon import MuonArguments

    return PRMArguments, TrainingArguments, MuonArguments


def main(arguments: list[str]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, Trainer

    from prm_gym.hosts.trl.muon import with_muon

    script, training, optimizer = parse(arguments, argument_classes())
    if script.loss not in SOURCE_COLUMNS:
        raise UserError("prm", f"no loss '{script.loss}'", f"choose one of {', '.join(SOURCE_COLUMNS)}", field="loss")
    training.remove_unused_columns = False  # the batches are not the model's own arguments
    tokenizer = load_tokenizer(script.model_name_or_path, "model_name_or_path")
    grouped = grouping(script.loss, script.gamma, tokenizer)

    def load(split: str) -> Any:
        rows = load_split(script.dataset_name, split, SOURCE_COLUMNS[script.loss], LABELS[script.loss])
        with training.main_process_first():  # the other processes read its cache
            encoded = grouped.encode(rows)
            short = encoded.filter(lambda length: length <= script.max_length, input_columns="length")
        if len(short) < len(encoded) and training.process_index == 0:
            print(f"{split}: {len(encoded) - len(short)} of {len(encoded)} rows exceed max_length={script.max_length}")
        if not len(short):
            problem = f"{script.max_length} leaves out all {len(encoded)} rows of {split}"
            raise UserError("prm", problem, "raise it", field="max_length")
        return grouped.group(short)

    class PRMTrainer(with_muon(Trainer, optimizer.muon_learning_rate)):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Batch, **_: Any) -> Tensor:
            return grouped.loss(model, inputs)

        def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Any, None, None]:
            with torch.no_grad():
                return self.compute_loss(model, self._prepare_inputs(inputs)), None, None

    torch.manual_seed(training.seed)  # the score head of a policy checkpoint is drawn here
    model = load_model(
        AutoModelForSequenceClassification, script.model_name_or_path, "model_name_or_path", num_labels=1
    )
    if not hasattr(model, "score"):
        problem = f"{type(model).__name__} has no head `score`, as classifiers of causal models have"
        raise UserError(script.model_name_or_path, problem, "start from a causal model", field="model_name_or_path")
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = PRMTrainer(
        model=model,
        args=training,
        train_dataset=load("train"),
        eval_dataset=None if training.eval_strategy == "no" else load("test"),
        data_collator=grouped.collate,
        processing_class=tokenizer,
    )
    if training.process_index == 0:
        carry([script.dataset_name], training.output_dir, reads=READS)
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)


def to_ids(row: Row, tokenizer: Any, loss: str) -> Row:
    """A label row to the ids of the sequences of `loss`, and `length`, that of the longest."""
    encoded = ROWS[loss](row, tokenizer)
    return {**encoded, "length": longest(encoded)}
