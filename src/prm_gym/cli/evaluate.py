"""`prm-gym evaluate`: success of a policy, or of best-of-N with a PRM, on the games of a split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.cli.console import console, say
from prm_gym.cli.flag_types import count, name, number, path
from prm_gym.cli.output_folder import refuse_others
from prm_gym.cli.parser import Commands, add_command, refuse_idle
from prm_gym.cli.policy_flags import (
    REACT,
    add_playing,
    find,
    make_env,
    make_policy,
    make_react,
    make_served,
    settle,
)
from prm_gym.cli.prm_flag import make_prm
from prm_gym.cli.world import make_world
from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import AMONG, BestOf, BestOfN
from prm_gym.policies.planner import VALUES, Planner

if TYPE_CHECKING:
    from prm_gym.envs.contract import Task
    from prm_gym.policies.worlds import World
    from prm_gym.types import Policy


def add(commands: Commands) -> None:
    command = add_command(commands, "evaluate", "Success of a policy on a split, into results.json and a table.")
    command.set_defaults(run=run)
    add_playing(command)
    command.set_defaults(split="valid_unseen")
    add = command.add_argument
    add("--out", type=path, required=True, metavar="DIR", help="folder of the episodes and of results.json")
    add("--prm", type=path, metavar="DIR", help="a PRM that chooses among --best-of responses; default: none")
    text = "play lost games again, up to K times in all, with a lesson in words after each (Reflexion); default: 1"
    add("--trials", type=count, metavar="K", help=text)
    text = "price of a million prompt and of a million response tokens of --server; default: no cost is told"
    add("--price", type=number(least=0), nargs=2, metavar=("IN", "OUT"), help=text)
    add("--best-of", type=count, metavar="N", help="responses to choose from with --prm; default: 16")
    text = "choose by logit Q + W log pi(a|s); default: 0, Q alone"
    add("--weight", type=number(least=0), metavar="W", help=text)
    add("--among", choices=AMONG, help="the actions to choose from with --prm; default: all")
    text = "plan ahead with --prm: imagine this many steps, score what follows, act, plan again; default: 0, best-of-N"
    add("--depth", type=count, metavar="K", help=text)
    add("--width", type=count, metavar="W", help="plans of each length that are kept with --depth; default: 4")
    text = "value of a plan: logit Q of its last action, or its advantages (for Q of pairs) in sum; default: last"
    add("--value", choices=VALUES, help=text)
    text = "imagine in a world model (a folder), or in `engine`, the environment itself (an upper bound); default: none"
    add("--world", type=name, metavar="DIR", help=text)


def run(options: argparse.Namespace) -> None:
    from prm_gym.evaluation.results_file import read_results
    from prm_gym.evaluation.results_table import costs, table
    from prm_gym.evaluation.success import evaluate

    choice = _best_of(options)
    read_by_q = options.prm if options.policy == "random" and options.prompt is None else None
    _check_idle(options)
    refuse_others(options.out, "evaluations")
    settle(options)
    games = find(options)
    if choice is not None:
        _check_prm(options, read_by_q)
    shared: dict[str, Any] = {
        "split": options.split,
        "seed": options.seed,
        "max_episode_steps": options.max_episode_steps,
        "price": options.price,
        "max_games": options.max_games,
        "concurrency": options.concurrency,
        "make_env": make_env(options),
    }
    if options.trials:
        from prm_gym.evaluation.reflexion import reflexion
        from prm_gym.rollout.concurrency import run_and_close

        model, trials = make_served(options), options.trials
        react = partial(make_react, options, model)
        played = reflexion(games, model, options.prompt, options.out, make_policy=react, trials=trials, **shared)
        run_and_close(played, model)
    else:
        policy, mode = make_policy(options), "policy"
        named = policy.policy_id
        if choice is not None:
            policy, mode = _choosing(options, policy, choice, games)
        prm = None if options.prm is None else str(options.prm)
        _, summary = evaluate(games, policy, options.out, name=named, prm=prm, mode=mode, **shared)
        say(f"{options.out}: {summary.line()}")
    results = read_results(options.out / "results.json")
    console.print(table(results))
    for line in costs(results):
        say(line)


def _check_idle(options: argparse.Namespace) -> None:
    """Refuse flags without effect."""
    if options.policy != REACT:
        refuse_idle(options, ("trials",), f"without --policy {REACT}")
    if options.trials:
        refuse_idle(options, ("prm",), "with --trials")
    if not options.server:
        refuse_idle(options, ("price",), "without --server")
    if options.prm is None:
        refuse_idle(options, ("depth",), "without --prm")
    if options.depth is None:
        refuse_idle(options, ("width", "value", "world"), "without --depth")
    elif options.world is None:
        raise UserError("world", "planning needs a world to imagine in", "name a world model's folder, or say engine")


def _choosing(
    options: argparse.Namespace, policy: Policy, choice: BestOf, games: Sequence[Task]
) -> tuple[BestOfN | Planner, str]:
    """Best-of-N of `policy`, or with --depth a planner, and its mode."""
    scorer = make_prm(options, options.prompt)
    if not options.depth:
        return BestOfN(policy, scorer, **asdict(choice)), choice.mode
    world = _world(options, games)
    planner = Planner(
        policy, scorer, world, choice, depth=options.depth, width=options.width or 4, value=options.value or "last"
    )
    return planner, planner.mode


def _best_of(options: argparse.Namespace) -> BestOf | None:
    """The best-of-N of the options, None without a PRM."""
    if options.policy == "expert":  # its responses at a state are the same, but for random actions
        refuse_idle(options, ("prm", "best_of", "weight", "among"), "with --policy expert")
    given = {"n": options.best_of, "weight": options.weight, "among": options.among}
    given = {field: value for field, value in given.items() if value is not None}
    if options.prm is None:
        if given:
            remedy = "name its folder, or leave out --best-of, --weight and --among"
            raise UserError("prm", "best-of-N needs a PRM to choose by", remedy)
        return None
    choice = BestOf(**given)
    choice.check("--best-of")
    return choice


def _world(options: argparse.Namespace, games: Sequence[Task]) -> World:
    """The world that --depth imagines with."""
    if options.world != "engine":
        return make_world(options)
    from prm_gym.policies.worlds import EngineWorld
    from prm_gym.rollout.concurrency import alfworld

    limit = options.max_episode_steps
    return EngineWorld(make_env(options) or alfworld(games, limit), games, limit)


def _check_prm(options: argparse.Namespace, read_by_q: Path | None) -> None:
    """Raise `UserError`, before anything is loaded, for a missing PRM or one with another prompt.

    For a policy without a prompt, `options.prompt` becomes that of the PRM `read_by_q`.
    """
    from prm_gym.inference.model_location import check_model
    from prm_gym.provenance.checkpoint_settings import check_prm, prompt_for

    check_model(options.prm, "prm")
    if read_by_q is not None:
        options.prompt = prompt_for(read_by_q, None)
    check_prm(options.prm, options.prompt, force=options.force)
