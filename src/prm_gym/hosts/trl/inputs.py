"""Label folders and checkpoints as TRL's stages read them, checked before any training starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.errors import UserError, first_line
from prm_gym.prompts.chat import template_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_split(folder: str, split: str, columns: tuple[str, ...]) -> Dataset:
    """The split `split` of a folder written by `prm-gym label`. Raises `UserError` if it cannot be trained on."""
    from datasets import load_dataset

    if not Path(folder).is_dir():
        raise UserError(folder, "no such dataset folder", "run `prm-gym label` first", field="dataset_name")
    splits = load_dataset(folder)
    if split not in splits or len(splits[split]) == 0:
        raise UserError(folder, f"has no rows in split '{split}'", "collect more games", field="dataset_name")
    missing = [column for column in columns if column not in splits[split].column_names]
    if missing:
        raise UserError(folder, f"lacks the columns {', '.join(missing)}", "label it with the kind this stage needs")
    return splits[split]


def load_tokenizer(folder: str, field: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the checkpoint `folder`. Raises `UserError` without pad token, chat template or checkpoint."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers has no errors of its own for a damaged file
        problem = f"no tokenizer to load ({first_line(error)})"
        raise UserError(folder, problem, "name a checkpoint folder", field=field) from None
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        remedy = "add one with tokenizer.add_special_tokens({'pad_token': '<|pad|>'}) and save the tokenizer"
        raise UserError(folder, "the tokenizer has no pad token apart from its end token", remedy, field=field)
    template_of(tokenizer, folder, field)
    return tokenizer


def load_model(auto_class: Any, folder: str, field: str, **options: Any) -> PreTrainedModel:
    """The weights of the checkpoint `folder`, in float32, without transformers' report of those that it adds, as the
    score of a Q that starts from a policy. Raises `UserError` if they cannot be read.
    """
    import torch
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model: PreTrainedModel = auto_class.from_pretrained(folder, dtype=torch.float32, **options)
    except Exception as error:  # safetensors and torch have errors of their own for a damaged file
        problem = f"no model to load ({type(error).__name__}: {first_line(error)})"
        raise UserError(folder, problem, "name a whole checkpoint", field=field) from None
    finally:
        logging.set_verbosity(level)
    return model


def check_same_vocabulary(policy: PreTrainedTokenizerBase, prm: PreTrainedTokenizerBase, where: str) -> None:
    """Raise `UserError` unless both make the same ids of a conversation: Q must read what the policy wrote."""
    remedy = "train the PRM from the policy's checkpoint"
    if policy.get_vocab() != prm.get_vocab():
        problem = f"the PRM's vocabulary ({len(prm)} pieces) is not the policy's ({len(policy)})"
        raise UserError(where, problem, remedy)
    if policy.chat_template != prm.chat_template:
        raise UserError(where, "the PRM's chat template is not the policy's", remedy)
