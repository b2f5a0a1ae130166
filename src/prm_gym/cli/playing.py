"""The flags of the commands that play games with a policy, and the games and the policy that they name."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.cli.parser import Parser
from prm_gym.errors import UserError

if TYPE_CHECKING:
    from prm_gym.prompts import Prompt
    from prm_gym.types import Policy


def add_playing(command: Parser) -> None:
    command.add_argument("--games", type=Path, default=os.environ.get("ALFWORLD_DATA"), help="default: $ALFWORLD_DATA")
    command.add_argument("--split", default="train")
    command.add_argument("--max-games", type=int)
    command.add_argument("--policy", required=True, help="expert, random, or the folder of a model")
    command.add_argument("--policy-id", help="its name in the store; default: as --policy")
    command.add_argument(
        "--random-actions", type=float, default=0.0, help="share of the expert's turns taken at random"
    )
    command.add_argument("--server", nargs="+", metavar="URL", help="ask OpenAI-compatible servers for the model")
    command.flags["base_urls"] = "--server"
    command.add_argument("--served-model", metavar="NAME", help="the model's name at the servers; default: --policy")
    command.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable that holds the key")
    command.add_argument(
        "--prompt", help="full, compact, or a jinja file; default: as the model was trained, else full"
    )
    add_sampling(command)
    command.add_argument(
        "--max-episode-steps", type=int, help="actions of an episode; default: as the model was trained, else 30"
    )
    command.add_argument("--concurrency", type=int, default=128)
    command.add_argument("--seed", type=int, default=0)


def add_sampling(command: Parser) -> None:
    """The flags of commands that sample a model, whose defaults it may carry with it (`trained`)."""
    command.add_argument("--temperature", type=float, help="default: as the model was trained, else 0.3")
    command.add_argument("--max-new-tokens", type=int, default=256)
    command.add_argument("--force", action="store_true", help="play a model otherwise than it was trained")


def settle(options: argparse.Namespace) -> None:
    """Fill in --prompt, --temperature and --max-episode-steps where they were left out, as the model was trained."""
    from prm_gym import trained

    is_model = options.policy not in ("expert", "random") and Path(options.policy).is_dir()
    played = trained.settle(
        options.policy if is_model else None,
        prompt=options.prompt,
        max_episode_steps=options.max_episode_steps,
        temperature=options.temperature,
        force=options.force,
    )
    options.prompt, options.temperature = played.prompt, played.temperature
    options.max_episode_steps = played.max_episode_steps


def find(options: argparse.Namespace) -> list[Any]:
    """The games that --games and --split name."""
    from prm_gym.envs.games import find_games

    if options.games is None:
        raise UserError("--games", "no folder of games", "name one, or set ALFWORLD_DATA")
    return find_games(options.games, options.split)


def make_policy(options: argparse.Namespace) -> Policy:
    """The policy that the flags of `add_playing` name, after `settle`."""
    if options.policy == "expert":
        from prm_gym.policies.expert import ExpertPolicy

        return ExpertPolicy(random_actions=options.random_actions, policy_id=options.policy_id)
    if options.policy == "random":
        from prm_gym.policies.random import RandomPolicy

        return RandomPolicy(options.policy_id or "random")
    if options.server:
        from prm_gym.policies.server import ServerPolicy

        local = Path(options.policy).is_dir()
        return ServerPolicy(
            options.server,
            options.served_model or options.policy,
            prompt=options.prompt,
            tokenizer=options.policy if local else None,
            temperature=options.temperature,
            max_tokens=options.max_new_tokens,
            policy_id=options.policy_id,
            concurrency=options.concurrency,
            api_key_env=options.api_key_env,
        )
    return make_model(options, Path(options.policy), options.prompt, options.policy_id)


def make_model(options: argparse.Namespace, folder: Path, prompt: Prompt | str, policy_id: str | None = None) -> Policy:
    """The model in `folder`, in this process."""
    try:
        from prm_gym.policies.hf import TransformersPolicy
    except ImportError as error:
        raise UserError("--policy", f"{error.name} is not installed", "pip install 'prm-gym[trl]'") from None
    return TransformersPolicy(
        folder,
        prompt=prompt,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        policy_id=policy_id,
    )
