"""Stage 3 on open-instruct: online DPO from pi_{i-1} on Q_{i-1}, the host's `online_dpo_vllm_thread`.

The reference is the initial policy, pi_{i-1}. Plain online DPO, Reset-50-50 (prompts labelled with
`--expert-fraction 0.5`) and Steered Exploration (`exploration_probability: 0.5`) differ only in their prompts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct import (
    arguments,
    checkpoint_format,
    generators,
    jsonl_data,
    output_folders,
    preflight,
    vllm_server,
)
from prm_gym.hosts.open_instruct.pair_selection import ChoosePairs, PairCounter, choose_pairs
from prm_gym.hosts.open_instruct.sampling_exchange import Exchange
from prm_gym.hosts.open_instruct.steering import Steering
from prm_gym.prompts.chat import adapted, prompt_ids
from prm_gym.provenance.checkpoint_settings import check_reads


def parse(recipe: Path, overrides: dict[str, Any]) -> list[Any]:
    """The host's (Args, DatasetConfig, ModelConfig) for `recipe`."""
    from open_instruct import dataset_processor, model_utils, online_dpo_vllm_thread

    cls = arguments.extend(online_dpo_vllm_thread.Args, "online_dpo")
    return arguments.parse(recipe, overrides, [cls, dataset_processor.DatasetConfig, model_utils.ModelConfig])


def run(recipe: Path, overrides: dict[str, Any], choose: ChoosePairs = choose_pairs) -> None:
    """Train, and leave pi_i in `output_dir`. `choose` makes the pairs of responses.

    Raises `UserError` before any weights are loaded.
    """
    import torch

    if not torch.cuda.is_available():  # the host compiles a small function, which on a CPU needs a C++ compiler
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    from accelerate import PartialState
    from open_instruct import online_dpo_vllm_thread as host

    args, dataset_config, model_config = parse(recipe, overrides)
    if args.output_dir is None:
        raise UserError(recipe, "missing", "say where the policy goes", field="output_dir")
    output_dir = Path(args.output_dir).resolve()
    tokenizer, rows = prepare(args, dataset_config, model_config, output_dir, recipe)
    args.output_dir = str(output_dir / "final")
    resume = Path(args.checkpoint_output_dir or output_dir / "resume")
    args.checkpoint_output_dir = str(resume)
    steer = None
    if args.exploration_probability:
        longest = dataset_config.max_prompt_token_length
        steer = Steering(
            rows(), tokenizer, probability=args.exploration_probability, max_length=longest, seed=args.seed
        )
    exchange = Exchange(
        make_generator(args, dataset_config, model_config, tokenizer),
        seed=args.seed,
        first_step=step_to_resume(resume),
        asynchronous=args.async_mode,
        steer=steer,
        checkpoint=make_checkpoint(resume, args.checkpoint_every),
    )
    pairs = PairCounter(choose)
    writers: list[output_folders.MetricsWriter] = []

    def make_writer(_: str) -> output_folders.MetricsWriter:
        writers.append(output_folders.MetricsWriter(output_dir, {}, lambda: {"objective/pairs": pairs.share}))
        return writers[0]

    host.vllm_generate = exchange.serve
    host.send_queries = exchange.send
    host.choose_pairs = pairs
    host.get_reward = without_end(host.get_reward, tokenizer.eos_token_id)
    host.SummaryWriter = make_writer
    # On SIGTERM the host saves and may then wait for its generator for ever; `checkpoint_every` saves instead.
    host.signal = SimpleNamespace(signal=lambda *_: None, SIGTERM=None)
    host.main(args, dataset_config, model_config)

    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        for writer in writers:
            writer.flush()
        output_folders.publish(output_dir / "final", output_dir)


def without_end(get_reward: Callable[..., Any], end: int) -> Callable[..., Any]:
    """The host's `get_reward` on responses without the token `end`, which is how Q reads them (`chat.scored_ids`)."""

    def scored(model: Any, query_responses: Any, pad: int, context_length: int) -> Any:
        ids = query_responses.clone()
        responses = ids[:, context_length:]
        responses[responses == end] = pad  # after which the host has put padding alone
        return get_reward(model, ids, pad, context_length)

    return scored


def prepare(
    args: Any, dataset_config: Any, model_config: Any, output_dir: Path, recipe: Path
) -> tuple[Any, Callable[[], Any]]:
    """Check the recipe against its models and prompts, and convert the data for the host.

    Returns the policy's tokenizer, and a function that iterates over the rows of prompts.
    """
    cache = output_dir / "data"
    path, revision = checkpoint_format.for_host(model_config.model_name_or_path, cache), model_config.model_revision
    if path is None:
        raise UserError(recipe, "missing", "name pi_{i-1}", field="model_name_or_path")
    model_config.model_name_or_path = path
    check_reads(args.reward_model_path)
    args.reward_model_path = checkpoint_format.for_host(args.reward_model_path, cache)
    tokenizer = preflight.load_tokenizer(path, revision, "model_name_or_path")
    config = preflight.load_config(path, revision, "model_name_or_path")
    prm = preflight.load_tokenizer(args.reward_model_path, args.reward_model_revision, "reward_model_path")
    prm_config = preflight.load_config(args.reward_model_path, args.reward_model_revision, "reward_model_path")
    preflight.check_same_vocabulary(tokenizer, prm, config, prm_config, args.reward_model_path)
    preflight.check_host_pad(tokenizer, path)
    check_settings(args, dataset_config, model_config, recipe)
    preflight.check_context(
        dataset_config.max_prompt_token_length + args.response_length, config, recipe, "max_prompt_token_length"
    )

    columns = ("prompt", "exploration_prompt") if args.exploration_probability else ("prompt",)
    dataset_config.sft_messages_key = "messages"
    localise = partial(_localise, folder=cache, check=partial(check_row, tokenizer), where=str(recipe))
    paths, splits, rows = localise(args.dataset_mixer_dict, args.dataset_train_splits, columns, field="dataset_mixer")
    args.dataset_mixer_dict, args.dataset_train_splits = paths, splits
    args.dataset_eval_mixer_dict, args.dataset_eval_splits, _ = localise(
        args.dataset_eval_mixer_dict, args.dataset_eval_splits, ("prompt",), field="dataset_eval_mixer"
    )
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.num_mini_batches
    prompts = batch * preflight.world_size() // args.num_generation_per_prompt
    preflight.check_batches(rows, prompts, recipe)

    lengths = (len(prompt_ids(tokenizer, row["prompt"])) for row in jsonl_data.read_local(paths, columns))
    preflight.check_lengths(lengths, dataset_config.max_prompt_token_length, recipe, "max_prompt_token_length")
    return tokenizer, lambda: jsonl_data.read_local(paths, columns)


