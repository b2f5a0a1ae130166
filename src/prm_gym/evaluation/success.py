"""Play evaluation games and summarise them as an entry of results.json."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.evaluation.intervals import wilson
from prm_gym.evaluation.results_file import add_result
from prm_gym.store import read_episodes
from prm_gym.types import Episode, Policy

if TYPE_CHECKING:
    from prm_gym.envs.contract import Task
    from prm_gym.rollout import Summary


Tokens = tuple[int, int]
"""(prompt tokens, response tokens)"""
Price = tuple[float, float]
"""The price of a million (prompt tokens, response tokens)"""


def evaluate(
    games: Sequence[Task],
    policy: Policy,
    out: Path,
    *,
    name: str,
    prm: str | None,
    mode: str,
    split: str,
    seed: int = 0,
    max_episode_steps: int = 30,
    price: Price | None = None,
    **options: Any,
) -> tuple[dict[str, Any], Summary]:
    """Play `games` and add the entry to `out`/results.json, for a policy alone with tokens and cost.

    `name` and `prm` are those of the entry, `mode` is `policy` or a best-of-N mode. The episodes go to a folder of
    `out` named by a digest of their settings, so evaluations under other settings do not mix, and the same command
    resumes. `options` are those of `rollout.collect`. Closes the policy. Returns the entry and the counts of the
    rollout. Raises `UserError` as `rollout.collect`, by default for any failed episode: success is that of all games;
    and as `refuse_rollouts`.
    """
    from prm_gym.rollout import rollout, settings_of

    refuse_rollouts(options)
    shared: dict[str, Any] = {"max_episode_steps": max_episode_steps, "seed": seed}
    settings = asyncio.run(settings_of(games, policy, **shared, make_env=options.get("make_env")))
    episodes = episodes_folder(out, name, mode, split, seed, settings)
    summary = rollout(games, policy, episodes, **shared, **{"max_failed_share": 0.0, **options})
    result = summarise(
        read_episodes(episodes), policy=name, prm=prm, mode=mode, split=split, seed=seed, settings=settings
    )
    if mode == "policy":  # best-of-N stores the tokens of the chosen responses alone
        result |= cost(tokens_of(read_episodes(episodes)), price)
    add_result(out / "results.json", result)
    return result, summary


def refuse_rollouts(options: Mapping[str, Any]) -> None:
    """Raise `UserError` for several rollouts of a game: entries and their intervals count each episode as a game."""
    if options.get("rollouts_per_game", 1) != 1:
        raise UserError("rollouts_per_game", "an evaluation plays each game once", "evaluate with several seeds")


def episodes_folder(out: Path, name: str, mode: str, split: str, seed: int, settings: Mapping[str, Any]) -> Path:
    """The folder of the episodes of an evaluation under `settings`."""
    return out / "_".join([name.replace("/", "_"), mode, split, str(seed), provenance.digest(settings)])


def tokens_of(episodes: Iterable[Episode]) -> Tokens:
    """Prompt and response tokens of all turns, as the policy reported them."""
    turns = [turn for episode in episodes for turn in episode.turns]
    return sum(turn.prompt_tokens for turn in turns), sum(turn.response_tokens for turn in turns)


def cost(tokens: Tokens, price: Price | None) -> dict[str, Any]:
    """The fields of an entry for `tokens`; "cost" is None without a price."""
    amount = None if price is None else (tokens[0] * price[0] + tokens[1] * price[1]) / 1e6
    return {"prompt_tokens": tokens[0], "response_tokens": tokens[1], "cost": amount}


def summarise(
    episodes: Iterable[Episode],
    *,
    policy: str,
    prm: str | None,
    mode: str,
    split: str,
    seed: int,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One entry of results.json. "return" is the mean undiscounted return in
    [0, 1], which is the success if only a win is rewarded.

    `settings` are those of the episodes (`provenance`). Raises `UserError` if there is no episode.
    """
    won: dict[str, list[bool]] = defaultdict(list)
    actions: list[int] = []
    returns: list[float] = []
    for episode in episodes:
        won[episode.task_type].append(episode.won)
        actions.append(episode.actions)
        returns.append(episode.total_reward)
    if not actions:
        raise UserError(split, "no episode to evaluate", "check the split and the number of games")
    wins = sum(map(sum, won.values()))
    return {
        "policy": policy,
        "prm": prm,
        "mode": mode,
        "split": split,
        "seed": seed,
        "games": len(actions),
        "success": wins / len(actions),
        "ci95": list(wilson(wins, len(actions))),
        "return": math.fsum(returns) / len(returns),
        "actions": sum(actions) / len(actions),
        "by_task_type": {kind: {"games": len(of), "success": sum(of) / len(of)} for kind, of in sorted(won.items())},
        **(_conditions(settings) if settings else {}),
    }


def _conditions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `CONDITIONS`, the N of best-of-N (None without), and the settings themselves."""
    policy, prompt = provenance.policy_of(settings), provenance.prompt_of(settings)
    return {
        "prompt": prompt and prompt["name"],
        "temperature": policy.get("temperature"),
        "max_new_tokens": policy.get("max_new_tokens"),
        "max_episode_steps": settings["max_episode_steps"],
        "shots": policy.get("react", {}).get("shots"),
        "search": policy.get("search"),
        "games_fingerprint": settings["games"]["fingerprint"],
        "best_of": settings["policy"].get("n"),
        "settings": dict(settings),
    }
