"""The episodes that the trajectory browser shows, and Q(s, a) of the action taken and of every admissible command.

Which: of each evaluation of an iteration (of its rollouts where it was not evaluated) the same games, taken from the
task types in turn, in an order drawn from the seed. Nothing is chosen by its outcome.

Which Q: iter<n>/prm, that is Q_{n-1}. The action taken is scored as the response that was given; an alternative as
`Prompt.response` writes it with the same reason, so that only the action differs. Without a PRM checkpoint, or
without torch, the episodes are shown without Q, and a note says why.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from hashlib import blake2b
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.prm_quality import Scorer
from prm_gym.store import parts, read_episodes
from prm_gym.types import Episode, PromptTooLong, Response

if TYPE_CHECKING:
    from prm_gym.prompts import Prompt

_BEST_OF = re.compile(r"(best_of_[^()]+)\((.*)\)")
_SCORED_AT_ONCE = 64  # sequences; bounds the memory, whatever the model


def sample(runs: list[dict[str, Any]], count: int, seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """At most `count` episodes of each store as plain dicts, and notes on what is missing.

    An episode: {"run", "policy", "mode", "split", "game", "task", "type", "won", "stop", "actions",
    "q" (name of Q or None), "turns": [{"o" observation, "c" commands, and unless last "a" action, "r" reason,
    "v" admissible, "q" Q of the action, "cq" [Q of each command]}]}.
    """
    shown: list[dict[str, Any]] = []
    notes: list[str] = []
    for run in runs:
        for iteration in run["iterations"]:
            stores = _stores(iteration["folder"])
            chosen = [episode for store in stores for episode in _read(store, _draw(store, count, seed))]
            if not chosen:
                continue
            chosen.sort(key=_place)
            q = f"Q_{iteration['n'] - 1}"
            try:
                scores = _scores(iteration["folder"], chosen)
            except UserError as error:
                notes.append(f"{run['name']}: no {q} beside the episodes of iteration {iteration['n']}: {error}")
                scores = [None] * len(chosen)
            for episode, of_turns in zip(chosen, scores, strict=True):
                used = None if of_turns is None else q
                shown.append({"run": run["name"], "q": used, **_as_dict(episode, of_turns)})
    return shown, notes


def _stores(iteration: Path) -> list[Path]:
    """Episode stores of the evaluations, else of the rollouts."""
    found = sorted(path for path in iteration.glob("eval/*/episodes") if any(path.glob("*.parquet")))
    if not found and any((iteration / "rollouts").glob("*.parquet")):
        found = [iteration / "rollouts"]
    return found


def _who(policy_id: str) -> tuple[str, str]:
    """Policy and mode, as results.json has them: (`pi_1`, `best_of_4`) of `best_of_4(pi_1)`."""
    match = _BEST_OF.fullmatch(policy_id)
    return (match[2], match[1]) if match else (policy_id, "policy")


def _place(episode: Episode) -> tuple[bool, str, str, str, str]:
    """The order on the page: policies alone before best-of-N, and the same order of games in each."""
    policy, mode = _who(episode.policy_id)
    return mode != "policy", policy, mode, episode.task_type, episode.game_id


def _draw(store: Path, count: int, seed: int) -> set[str]:
    """Ids of `count` episodes: games in an order drawn from the seed, task types in turn, one episode a game."""
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    for part in parts(store):
        rows = pq.read_table(part, columns=["task_type", "game_id", "episode_id"])
        for kind, game, episode in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
            kinds[kind][game] = min(kinds[kind].get(game, episode), episode)

    def order(game: str) -> bytes:
        return blake2b(f"{seed} {game}".encode(), digest_size=8).digest()

    in_turn = zip_longest(*([of[game] for game in sorted(of, key=order)] for _, of in sorted(kinds.items())))
    return set([episode for episode in chain.from_iterable(in_turn) if episode is not None][:count])


def _read(store: Path, ids: set[str]) -> list[Episode]:
    return [episode for episode in read_episodes(store) if episode.episode_id in ids] if ids else []


def _as_dict(episode: Episode, scores: list[list[float] | None] | None) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for t, turn in enumerate(episode.turns):
        shown: dict[str, Any] = {"o": turn.observation, "c": turn.admissible_commands}
        if turn.reward is not None:
            shown |= {"a": turn.action, "r": turn.reason, "v": turn.action_valid}
            if scores is not None and (of_turn := scores[t]) is not None:
                shown |= {"q": of_turn[0], "cq": of_turn[1:]}
        turns.append(shown)
    policy, mode = _who(episode.policy_id)
    return {
        "policy": policy,
        "mode": mode,
        "split": episode.split,
        "game": episode.game_id,
        "task": episode.task,
        "type": episode.task_type,
        "won": episode.won,
        "stop": str(getattr(episode.stop_reason, "value", episode.stop_reason)),
        "actions": episode.actions,
        "turns": turns,
    }


# --- Q ------------------------------------------------------------------------------------------------------------


def _scores(iteration: Path, episodes: list[Episode]) -> list[list[list[float] | None] | None]:
    """Per episode and executed turn: Q of the action taken, then of each admissible command in order; None for a turn
    over Q's context. Raises `UserError` if Q cannot be loaded.
    """
    checkpoint = iteration / "prm"
    if not (checkpoint / "config.json").is_file():
        raise UserError(checkpoint, "holds no PRM", "run the iteration's stage prm")
    prompt = prompts.load(_prompt_name(iteration))
    try:
        from prm_gym.policies.prm import PRMScorer
    except ImportError as error:
        raise UserError("Q", f"{error.name} is not installed", "pip install 'prm-gym[trl]'") from None
    try:
        scorer = PRMScorer(checkpoint, prompt=prompt, max_batch=_SCORED_AT_ONCE)
    except UserError:
        raise
    except Exception as error:  # a damaged checkpoint raises whatever its format's library likes
        raise UserError(checkpoint, f"cannot be loaded ({error})", "train it again") from error
    return asyncio.run(score_turns(scorer, prompt, episodes))


async def score_turns(scorer: Scorer, prompt: Prompt, episodes: list[Episode]) -> list[list[list[float] | None] | None]:
    """As `_scores`, with any scorer; it is closed at the end if it can be."""

    async def score(episode: Episode, t: int) -> list[float] | None:
        state, turn = episode.state_at(t), episode.turns[t]
        texts = [turn.response, *(prompt.response(turn.reason, command) for command in turn.admissible_commands)]
        actions = [turn.action, *turn.admissible_commands]
        pairs = [(state, Response(text, turn.reason, action)) for text, action in zip(texts, actions, strict=True)]
        try:
            return [round(q, 4) for q in await scorer.score(pairs)]
        except PromptTooLong:
            return None

    try:
        return [
            list(await asyncio.gather(*(score(episode, t) for t in range(episode.actions)))) for episode in episodes
        ]
    finally:
        if close := getattr(scorer, "close", None):
            await close()


def _prompt_name(iteration: Path) -> str:
    """The prompt that the iteration's labels were rendered with. Raises `UserError` if its manifest does not say."""
    manifest = iteration / "dataset" / "prm" / "manifest.json"
    try:
        return str(json.loads(manifest.read_text("utf-8"))["settings"]["prompt"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(manifest, "does not say which prompt Q reads", "run the iteration's stage labels") from None
