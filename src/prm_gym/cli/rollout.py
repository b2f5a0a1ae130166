"""`prm-gym rollout`: episodes of a policy, independent or branched from other episodes."""

from __future__ import annotations

import argparse
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.playing import add_playing, find, make_policy, settle


def add(commands: Commands) -> None:
    text = "Collect episodes of a policy into a store folder; goes on where it was stopped."
    command = add_command(commands, "rollout", text)
    command.set_defaults(run=run)
    add_playing(command)
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--rollouts-per-game", type=int, default=1)
    command.add_argument("--iteration", type=int, default=0)
    command.add_argument(
        "--branch-from", type=Path, nargs="+", metavar="DIR", help="branch from these episodes instead"
    )
    command.add_argument("--states-per-episode", type=int, default=2)
    command.add_argument("--actions-per-state", type=int, default=2)
    command.add_argument("--continuations", type=int, default=1)
    command.add_argument(
        "--branch-temperature", type=float, help="of the actions at a branch point; default: --temperature"
    )


def run(options: argparse.Namespace) -> None:
    from prm_gym import rollout

    settle(options)
    shared = {
        "max_episode_steps": options.max_episode_steps,
        "seed": options.seed,
        "iteration": options.iteration,
        "concurrency": options.concurrency,
    }
    policy, games = make_policy(options), find(options)
    if options.branch_from:
        hot = options.branch_temperature
        summary = rollout.rollout_branches(
            options.branch_from,
            games,
            policy,
            options.out,
            proposals=None if hot is None else make_policy(argparse.Namespace(**{**vars(options), "temperature": hot})),
            states_per_episode=options.states_per_episode,
            actions_per_state=options.actions_per_state,
            continuations=options.continuations,
            **shared,
        )
    else:
        many = {"rollouts_per_game": options.rollouts_per_game, "max_games": options.max_games}
        summary = rollout.rollout(games, policy, options.out, **many, **shared)
    console.print(f"{options.out}: {summary.line()}", highlight=False, soft_wrap=True)
