"""Checks before any weights are loaded, for errors that would come late, or train on wrong data silently."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from prm_gym.errors import UserError, first_line
from prm_gym.prompts import tokenizer as tokenizers
from prm_gym.prompts.chat import template_of

# Tokens that Llama 3 and others reserve and never use, fit for padding.
_SPARE_TOKENS = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|pad|>", "<pad>", "[PAD]")
_HOST_PAD = "[PAD]"  # added by online_dpo_vllm_thread.py to mark padding, outside of the vocabulary
_MESSAGE = ("role", "content")
_SAMPLE = 256


def load_tokenizer(path: str, revision: str | None, field: str) -> Any:
    """The tokenizer with its own chat template, and a pad token other than eos from its own vocabulary.

    A new pad token would make the PRM's vocabulary larger than the policy's, which Stage 3 refuses.
    """
    tokenizer = tokenizers.load_tokenizer(path, field, revision=revision, padding=False)
    if tokenizer.eos_token_id is None:
        raise UserError(path, "the tokenizer has no end-of-turn token", "set its eos_token", field=field)
    end = template_of(tokenizer).end
    if end != tokenizer.eos_token:
        problem = f"the chat template ends a turn with {end}, the host with eos_token {tokenizer.eos_token}"
        raise UserError(path, problem, f"save the tokenizer with eos_token {end}", field=field)
    spare = next((name for name in _SPARE_TOKENS if name in tokenizer.get_vocab()), None)
    if spare and not tokenizers.has_pad_token(tokenizer):
        tokenizer.pad_token = spare
    tokenizers.check_pad_token(tokenizer, path, field)
    return tokenizer


def load_config(path: str, revision: str | None, field: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(path, f"no model to load ({first_line(error)})", "name a checkpoint", field=field) from None


def check_embedding(tokenizer: Any, config: Any, where: str) -> None:
    """Raise `UserError` unless every token has an embedding row; the host would add rows otherwise."""
    if len(tokenizer) > config.vocab_size:
        problem = f"its tokenizer has {len(tokenizer)} tokens, its embedding {config.vocab_size} rows"
        raise UserError(where, problem, "resize the policy's embedding once, before pi_0 is trained")


def check_same_vocabulary(policy: Any, prm: Any, policy_config: Any, prm_config: Any, where: str) -> None:
    """`tokenizer.check_same_vocabulary`, and the same end-of-turn token and number of embedding rows."""
    remedy, field = "train the PRM from a checkpoint of this policy", "reward_model_path"
    if policy_config.vocab_size != prm_config.vocab_size:
        problem = f"the PRM's embedding has {prm_config.vocab_size} rows, the policy's {policy_config.vocab_size}"
        raise UserError(where, problem, remedy, field=field)
    tokenizers.check_same_vocabulary(policy, prm, where, field)
    if policy.eos_token_id != prm.eos_token_id:
        problem = f"the PRM ends a turn with id {prm.eos_token_id}, the policy with {policy.eos_token_id}"
        raise UserError(where, problem, remedy, field=field)


def check_host_pad(tokenizer: Any, where: str) -> None:
    if _HOST_PAD in tokenizer.get_vocab():
        problem = f"its vocabulary holds {_HOST_PAD}, which the host marks padding with"
        raise UserError(where, problem, "rename that token in the tokenizer")


def check_messages(messages: Any, source: str, column: str, last_role: str | None = None) -> None:
    """Raise `UserError` unless `messages` is a non-empty list of {role, content}, the last one from `last_role`.

    Only the assistant's content may be empty: that of a policy that ends its turn at once.
    """
    ok = isinstance(messages, list) and len(messages) > 0
    ok = ok and all(isinstance(m, dict) and all(isinstance(m.get(k), str) for k in _MESSAGE) for m in messages)
    ok = ok and all(m["content"] for m in messages if m["role"] != "assistant")
    if not ok:
        raise UserError(source, f"{messages!r:.80} is not a list of messages", "label it again", field=column)
    if last_role is not None and messages[-1]["role"] != last_role:
        problem = f"ends with a message of '{messages[-1]['role']}'"
        raise UserError(source, problem, f"it must end with the {last_role}'s turn", field=column)


def check_context(length: int, config: Any, where: Any, field: str) -> None:
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise UserError(where, f"{length} tokens do not fit the model's {limit} positions", "lower it", field=field)


def check_lengths(lengths: Iterable[int], limit: int, where: Any, field: str) -> None:
    """Print how many of a sample of sequences are over `limit` and will be left out; raise `UserError` if all are."""
    sample = [length for length, _ in zip(lengths, range(_SAMPLE), strict=False)]
    over = sum(length > limit for length in sample)
    if sample and over == len(sample):
        problem = f"all of {len(sample)} sequences looked at are longer than {limit} tokens (up to {max(sample)})"
        raise UserError(where, problem, f"raise it to {max(sample)} or shorten the prompts", field=field)
    if over:
        print(f"{where}: {field}: {over} of {len(sample)} sequences looked at exceed {limit} tokens and are left out")


def check_precision(dtype: str | None, where: Any) -> None:
    """Raise `UserError` for 16-bit weights: updates at these learning rates are smaller than their spacing."""
    if not uses_deepspeed() and dtype in (None, "bfloat16", "float16"):
        problem = "16-bit weights without DeepSpeed's 32-bit copy: small updates round to nothing"
        raise UserError(where, problem, "set it to float32, or launch with recipes/deepspeed", field="torch_dtype")


def check_batches(rows: int, batch: int, where: Any) -> None:
    """Raise `UserError` if the counted (local) `rows` do not fill one batch over all processes."""
    if 0 < rows < batch:
        raise UserError(where, f"{rows} rows do not fill one batch of {batch}", "use a smaller batch or more data")


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def uses_deepspeed() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def zero_stage() -> int:
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0")) if uses_deepspeed() else 0
