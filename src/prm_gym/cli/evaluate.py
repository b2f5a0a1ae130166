"""`prm-gym evaluate`: success of a policy, or of best-of-N with a PRM, on the games of a split."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.playing import add_playing, find, make_policy, settle
from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import AMONG, BestOf, BestOfN


def add(commands: Commands) -> None:
    command = add_command(commands, "evaluate", "Success of a policy on a split, into results.json and a table.")
    command.set_defaults(run=run)
    add_playing(command)
    command.add_argument("--out", type=Path, required=True, help="folder for the episodes and results.json")
    command.add_argument("--prm", type=Path, help="a PRM checkpoint, for best-of-N")
    command.add_argument("--best-of", type=int, metavar="N", help="responses to choose from; default: 16")
    command.add_argument(
        "--weight", type=float, metavar="W", help="choose by logit Q + W log pi(a|s); default: 0, Q alone"
    )
    command.add_argument("--among", choices=AMONG, help="the actions to choose from; default: all")


def run(options: argparse.Namespace) -> None:
    from prm_gym import evaluate

    choice = _best_of(options)
    settle(options)
    policy, mode = make_policy(options), "policy"
    name = policy.policy_id
    if choice is not None:
        from prm_gym.policies.prm import PRMScorer
        from prm_gym.trained import check_prm

        check_prm(options.prm, options.prompt, force=options.force)
        scorer = PRMScorer(options.prm, prompt=options.prompt)
        policy, mode = BestOfN(policy, scorer, **asdict(choice)), choice.mode
    evaluate.evaluate(
        find(options),
        policy,
        options.out,
        name=name,
        prm=None if options.prm is None else str(options.prm),
        mode=mode,
        split=options.split,
        seed=options.seed,
        max_episode_steps=options.max_episode_steps,
        max_games=options.max_games,
        concurrency=options.concurrency,
    )
    console.print(evaluate.table(evaluate.read_results(options.out / "results.json")))


def _best_of(options: argparse.Namespace) -> BestOf | None:
    """The best-of-N that the options ask for, None without a PRM."""
    given = {"n": options.best_of, "weight": options.weight, "among": options.among}
    given = {field: value for field, value in given.items() if value is not None}
    if options.prm is None:
        if given:
            remedy = "name its folder, or leave out --best-of, --weight and --among"
            raise UserError("--prm", "best-of-N needs a PRM to choose by", remedy)
        return None
    choice = BestOf(**given)
    choice.check("--best-of")
    return choice