def check_settings(args: Any, dataset_config: Any, model_config: Any, recipe: Path) -> None:
    """Raise `UserError` for settings that the host accepts but does not honour."""

    def refuse(field: str, problem: str, remedy: str) -> None:
        raise UserError(recipe, problem, remedy, field=field)

    if args.dataset_eval_mixer_dict is None or args.dataset_eval_splits is None:
        refuse("dataset_eval_mixer", "missing, and the host needs one", "name the folder of prompts, with split [test]")
    if args.dataset_train_splits is None:
        refuse("dataset_train_splits", "missing", "write [train]")
    if dataset_config.max_prompt_token_length is None:
        refuse("max_prompt_token_length", "missing", "set it, so that no prompt outgrows the model's context")
    if args.stop_token != "eos":
        refuse("stop_token", f"is {args.stop_token}", "set it to eos: where a turn ends decides what makes a pair")
    if args.non_stop_penalty:
        refuse("non_stop_penalty", "has no effect", "leave it out: a response cut off ranks below any that ended")
    if args.num_generation_per_prompt != 2:
        refuse("num_generation_per_prompt", "the host's loss is for pairs", "set it to 2")
    if args.per_device_train_batch_size % 2:
        refuse("per_device_train_batch_size", "counts responses, two for each prompt", "make it even")
    if not 0.0 <= args.exploration_probability <= 1.0:
        refuse("exploration_probability", f"{args.exploration_probability} is no probability", "use 0 to 1")
    if args.temperature <= 0:
        refuse("temperature", "two samples at temperature 0 are the same", "use e.g. 0.7")
    preflight.check_precision(model_config.torch_dtype, recipe)
    vllm_server.check(args.vllm_command, args.vllm_server)
    if args.checkpoint_every and preflight.zero_stage() == 3:
        refuse("checkpoint_every", "cannot be used under ZeRO-3", "set it to 0, or use recipes/deepspeed/zero2.yaml")


def check_row(tokenizer: Any, row: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """The row with the `messages` that the host reads. It drops the last message, so an empty one is added."""
    preflight.check_messages(row["prompt"], source, "prompt", "user")
    if row.get("exploration_prompt"):
        preflight.check_messages(row["exploration_prompt"], source, "exploration_prompt", "user")
    return [{**row, "messages": [*adapted(tokenizer, row["prompt"]), {"role": "assistant", "content": ""}]}]


def make_generator(
    args: Any, dataset_config: Any, model_config: Any, tokenizer: Any
) -> Callable[[], generators.Generator]:
    """A factory for the generation thread: a vLLM server if the recipe names one, else transformers."""
    path = model_config.model_name_or_path
    sampling = {"temperature": args.temperature, "length": args.response_length, "stop_id": tokenizer.eos_token_id}

    def make() -> generators.Generator:
        import torch
        from accelerate import PartialState

        if args.vllm_command or args.vllm_server:
            context = dataset_config.max_prompt_token_length + args.response_length
            url = args.vllm_server or vllm_server.start(args.vllm_command, args.vllm_devices, path, context)
            return vllm_server.VLLMServer(
                url, path, weights_dir=args.vllm_weights_dir, max_model_len=context, **sampling
            )
        dtype = getattr(torch, model_config.torch_dtype or "bfloat16")
        return generators.TransformersGenerator(path, dtype=dtype, device=PartialState().device, **sampling)

    return make


def step_to_resume(folder: Path) -> int:
    """The step of the newest checkpoint in `folder`, or 1. Removes older ones, which the host might load."""
    found = sorted((int(path.name.removeprefix("step_")), path) for path in folder.glob("step_*"))
    for _, path in found[:-1]:
        shutil.rmtree(path, ignore_errors=True)
    return found[-1][0] if found else 1


def make_checkpoint(folder: Path, every: int) -> Callable[[Any, int], None] | None:
    """A function that saves the training state, from which the host resumes at `step`, and removes the previous one."""
    if not every:
        return None

    def checkpoint(accelerator: Any, step: int) -> None:
        if step % every:
            return
        partial = folder / "partial"
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            older = list(folder.glob("step_*"))
            os.replace(partial, folder / f"step_{step}")
            for path in older:
                shutil.rmtree(path)
        accelerator.wait_for_everyone()

    return checkpoint


def _localise(
    mixer: dict[str, Any], splits: list[str], columns: tuple[str, ...], **options: Any
) -> tuple[dict[str, Any], list[str], int]:
    local, splits, rows = jsonl_data.localise(list(mixer.items()), splits, columns, **options)
    return dict(local), splits, rows
