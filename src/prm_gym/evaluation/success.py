"""Success rates from evaluation episodes, with 95% intervals, and a table in the form of the paper's Table 1."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from prm_gym import provenance
from prm_gym.atomic import write_json
from prm_gym.errors import UserError
from prm_gym.store import read_episodes
from prm_gym.types import Episode, Policy

if TYPE_CHECKING:
    from prm_gym.envs.contract import Task
    from prm_gym.rollout import Summary

TASK_TYPES = {
    "pick_and_place_simple": "Pick",
    "pick_clean_then_place_in_recep": "Clean",
    "pick_heat_then_place_in_recep": "Heat",
    "pick_cool_then_place_in_recep": "Cool",
    "look_at_obj_in_light": "Look",
    "pick_two_obj_and_place": "Pick 2",
}
Z95 = 1.959963984540054  # of the normal distribution: 95% lie within as many deviations
KEY = ("policy", "prm", "mode", "split", "seed")
# What else an evaluation depends on, and how a table says it; None in an entry of a version that did not write it.
CONDITIONS = {
    "prompt": "prompt {}",
    "temperature": "T {:g}",
    "max_new_tokens": "{} tokens",
    "max_episode_steps": "{} steps",
    "games_fingerprint": "games {:.8}",
}


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95% Wilson score interval of a proportion (Wilson 1927); [0, 1] where there is no sample."""
    if n == 0:
        return 0.0, 1.0
    z = Z95
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


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
    **options: Any,
) -> tuple[dict[str, Any], Summary]:
    """Play, and put the entry into `out`/results.json: a policy called `name`, best-of-N by `prm` if `mode` says so.

    The episodes lie in a folder of `out` that is named by a digest of all their settings, so that evaluations under
    other settings stand beside each other and the same command goes on. `options` are those of `rollout.collect`.
    Closes the policy. Returns the entry and the counts of the rollout; raises `UserError` as `rollout.collect`.
    """
    from prm_gym.rollout import rollout, settings_of

    shared: dict[str, Any] = {"max_episode_steps": max_episode_steps, "seed": seed}
    settings = asyncio.run(settings_of(games, policy, **shared, make_env=options.get("make_env")))
    named = [name.replace("/", "_"), mode, split, str(seed), provenance.digest(settings)]
    episodes = out / "_".join(named)
    summary = rollout(games, policy, episodes, **shared, **options)
    result = summarise(
        read_episodes(episodes), policy=name, prm=prm, mode=mode, split=split, seed=seed, settings=settings
    )
    add_result(out / "results.json", result)
    return result, summary


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
    """One entry of results.json. An episode that failed for any reason counts as a game that was not solved. "return"
    is the mean undiscounted return, in [0, 1]: the share of wins, where a win alone is rewarded.

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
        "games_fingerprint": settings["games"]["fingerprint"],
        "best_of": settings["policy"].get("n"),
        "settings": dict(settings),
    }


def read_results(path: Path) -> list[dict[str, Any]]:
    """The entries of a results.json; none if there is no such file. Raises `UserError` if it is not one."""
    if not path.exists():
        return []
    try:
        results = json.loads(path.read_text("utf-8"))
        if not all({*KEY, "success", "ci95"} <= entry.keys() for entry in results):
            raise ValueError("an entry lacks its keys")
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(path, f"not a results file ({error})", "move it away") from None
    return list(results)


def add_result(path: Path, result: dict[str, Any], *, keep_larger: bool = False) -> None:
    """Add `result` to the list in `path`, in place of an entry of the same `KEY` and `CONDITIONS`; with `keep_larger`
    an entry of more games stays instead.
    """
    results = read_results(path)
    fields = (*KEY, *CONDITIONS)
    same = [entry for entry in results if all(entry.get(field) == result.get(field) for field in fields)]
    if keep_larger and any(entry["games"] > result["games"] for entry in same):
        return
    write_json(path, [*(entry for entry in results if entry not in same), result])


def has_returns(entry: Mapping[str, Any]) -> bool:
    """Whether an entry's mean return says more than its success; entries of older versions have none."""
    return abs(float(entry.get("return", entry["success"])) - float(entry["success"])) > 1e-6


def name(policy: str, mode: str, prm: str | None) -> str:
    """`pi_1` of mode `policy`, else with all that its mode says: `Bo16_weight1(pi_1, Q_0)`."""
    return policy if mode == "policy" else f"Bo{mode.removeprefix('best_of_')}({policy}, {prm})"


def told_apart(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """What to say after the name of each entry, `T 1, seed 2`, where several have the same; else nothing."""
    said: list[str] = []
    for entry, name in zip(entries, names, strict=True):
        alike = [other for other, its in zip(entries, names, strict=True) if its == name]
        differing = [
            words.format(entry[field])
            for field, words in {**CONDITIONS, "seed": "seed {}"}.items()
            if len({other.get(field) for other in alike}) > 1 and entry.get(field) is not None
        ]
        if len(alike) > 1 and all(entry.get(field) is None for field in CONDITIONS):
            differing.append("settings unknown")
        said.append(", ".join(differing))
    return said


def table(results: Iterable[dict[str, Any]]) -> Table:
    """A terminal table: success in % with its interval, mean return where it is not the success, mean actions, and
    success by task type (those of ALFWorld, or those that are there). All numbers of ALFWorld are there in 80 columns:
    a long policy's name goes on in the next line.
    """
    title = "Success by split (95% interval)"
    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    out.add_column("Policy and split", overflow="fold")
    results = list(results)
    found = {kind for entry in results for kind in entry["by_task_type"]}
    kinds = TASK_TYPES if found <= TASK_TYPES.keys() else {kind: kind for kind in sorted(found)}
    rewarded = any(has_returns(entry) for entry in results)
    for column in ("Games", "All %", "95%", *(["Return"] if rewarded else []), "Actions", *kinds.values()):
        out.add_column(column, justify="right", no_wrap=True)
    names = [f"{name(entry['policy'], entry['mode'], entry['prm'])} {entry['split']}" for entry in results]
    for entry, row, apart in zip(results, names, told_apart(results, names), strict=True):
        by_type = entry["by_task_type"]
        low, high = entry["ci95"]
        out.add_row(
            f"{row}, {apart}" if apart else row,
            str(entry["games"]),
            f"{100 * entry['success']:.1f}",
            f"{100 * low:.0f}-{100 * high:.0f}",
            *([f"{entry['return']:.3f}" if "return" in entry else "-"] if rewarded else []),
            f"{entry['actions']:.1f}",
            *(f"{100 * by_type[kind]['success']:.0f}" if kind in by_type else "-" for kind in kinds),
        )
    return out
