"""Stage 2 on open-instruct: train Q from labels, with one of four losses (`loss:` in the recipe).

From a policy, the score head is initialised randomly; from Q_{i-1} it is kept. Each evaluation replaces the checkpoint
in `output_dir/checkpoint`, a whole model that can be given as `model_name_or_path` (with a new optimizer). The final
weights are in `output_dir` itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts import losses
from prm_gym.hosts.open_instruct import (
    arguments,
    checkpoint_format,
    held_out_loss,
    jsonl_data,
    output_folders,
    preflight,
    tokenized_rows,
)
from prm_gym.hosts.scored_rows import ROWS, longest


def parse(recipe: Path, overrides: dict[str, Any]) -> list[Any]:
    """The host's (Args, TokenizerConfig, ModelConfig) for `recipe`."""
    from open_instruct import dataset_transformation, model_utils, reward_modeling

    cls = arguments.extend(reward_modeling.Args, "reward_modeling")
    return arguments.parse(recipe, overrides, [cls, dataset_transformation.TokenizerConfig, model_utils.ModelConfig])


def run(recipe: Path, overrides: dict[str, Any]) -> None:
    """Train, and leave the checkpoint in `output_dir`. Raises `UserError` before any weights are loaded."""
    from accelerate import Accelerator, PartialState
    from open_instruct import dataset_transformation, reward_modeling
    from open_instruct.model_utils import save_with_accelerate

    args, tc, model_config = parse(recipe, overrides)
    output_dir = Path(args.output_dir).resolve()
    tokenizer = prepare(args, tc, model_config, output_dir, recipe)
    if hasattr(dataset_transformation, "load_dataset_configs"):  # main wants a split for each data set alone
        args.dataset_mixer_list_splits = args.dataset_mixer_list_splits[::2]
        args.dataset_mixer_eval_list_splits = args.dataset_mixer_eval_list_splits[::2]
    held: dict[str, Any] = {}

    def make_accelerator(**options: Any) -> Any:
        held["accelerator"] = Accelerator(**options)
        return held["accelerator"]

    names = held_out_loss.log_names(args.loss)
    print_metrics = reward_modeling.print_rich_single_line_metrics

    def make_writer(_: str) -> output_folders.MetricsWriter:
        held["writer"] = writer = output_folders.MetricsWriter(output_dir, names)
        return writer

    def checkpoint(model: Any) -> None:
        partial, place = output_dir / "checkpoint.partial", output_dir / "checkpoint"
        save_with_accelerate(held["accelerator"], model, tokenizer, str(partial))
        held["accelerator"].wait_for_everyone()
        if held["accelerator"].is_main_process:
            shutil.rmtree(place, ignore_errors=True)
            os.replace(partial, place)

    compute_loss = losses.make_compute_loss(args.loss, args.gamma)
    tokenized_rows.register(dataset_transformation.TRANSFORM_FNS)
    dataset_transformation.GET_TOKENIZER_FN["prm_gym"] = lambda _: tokenizer
    reward_modeling.compute_loss = compute_loss
    reward_modeling.evaluate = held_out_loss.make_evaluate(args.loss, compute_loss, checkpoint)
    reward_modeling.SimplePreferenceCollator = tokenized_rows.Collator
    reward_modeling.layer_init = keep_trained_head(reward_modeling.layer_init, model_config)
    reward_modeling.Accelerator = make_accelerator
    reward_modeling.SummaryWriter = make_writer
    reward_modeling.print_rich_single_line_metrics = lambda found: print_metrics(
        {names.get(name, name): value for name, value in found.items()}
    )
    reward_modeling.main(args, tc, model_config)  # appends a time to args.output_dir

    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        held["writer"].flush()
        output_folders.publish(Path(args.output_dir), output_dir)
        # Remove the last intermediate checkpoint, and folders named by other processes or a crashed run.
        for path in (output_dir / "checkpoint", *output_dir.glob(f"{args.exp_name}__*")):
            shutil.rmtree(path, ignore_errors=True)


def prepare(args: Any, tc: Any, model_config: Any, output_dir: Path, recipe: Path) -> Any:
    """Check the recipe against its model and data, and convert the data for the host. Returns the tokenizer."""
    revision = model_config.model_revision
    path = checkpoint_format.for_host(model_config.model_name_or_path, output_dir / "data")
    if path is None:
        raise UserError(recipe, "missing", "name the checkpoint that Q starts from", field="model_name_or_path")
    tokenizer = preflight.load_tokenizer(path, revision, "model_name_or_path")
    config = preflight.load_config(path, revision, "model_name_or_path")
    preflight.check_embedding(tokenizer, config, path)
    preflight.check_context(args.max_token_length, config, recipe, "max_token_length")
    model_config.model_name_or_path = tc.tokenizer_name_or_path = path
    tc.get_tokenizer_fn = "prm_gym"

    args.dataset_transform_fn = [f"prm_{args.loss}", "prm_length"]
    args.dataset_target_columns = list(tokenized_rows.TRAIN_COLUMNS[args.loss])
    args.dataset_local_cache_dir = str(output_dir / "data")
    columns, check = losses.SOURCE_COLUMNS[args.loss], check_row(args.loss)
    rows = jsonl_data.localise_list(args, "dataset_mixer_list", columns, check, recipe, default="train")
    preflight.check_batches(rows, args.per_device_train_batch_size * preflight.world_size(), recipe)
    sample = jsonl_data.read_local(args.dataset_mixer_list[::2], columns)
    lengths = (longest(ROWS[args.loss](row, tokenizer)) for row in sample)
    preflight.check_lengths(lengths, args.max_token_length, recipe, "max_token_length")
    if args.dataset_mixer_eval_list:
        jsonl_data.localise_list(args, "dataset_mixer_eval_list", columns, check, recipe, default="test")
    return tokenizer


def check_row(loss: str) -> Callable[[dict[str, Any], str], list[dict[str, Any]]]:
    """A function that returns [row] for `loss`, or raises `UserError` naming the column that does not fit."""

    def check(row: dict[str, Any], source: str) -> list[dict[str, Any]]:
        preflight.check_messages(row["prompt"], source, "prompt", "user")
        for name in ("completion", "chosen", "rejected"):
            if name in row:
                preflight.check_messages(row[name], source, name, "assistant")
        if loss == "inverse":
            if not row["terminated"]:
                preflight.check_messages(row["next_prompt"], source, "next_prompt", "user")
                preflight.check_messages(row["next_completion"], source, "next_completion", "assistant")
            row = {**row, "terminated": float(row["terminated"]), "expert": float(row["expert"])}
        if "target" in row and not (row["target"] is not None and 0.0 <= row["target"] <= 1.0):
            raise UserError(source, f"{row['target']} is not in [0, 1]", "label it again", field="target")
        return [row]

    return check


def keep_trained_head(layer_init: Callable[..., Any], model_config: Any) -> Callable[..., Any]:
    """Keep the score head of a checkpoint that is a reward model; the host would always initialise it."""
    config = preflight.load_config(model_config.model_name_or_path, model_config.model_revision, "model_name_or_path")
    trained = any("SequenceClassification" in name for name in config.architectures or ())

    def initialise(layer: Any, std: float) -> Any:
        return layer if trained else layer_init(layer, std)

    return initialise
