"""Independent episodes: `rollouts_per_game` of every game, each from the game's start.

Games are sorted by the hash of (seed, game id), whatever their place on the disk, and the first `max_games` are played.
The rollouts of a game follow each other, so that its engine tables and the server's prompt cache are warm. An episode's
seed is a hash of (seed, game, rollout index), the seed of turn t a hash of (episode's seed, t). Neither depends on the
policy or on `concurrency`: two policies get the same random numbers, and more workers change only the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

from prm_gym.envs.contract import Task
from prm_gym.errors import UserError
from prm_gym.provenance import Settings
from prm_gym.provenance.fingerprints import of_games
from prm_gym.rollout.beginning import Plan
from prm_gym.rollout.concurrency import (
    MakeEnv,
    alfworld,
    check,
    claim_folder,
    execute,
    run_and_close,
    settings_of_env,
)
from prm_gym.rollout.episode import hash_id, hash_seed
from prm_gym.rollout.monitoring import Monitor, Summary
from prm_gym.store import EpisodeWriter, won_ids
from prm_gym.types import Policy


async def collect(
    games: Sequence[Task],
    policy: Policy,
    out: str | PathLike[str],
    *,
    rollouts_per_game: int = 1,
    max_games: int | None = None,
    max_episode_steps: int = 30,
    seed: int = 0,
    iteration: int = 0,
    concurrency: int = 64,
    max_failed_share: float = 0.05,
    share: tuple[int, int] = (0, 1),
    make_env: MakeEnv | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    wandb_project: str | None = None,
) -> Summary:
    """Collect episodes of `policy` into the store folder `out`; the same call resumes a stopped run.

    Parameters
    ----------
    games: the tasks to play, from `prm_gym.envs.games.find_games` or `NamedEnvironment.tasks`.
    policy: serves up to `concurrency` episodes at once; not closed here.
    max_games: sample this many of the games. A larger number later extends the same sample.
    iteration: n of pi_n, stored with every episode.
    max_failed_share: in [0, 1]; a larger share of failed episodes stops the run.
    share: (i, n) takes every n-th of the sampled games from the i-th on, for n processes.
    make_env: factory of a worker's environment, ALFWorld with the exact engine if None. A `NamedEnvironment` is
        recorded in provenance.json.

    Returns this run's counts. Raises `UserError` for bad arguments, a folder begun with other settings, or too many
    failures; finished episodes stay in the store.
    """
    out = Path(out)
    check(
        {"rollouts_per_game": rollouts_per_game, "max_episode_steps": max_episode_steps, "concurrency": concurrency},
        seed=seed,
        iteration=iteration,
        max_failed_share=max_failed_share,
    )
    drawn = draw_games(games, seed, max_games)
    shared: dict[str, Any] = {"max_episode_steps": max_episode_steps, "seed": seed, "iteration": iteration}
    settings = await settings_of(games, policy, **shared, make_env=make_env)
    make_env = make_env or alfworld(drawn, max_episode_steps)
    with (
        EpisodeWriter(out) as writer,
        Monitor(out, share=share, bar=progress, tensorboard=tensorboard, wandb_project=wandb_project) as monitor,
    ):
        claim_folder(out, settings)
        every = [
            _plan(game, index, seed, iteration, policy.policy_id)
            for game in drawn[share[0] :: share[1]]
            for index in range(rollouts_per_game)
        ]
        plans = [plan for plan in every if plan.episode_id not in writer.finished]
        won = won_ids(out) if len(plans) < len(every) else set()
        monitor.expect(len(every), len(every) - len(plans), sum(plan.episode_id in won for plan in every))
        await execute(
            plans,
            policy,
            writer,
            make_env,
            monitor,
            max_episode_steps=max_episode_steps,
            workers=concurrency,
            max_failed_share=max_failed_share,
        )
    return monitor.summary


async def settings_of(
    games: Sequence[Task],
    policy: Policy,
    *,
    max_episode_steps: int,
    seed: int,
    iteration: int = 0,
    make_env: MakeEnv | None = None,
) -> Settings:
    """Everything that an episode depends on, as `collect` writes it into provenance.json."""
    return {
        "kind": "collect",
        "policy": await policy.settings(),
        "policy_id": policy.policy_id,
        "games": of_games(games),
        "iteration": iteration,
        "seed": seed,
        "max_episode_steps": max_episode_steps,
        **settings_of_env(make_env),
    }


def rollout(games: Sequence[Task], policy: Policy, out: str | PathLike[str], **options: Any) -> Summary:
    """`collect` for callers without an event loop. Closes the policy's connections at the end."""
    return run_and_close(collect(games, policy, out, **options), policy)


def draw_games(games: Iterable[Task], seed: int, count: int | None = None) -> list[Task]:
    """The first `count` games in the order in which they are played. A game given twice is an error."""
    drawn = sorted(games, key=lambda game: (hash_id("game", seed, game.game_id), game.game_id))
    for one, after in pairwise(drawn):
        if one.game_id == after.game_id:
            raise UserError("games", f"{one.game_id} is given twice", "name each folder once")
    if not drawn:
        raise UserError("games", "there are none", "name a folder that holds games of the chosen split")
    if count is not None and not 0 < count <= len(drawn):
        raise UserError("max_games", f"got {count}, there are {len(drawn)} games", f"must be 1 to {len(drawn)}")
    return drawn[:count]


def _plan(game: Task, index: int, seed: int, iteration: int, policy_id: str) -> Plan:
    return Plan(
        episode_id=hash_id("collect", policy_id, iteration, seed, game.game_id, index),
        task=game,
        seed=hash_seed("collect", seed, game.game_id, index),
        iteration=iteration,
    )
