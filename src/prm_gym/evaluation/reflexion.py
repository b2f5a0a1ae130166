"""Reflexion: several trials of every game, with a lesson in words between them (Shinn et al. 2023).

Trial 1 plays all games. After trial k the model writes a lesson about every game that it lost, and trial k + 1 plays
these games again with the lessons in the prompt. *Success after trial k* is the share of all games won in one of the
trials 1 to k, so it never falls, and only that after trial 1 compares with policies that play a game once. `actions` is
that of each game's last trial, and tokens and cost are those of all trials up to k with the lessons they read.

A stopped run resumes: the episodes of a trial are a rollout folder, and `lessons.jsonl` in it holds the lessons.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.errors import UserError, check_range
from prm_gym.evaluation.results_file import add_result
from prm_gym.evaluation.success import Price, Tokens, cost, episodes_folder, refuse_rollouts, summarise, tokens_of
from prm_gym.inference.http_answers import RequestFailed
from prm_gym.journal import whole_lines
from prm_gym.policies.react import ReActPolicy
from prm_gym.policies.reflection import REMEMBERED, reflect
from prm_gym.prompts import Prompt
from prm_gym.store import read_episodes
from prm_gym.types import ChatModel, Episode, PromptTooLong

if TYPE_CHECKING:
    from prm_gym.envs.contract import Task

LESSONS = "lessons.jsonl"
Lessons = Mapping[str, Sequence[str]]


async def reflexion(
    games: Sequence[Task],
    model: ChatModel,
    prompt: Prompt,
    out: Path,
    *,
    make_policy: Callable[[Lessons], ReActPolicy],
    trials: int,
    split: str,
    seed: int = 0,
    max_episode_steps: int = 30,
    price: Price | None = None,
    max_games: int | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Play up to `trials` trials and add an entry of mode `trial_k` to `out`/results.json after each. Stops early when
    every game is won. Returns the entries; `model` is not closed.

    `make_policy` gives the policy with lessons by game_id; `options` are those of `rollout.collect`. Raises `UserError`
    as `rollout.collect`, what was collected stays; and as `success.refuse_rollouts`.
    """
    from prm_gym.rollout import collect, draw_games, settings_of

    check_range("trials", trials, least=1)
    refuse_rollouts(options)
    shared: dict[str, Any] = {"max_episode_steps": max_episode_steps, "seed": seed}
    lessons: dict[str, list[str]] = defaultdict(list)
    latest: dict[str, Episode] = {}  # by game
    spent: Tokens = (0, 0)
    entries: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    left = list(games)
    for trial in range(1, trials + 1):
        policy = make_policy({game: notes[-REMEMBERED:] for game, notes in lessons.items()})
        settings = await settings_of(left, policy, **shared, make_env=options.get("make_env"))
        first = first or settings
        mode = f"trial_{trial}"
        folder = episodes_folder(out, policy.policy_id, mode, split, seed, settings)
        drawn_from = max_games if trial == 1 else None
        await collect(left, policy, folder, max_games=drawn_from, **shared, **{"max_failed_share": 0.0, **options})
        drawn = {game.game_id: game for game in draw_games(left, seed, drawn_from)}
        played = {episode.game_id: episode for episode in read_episodes(folder) if episode.game_id in drawn}
        latest |= played
        spent = _sum(spent, tokens_of(played.values()))
        entry = summarise(
            latest.values(), policy=policy.policy_id, prm=None, mode=mode, split=split, seed=seed,
            settings={**first, "trials": trial},
        )  # fmt: skip
        entries.append({**entry, **cost(spent, price)})
        add_result(out / "results.json", entries[-1])
        left = [game for name, game in drawn.items() if not (name in latest and latest[name].won)]
        if not left:
            break
        if trial < trials:
            lost = [episode for episode in played.values() if not episode.won]
            spent = _sum(spent, await _reflect(model, lost, prompt, lessons, folder / LESSONS, seed, options))
    return entries


async def _reflect(
    model: ChatModel,
    lost: Sequence[Episode],
    prompt: Prompt,
    lessons: dict[str, list[str]],
    journal: Path,
    seed: int,
    options: Mapping[str, Any],
) -> Tokens:
    """Add a lesson of each lost episode to `lessons`, from the journal or the model. Returns the tokens of all.

    An episode that is too long for the model gives no lesson. Raises `UserError` if the model fails.
    """
    from prm_gym.rollout.concurrency import in_parallel
    from prm_gym.rollout.episode import hash_seed

    known = _read(journal)
    with journal.open("a", encoding="utf-8") as lines:

        async def one(episode: Episode) -> None:
            draw = hash_seed("lesson", seed, episode.episode_id)
            entry: dict[str, Any] = {"lesson": "", "tokens": [0, 0]}
            try:
                response = await reflect(model, episode, prompt, lessons.get(episode.game_id, ()), draw)
            except PromptTooLong:
                pass
            except RequestFailed as error:
                raise UserError(journal, f"no lesson of {episode.game_id} ({error})", "run it again") from error
            else:
                lesson = " ".join(response.text.split())
                entry = {"lesson": lesson, "tokens": [response.prompt_tokens, response.response_tokens]}
            known[episode.episode_id] = entry
            lines.write(json.dumps({"episode_id": episode.episode_id, **entry}) + "\n")
            lines.flush()

        new = (episode for episode in lost if episode.episode_id not in known)
        await in_parallel(new, one, options.get("concurrency", 64))
    spent: Tokens = (0, 0)
    for episode in lost:
        entry = known[episode.episode_id]
        if entry["lesson"]:
            lessons[episode.game_id].append(entry["lesson"])
        spent = _sum(spent, entry["tokens"])
    return spent


def _read(journal: Path) -> dict[str, dict[str, Any]]:
    """The lessons by episode_id. A torn last line is removed."""
    try:
        return {line["episode_id"]: line for line in map(json.loads, whole_lines(journal))}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(journal, f"cannot be read ({error!r})", "move it away to write these lessons again") from None


def _sum(one: Tokens, other: Sequence[int]) -> Tokens:
    return one[0] + other[0], one[1] + other[1]
