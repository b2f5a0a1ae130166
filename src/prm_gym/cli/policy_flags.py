"""The flags of commands that play games with a policy, and the games and the policy that they specify."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.cli.flag_types import count, mapping, name, number, path, seed, share, temperature
from prm_gym.cli.parser import Parser, refuse_idle
from prm_gym.errors import UserError

if TYPE_CHECKING:
    from prm_gym.envs.named import NamedEnvironment
    from prm_gym.policies.react import ReActPolicy
    from prm_gym.policies.server import ServerPolicy
    from prm_gym.policies.transformers import TransformersPolicy
    from prm_gym.prompts import Prompt
    from prm_gym.types import Policy


MAX_NEW_TOKENS = 256
SCRIPTED = ("expert", "random")
REACT = "react"
_OF_MODELS = ("prompt", "temperature", "max_new_tokens", "force", "server", "served_model", "api_key_env")
OF_SERVERS = ("served_model", "api_key_env")
_OF_REACT = ("examples", "shots")


def add_playing(command: Parser) -> None:
    """Add the flags of commands that play. A flag that was not given is None, so that idle flags can be refused."""
    add = command.add_argument
    add("--games", type=path, metavar="DIR", help="folder of ALFWorld's games; default: $ALFWORLD_DATA")
    text = "another environment: a gymnasium id, or package.module:factory; default: ALFWorld"
    add("--env", type=name, metavar="NAME", help=text)
    add("--env-kwargs", type=mapping, metavar="JSON", help="arguments of --env, such as '{\"size\": 8}'; default: none")
    text = "bounds of an episode's return, for --env with other rewards; default: 0 1, without rescaling"
    add("--reward-range", type=number(), nargs=2, metavar=("LOW", "HIGH"), help=text)
    add("--split", type=name, default="train", help="train, valid_seen or valid_unseen")
    add("--max-games", type=count, metavar="N", help="play N of the games or tasks, drawn by --seed; default: all")
    add("--policy", type=name, required=True, help="expert, random, react, a model's folder, or its name on the Hub")
    add("--policy-id", type=name, metavar="NAME", help="name of the policy in the output; default: as --policy")
    add("--random-actions", type=share, metavar="SHARE", help="share of the expert's turns that are random; default: 0")
    add_server(command)
    text = "episodes of which --policy react shows won ones as examples; default: none"
    add("--examples", type=path, nargs="+", metavar="DIR", help=text)
    add("--shots", type=count, metavar="N", help="examples in the prompt with --examples; default: 2")
    text = (
        "full, compact, general, react, or a jinja file; default: as the model was trained, else full, of --env general"
    )
    add("--prompt", type=name, help=text)
    add_sampling(command)
    text = "actions of an episode; default: as the model was trained, else 30"
    add("--max-episode-steps", type=count, metavar="N", help=text)
    add("--concurrency", type=count, default=128, metavar="N", help="episodes played at once")
    add("--seed", type=seed, default=0, help="of the games drawn and of all sampling")


def add_server(command: Parser) -> None:
    """Add the flags of a model behind servers."""
    add = command.add_argument
    text = "ask these OpenAI-compatible servers for the model; default: load it here"
    add("--server", type=name, nargs="+", metavar="URL", help=text)
    command.flags["base_urls"] = "--server"
    add("--served-model", type=name, metavar="NAME", help="the model's name at the servers; default: --policy")
    text = "environment variable with the key of the servers; default: no key"
    add("--api-key-env", type=name, metavar="VARIABLE", help=text)


def add_sampling(command: Parser) -> None:
    """Add the flags of commands that sample a model, which may record its own defaults (`checkpoint_settings`)."""
    text = "sampling temperature, 0 is greedy; default: as the model was trained, else 0.3"
    command.add_argument("--temperature", type=temperature, metavar="T", help=text)
    text = f"longest response; default: {MAX_NEW_TOKENS}"
    command.add_argument("--max-new-tokens", type=count, metavar="N", help=text)
    text = "play a model with another prompt, step limit or temperature than it was trained with"
    command.add_argument("--force", action="store_true", help=text)


def settle(options: argparse.Namespace) -> None:
    """Refuse flags without effect, and set missing ones as in the model's training, else to the usual values."""
    from prm_gym.inference.model_location import check_model
    from prm_gym.provenance import checkpoint_settings

    if options.out.exists() and not options.out.is_dir():
        raise UserError("out", f"{options.out} is a file", "name a folder")
    if options.policy in SCRIPTED:
        read_by_q = ("prompt", "force") if getattr(options, "prm", None) else ()
        idle = [flag for flag in _OF_MODELS if flag not in read_by_q]
        refuse_idle(options, idle, f"with --policy {options.policy}")
    if options.policy != REACT:
        refuse_idle(options, _OF_REACT, f"without --policy {REACT}")
    elif not options.server or not options.served_model:
        raise UserError("policy", "react prompts a model of a server", "give --server URL and --served-model NAME")
    elif not options.examples:
        refuse_idle(options, ("shots",), "without --examples")
    if options.policy != "expert":
        refuse_idle(options, ("random_actions",), "without --policy expert")
    if options.env is None:
        refuse_idle(options, ("env_kwargs", "reward_range"), "without --env")
    else:
        refuse_idle(options, ("games",), "with --env")
    if not options.server:
        refuse_idle(options, OF_SERVERS, "without --server")
    is_model = options.policy not in SCRIPTED and Path(options.policy).is_dir()
    if options.policy not in SCRIPTED and (is_model or not options.server):
        check_model(options.policy, "policy")
    played = checkpoint_settings.settle(
        options.policy if is_model else None,
        prompt=options.prompt,
        max_episode_steps=options.max_episode_steps,
        temperature=options.temperature,
        force=options.force,
        usual_prompt=REACT if options.policy == REACT else "full" if options.env is None else "general",
    )
    options.prompt, options.temperature = played.prompt, played.temperature
    options.max_episode_steps = played.max_episode_steps
    options.max_new_tokens = options.max_new_tokens or MAX_NEW_TOKENS


