"""pi_0 on open-instruct: supervised fine-tuning on successful demonstrations, the host's `finetune`.

The loss is on the responses alone, unless the recipe says `completion_only_loss: false`. (The host's own transform
trains on every assistant message of a conversation, so the early turns of an episode, which are in the history of each
later one, would count many times.)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts.demonstrations import demonstrations
from prm_gym.hosts.open_instruct import (
    arguments,
    checkpoint_format,
    jsonl_data,
    output_folders,
    preflight,
    tokenized_rows,
)


def parse(recipe: Path, overrides: dict[str, Any]) -> list[Any]:
    """The host's (FlatArguments, TokenizerConfig) for `recipe`."""
    from open_instruct import dataset_transformation, finetune

    cls = arguments.extend(finetune.FlatArguments, "sft")
    return arguments.parse(recipe, overrides, [cls, dataset_transformation.TokenizerConfig])


def run(recipe: Path, overrides: dict[str, Any]) -> None:
    """Train, and leave pi_0 in `output_dir`. Raises `UserError` before any weights are loaded."""
    from accelerate import PartialState
    from open_instruct import dataset_transformation
    from open_instruct import finetune as host
    from transformers import AutoModelForCausalLM

    args, tc = parse(recipe, overrides)
    output_dir = Path(args.output_dir).resolve()
    tokenizer = prepare(args, tc, output_dir, recipe)
    args.output_dir, args.do_not_randomize_output_dir = str(output_dir / "final"), True

    def from_pretrained(path: str, **options: Any) -> Any:
        # The host loads bfloat16 weights. Without DeepSpeed's 32-bit copy, small updates round to nothing.
        return AutoModelForCausalLM.from_pretrained(path, **{**options, "torch_dtype": args.torch_dtype})

    tokenized_rows.register(dataset_transformation.TRANSFORM_FNS)
    dataset_transformation.GET_TOKENIZER_FN["prm_gym"] = lambda _: tokenizer
    host.AutoModelForCausalLM = SimpleNamespace(
        from_pretrained=from_pretrained, from_config=AutoModelForCausalLM.from_config
    )
    host.main(args, tc)  # ends by waiting for all processes; with tracking it also leaves the process group

    if PartialState().is_main_process:
        output_folders.publish(output_dir / "final", output_dir)


def prepare(args: Any, tc: Any, output_dir: Path, recipe: Path) -> Any:
    """Check the recipe against its model and data, and convert the data for the host. Returns the tokenizer."""
    path = checkpoint_format.for_host(args.model_name_or_path, output_dir / "data")
    if path is None:
        raise UserError(recipe, "missing", "name the model to start from", field="model_name_or_path")
    preflight.check_precision(args.torch_dtype, recipe)
    tokenizer = preflight.load_tokenizer(path, args.model_revision, "model_name_or_path")
    config = preflight.load_config(path, args.model_revision, "model_name_or_path")
    preflight.check_embedding(tokenizer, config, path)
    if args.max_seq_length is None:
        raise UserError(recipe, "missing", "set it, longer rows are left out", field="max_seq_length")
    preflight.check_context(args.max_seq_length, config, recipe, "max_seq_length")
    args.model_name_or_path = tc.tokenizer_name_or_path = path
    tc.get_tokenizer_fn = "prm_gym"
    args.dataset_transform_fn = ["prm_sft" if args.completion_only_loss else "prm_sft_whole", "sft_tulu_filter_v1"]
    args.dataset_target_columns = ["input_ids", "labels", "attention_mask"]
    args.dataset_local_cache_dir = str(output_dir / "data")
    check = partial(check_row, tokenizer)
    rows = jsonl_data.localise_list(
        args, "dataset_mixer_list", tokenized_rows.SFT_COLUMNS, check, recipe, default="train"
    )
    preflight.check_batches(rows, args.per_device_train_batch_size * preflight.world_size(), recipe)
    sample = jsonl_data.read_local(args.dataset_mixer_list[::2], tokenized_rows.SFT_COLUMNS)
    lengths = (len(tokenized_rows.sft_whole_row(row, tokenizer, args.max_seq_length)["input_ids"]) for row in sample)
    preflight.check_lengths(lengths, args.max_seq_length, recipe, "max_seq_length")
    return tokenizer


def check_row(tokenizer: Any, row: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """The row, or one for each turn if the chat template renders earlier turns differently."""
    preflight.check_messages(row["prompt"], source, "prompt", "user")
    preflight.check_messages(row["completion"], source, "completion", "assistant")
    if len(demonstrations(tokenizer, row["prompt"], row["completion"])) == 1:
        return [row]
    return [
        {"prompt": row["prompt"] + row["completion"][:turn], "completion": [message]}
        for turn, message in enumerate(row["completion"])
        if message["role"] == "assistant"
    ]
