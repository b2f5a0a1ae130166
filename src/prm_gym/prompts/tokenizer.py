"""Load the tokenizer of a checkpoint, checked before work starts."""

from __future__ import annotations

from os import PathLike
from typing import Any

from prm_gym.errors import UserError, first_line
from prm_gym.prompts.chat import template_of


def load_tokenizer(
    model: str | PathLike[str], field: str | None = None, *, revision: str | None = None, padding: bool = True
) -> Any:
    """The tokenizer of the checkpoint `model`, a folder or a name on the Hub.

    Raises `UserError` naming `model` and `field` if it cannot be read, as `chat.template_of`, and with `padding` as
    `check_pad_token`.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UserError("transformers", "is not installed", "pip install transformers") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except Exception as error:  # the tokenizers library raises plain `Exception` for a damaged file
        problem = f"no tokenizer to load ({first_line(error)})"
        raise UserError(model, problem, "name a whole checkpoint, with its tokenizer", field=field) from error
    template_of(tokenizer, model, field or "chat_template")
    if padding:
        check_pad_token(tokenizer, model, field)
    return tokenizer


def has_pad_token(tokenizer: Any) -> bool:
    """Whether the pad token is one of its own: with eos as pad token, padding would look like the end of a turn."""
    return tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def check_pad_token(tokenizer: Any, where: str | PathLike[str], field: str | None = None) -> None:
    """Raise `UserError` unless the tokenizer has a pad token other than eos."""
    if not has_pad_token(tokenizer):
        remedy = "add one with tokenizer.add_special_tokens({'pad_token': '<|pad|>'}), resize the embeddings, save both"
        problem = "the tokenizer has no pad token apart from its end token"
        raise UserError(where, problem, remedy, field=field or "pad_token")


def check_same_vocabulary(policy: Any, prm: Any, where: str | PathLike[str], field: str | None = None) -> None:
    """Raise `UserError` unless both tokenizers turn a conversation into the same ids: Q scores the ids that the policy
    sampled. `where` is the PRM's folder.
    """
    remedy = "train the PRM from a checkpoint of this policy"
    if policy.get_vocab() != prm.get_vocab():
        problem = f"the PRM's vocabulary ({len(prm)} tokens) is not the policy's ({len(policy)})"
        raise UserError(where, problem, remedy, field=field)
    if policy.chat_template != prm.chat_template:
        raise UserError(where, "the PRM's chat template is not the policy's", remedy, field=field)
