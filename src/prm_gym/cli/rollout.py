"""`prm-gym rollout`: collect episodes of a policy, independent or branched from other episodes."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import count, integer, name, path, temperature
from prm_gym.cli.output_folder import refuse_others
from prm_gym.cli.parser import Commands, add_command, flags_alone, refuse_idle
from prm_gym.cli.policy_flags import SCRIPTED, add_playing, find, make_env, make_policy, settle
from prm_gym.envs.games import ALFWORLD_DATA

if TYPE_CHECKING:
    from prm_gym.rollout import Summary

_OF_BRANCHES = ("states_per_episode", "actions_per_state", "continuations", "branch_temperature")


def add(commands: Commands) -> None:
    text = "Collect episodes of a policy into a store folder; goes on where it was stopped."
    command = add_command(commands, "rollout", text)
    command.set_defaults(run=run)
    add_playing(command)
    add = command.add_argument
    text = "folder of the episodes; one that was begun with the same settings is added to"
    add("--out", type=path, required=True, metavar="DIR", help=text)
    add("--rollouts-per-game", type=count, metavar="N", help="independent episodes of each game; default: 1")
    add("--iteration", type=integer(0), default=0, metavar="N", help="n of pi_n, stored with every episode")
    text = "folders of episodes to branch from, as the flags below say; default: play whole games"
    add("--branch-from", type=path, nargs="+", metavar="DIR", help=text)
    command.flags["parents"] = "--branch-from"
    add("--states-per-episode", type=count, metavar="N", help="states of an episode to branch at; default: 2")
    add("--actions-per-state", type=count, metavar="N", help="different actions tried at a state; default: 2")
    add("--continuations", type=count, metavar="N", help="episodes that go on from each action; default: 1")
    text = "of the actions tried at a state; default: --temperature"
    add("--branch-temperature", type=temperature, metavar="T", help=text)
    text = "play on this Ray cluster: auto for the one of this machine, or HOST:PORT; default: in this process"
    add("--ray", type=name, metavar="ADDRESS", help=text)
    add("--shares", type=count, metavar="N", help="processes on the cluster; default: one for each processor")


def run(options: argparse.Namespace) -> None:
    _check(options)
    refuse_others(options.out, "episodes")
    settle(options)
    if options.ray is None:
        summary = _play(options, options.out)
    else:
        from prm_gym.ray_cluster import Cluster
        from prm_gym.rollout import on_ray

        find(options)  # errors come before work starts
        options.games = options.games or (None if options.env else Path(os.environ[ALFWORLD_DATA]))
        summary = on_ray(partial(_play, flags_alone(options)), options.out, Cluster(options.ray, options.shares))
    say(f"{options.out}: {summary.line()}")


def _play(options: argparse.Namespace, out: Path, share: tuple[int, int] = (0, 1)) -> Summary:
    """Collect a share of the episodes into `out`."""
    from prm_gym import rollout

    games, policy = find(options), make_policy(options)
    shared = {
        "max_episode_steps": options.max_episode_steps,
        "seed": options.seed,
        "iteration": options.iteration,
        "concurrency": options.concurrency,
        "make_env": make_env(options),
        "share": share,
        "progress": options.ray is None,
    }
    if not options.branch_from:
        many = {"rollouts_per_game": options.rollouts_per_game or 1, "max_games": options.max_games}
        return rollout.rollout(games, policy, out, **many, **shared)
    hot = options.branch_temperature
    return rollout.rollout_branches(
        options.branch_from,
        games,
        policy,
        out,
        proposals=None if hot is None else make_policy(argparse.Namespace(**{**vars(options), "temperature": hot})),
        states_per_episode=options.states_per_episode or 2,
        actions_per_state=options.actions_per_state or 2,
        continuations=options.continuations or 1,
        **shared,
    )


def _check(options: argparse.Namespace) -> None:
    """Refuse flags without effect, and folders without episodes to branch from."""
    from prm_gym.store import parts

    if options.ray is None:
        refuse_idle(options, ("shares",), "without --ray")
    if not options.branch_from:
        refuse_idle(options, _OF_BRANCHES, "without --branch-from")
        return
    refuse_idle(options, ("rollouts_per_game", "max_games"), "with --branch-from")
    if options.policy in SCRIPTED:
        refuse_idle(options, ("branch_temperature",), f"with --policy {options.policy}")
    for folder in options.branch_from:
        parts(folder)
