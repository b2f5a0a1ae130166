"""`prm-gym evaluate`: success of a policy, or of best-of-N with a PRM, on the games of a split."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.flag_types import count, number, path
from prm_gym.cli.parser import Commands, add_command, refuse_idle
from prm_gym.cli.policy_flags import add_playing, find, make_env, make_policy, settle
from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import AMONG, BestOf, BestOfN


def add(commands: Commands) -> None:
    command = add_command(commands, "evaluate", "Success of a policy on a split, into results.json and a table.")
    command.set_defaults(run=run)
    add_playing(command)
    add = command.add_argument
    add("--out", type=path, required=True, metavar="DIR", help="folder of the episodes and of results.json")
    add("--prm", type=path, metavar="DIR", help="a PRM that chooses among --best-of responses; default: none")
    add("--best-of", type=count, metavar="N", help="responses to choose from with --prm; default: 16")
    text = "choose by logit Q + W log pi(a|s); default: 0, Q alone"
    add("--weight", type=number(least=0), metavar="W", help=text)
    add("--among", choices=AMONG, help="the actions to choose from with --prm; default: all")


def run(options: argparse.Namespace) -> None:
    from prm_gym.evaluation.results_file import read_results
    from prm_gym.evaluation.results_table import table
    from prm_gym.evaluation.success import evaluate

    choice = _best_of(options)
    read_by_q = options.prm if options.policy == "random" and options.prompt is None else None
    settle(options)
    games = find(options)
    if choice is not None:
        _check_prm(options, read_by_q)
    policy, mode = make_policy(options), "policy"
    name = policy.policy_id
    if choice is not None:
        from prm_gym.prm.in_process import PRMScorer

        scorer = PRMScorer(options.prm, prompt=options.prompt)
        policy, mode = BestOfN(policy, scorer, **asdict(choice)), choice.mode
    _, summary = evaluate(
        games,
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
        make_env=make_env(options),
    )
    console.print(f"{options.out}: {summary.line()}", highlight=False, soft_wrap=True)
    console.print(table(read_results(options.out / "results.json")))


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
