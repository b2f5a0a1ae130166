"""Load label folders and checkpoints for TRL's stages, checked before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym import provenance
from prm_gym.errors import UserError, first_line
from prm_gym.hosts.trl.tokenization import adapt
from prm_gym.inference.model_location import check_policy
from prm_gym.prompts.chat import template_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel


def check_kind(folder: str, kinds: Sequence[str]) -> None:
    """Raise `UserError` for a folder that is missing, or that `prm-gym label` wrote and that is of none of `kinds`."""
    if not Path(folder).is_dir():
        raise UserError(folder, "no such dataset folder", "run `prm-gym label` first", field="dataset_name")
    label = (provenance.read(Path(folder)) or {"settings": {}})["settings"].get("label")
    if label is not None and label not in kinds:
        raise UserError(folder, f"is a {label} dataset", f"name one of {', '.join(kinds)}", field="dataset_name")


def load_split(folder: str, split: str, columns: tuple[str, ...], kinds: Sequence[str]) -> Dataset:
    """The split `split` of a folder written by `prm-gym label`. Raises `UserError` if it cannot be trained on."""
    from datasets import load_dataset

    check_kind(folder, kinds)
    splits = load_dataset(folder)
    if split not in splits or len(splits[split]) == 0:
        raise UserError(folder, f"has no rows in split '{split}'", "collect more games", field="dataset_name")
    missing = [column for column in columns if column not in splits[split].column_names]
    if missing:
        raise UserError(folder, f"lacks the columns {', '.join(missing)}", "label it with the kind this stage needs")
    return _of_this_code(splits[split])


def _of_this_code(rows: Dataset) -> Dataset:
    """`rows` with a fingerprint of this code too. `datasets` finds the cached result of a transform by the fingerprint
    and by the function, but not by the functions that it calls: another version would train on the ids of this one.
    """
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    package = Path(__file__).parents[2]
    code = [file.read_bytes() for part in ("hosts", "prompts") for file in sorted((package / part).rglob("*.py"))]
    return Dataset(rows.data, rows.info, rows.split, fingerprint=Hasher.hash((rows._fingerprint, code)))


def load_model(auto_class: Any, folder: str, field: str, **options: Any) -> PreTrainedModel:
    """The model in the checkpoint `folder`, in float32. Hides transformers' report of new weights, such as the score
    head of a Q that starts from a policy. Raises `UserError` if it cannot be read.
    """
    import torch
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model: PreTrainedModel = auto_class.from_pretrained(folder, dtype=torch.float32, **options)
    except Exception as error:  # safetensors and torch raise errors of their own for damaged files
        problem = f"no model to load ({type(error).__name__}: {first_line(error)})"
        raise UserError(folder, problem, "name a whole checkpoint", field=field) from None
    finally:
        logging.set_verbosity(level)
    return model


def load_prompts(folder: str, columns: tuple[str, ...], tokenizer: Any, training: Any) -> Dataset:
    """The `columns` of prompts in the dataset `folder`, as the chat template takes them."""
    prompts = load_split(folder, "train", columns, ["prompts"]).select_columns(list(columns))
    with training.main_process_first():  # the other processes read its cache
        return prompts.map(adapt, batched=True, fn_kwargs={"tokenizer": tokenizer})


def load_policy(folder: str, tokenizer: Any) -> PreTrainedModel:
    """The policy in the checkpoint `folder`; generation stops at the token with which the chat template ends a turn."""
    from transformers import AutoModelForCausalLM

    check_policy(folder)
    policy = load_model(AutoModelForCausalLM, folder, "model_name_or_path")
    end = tokenizer.convert_tokens_to_ids(template_of(tokenizer).end)
    ends = policy.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    if end not in ends:
        policy.generation_config.eos_token_id = [*ends, end]
    return policy