def find(options: argparse.Namespace) -> list[Any]:
    """The games of --games or --env and --split. Raises `UserError` if there are fewer than --max-games."""
    from prm_gym.envs.games import ALFWORLD_DATA, find_games
    from prm_gym.envs.named import SEEDS
    from prm_gym.rollout import draw_games

    games: list[Any]
    folder = options.games or os.environ.get(ALFWORLD_DATA)
    if (env := make_env(options)) is not None:
        games = env.tasks(options.split)
        if options.max_games is None and len(games) >= SEEDS and not getattr(options, "branch_from", None):
            raise UserError("max_games", f"{env.name} has {len(games):,} tasks", "say how many to play")
    elif folder:
        games = list(find_games(folder, options.split))
    else:
        raise UserError("games", "no folder of games", "name one, or set ALFWORLD_DATA")
    draw_games(games, options.seed, options.max_games)
    return games


def make_env(options: argparse.Namespace) -> NamedEnvironment | None:
    """The environment that --env names; None for ALFWorld."""
    from dataclasses import replace

    from prm_gym.envs.named import named_by

    if options.env is None:
        return None
    env = replace(named_by(options.env), kwargs=options.env_kwargs or {}, reward_range=options.reward_range)
    try:
        env.check("env")
    except UserError as error:
        flag = {"kwargs": "env_kwargs", "reward_range": "reward_range"}.get(error.field or "", "env")
        raise UserError(flag, error.problem, error.remedy) from None
    return env


def make_policy(options: argparse.Namespace) -> Policy:
    """The policy specified by the flags of `add_playing`, after `settle`."""
    if options.policy == "expert" and options.env is not None:
        from prm_gym.policies.environment_expert import EnvironmentExpert

        return EnvironmentExpert(options.random_actions or 0.0, policy_id=options.policy_id)
    if options.policy == "expert":
        from prm_gym.policies.expert import ExpertPolicy

        return ExpertPolicy(random_actions=options.random_actions or 0.0, policy_id=options.policy_id)
    if options.policy == "random":
        from prm_gym.policies.random import RandomPolicy

        return RandomPolicy(options.policy_id or "random")
    if options.policy == REACT:
        return make_react(options, make_served(options), {})
    if options.server:
        return make_served(options, options.policy_id)
    return make_model(options, Path(options.policy), options.prompt, options.policy_id)


def make_served(options: argparse.Namespace, policy_id: str | None = None) -> ServerPolicy:
    """The model at --server."""
    from prm_gym.policies.server import ServerPolicy

    local = Path(options.policy).is_dir()
    return ServerPolicy(
        options.server,
        options.served_model or options.policy,
        prompt=options.prompt,
        tokenizer=options.policy if local else None,
        temperature=options.temperature,
        max_tokens=options.max_new_tokens,
        policy_id=policy_id,
        concurrency=options.concurrency,
        api_key_env=options.api_key_env,
    )


def make_react(options: argparse.Namespace, model: ServerPolicy, lessons: Mapping[str, Sequence[str]]) -> ReActPolicy:
    """--policy react, with `lessons` of earlier trials by game."""
    from prm_gym.policies.react import ReActPolicy
    from prm_gym.store import read_episodes

    return ReActPolicy(
        model,
        options.prompt,
        examples=read_episodes(*options.examples) if options.examples else (),
        shots=(options.shots or 2) if options.examples else 0,
        lessons=lessons,
        policy_id=options.policy_id,
    )


def make_model(
    options: argparse.Namespace, folder: Path, prompt: Prompt, policy_id: str | None = None
) -> TransformersPolicy:
    """The model in `folder`, in this process."""
    from prm_gym.policies.transformers import TransformersPolicy

    return TransformersPolicy(
        folder,
        prompt=prompt,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        policy_id=policy_id,
    )
