"""`prm-gym evaluate`: success of a policy, or of best-of-N with a PRM, on the games of a split."""

from __future__ import annotations

import argparse
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.playing import add_playing, find, make_policy


def add(commands: Commands) -> None:
    command = add_command(commands, "evaluate", "Success of a policy on a split, into results.json and a table.")
    command.set_defaults(run=run)
    add_playing(command)
    command.add_argument("--out", type=Path, required=True, help="folder for the episodes and results.json")
    command.add_argument("--prm", type=Path, help="a PRM checkpoint, for best-of-N")
    command.add_argument("--best-of", type=int, default=16)


def run(options: argparse.Namespace) -> None:
    from prm_gym import evaluate, rollout
    from prm_gym.store import read_episodes

    policy, mode = make_policy(options), "policy"
    name = policy.policy_id
    if options.prm is not None:
        from prm_gym.policies.best_of_n import BestOfN
        from prm_gym.policies.prm import PRMScorer

        policy, mode = (
            BestOfN(policy, PRMScorer(options.prm, prompt=options.prompt), options.best_of),
            f"best_of_{options.best_of}",
        )
    episodes = options.out / f"{name.replace('/', '_')}_{mode}_{options.split}_{options.seed}"
    rollout.rollout(
        find(options),
        policy,
        episodes,
        max_games=options.max_games,
        max_episode_steps=options.max_episode_steps,
        seed=options.seed,
        concurrency=options.concurrency,
    )
    prm = None if options.prm is None else str(options.prm)
    result = evaluate.summarise(
        read_episodes(episodes), policy=name, prm=prm, mode=mode, split=options.split, seed=options.seed
    )
    evaluate.add_result(options.out / "results.json", result)
    console.print(evaluate.table(evaluate.read_results(options.out / "results.json")))
