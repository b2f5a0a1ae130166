"""The episodes that the trajectory browser shows, and Q(s, a) of the action taken and of every admissible command.

Games: the same ones from each evaluation of an iteration (or from its rollouts if it was not evaluated), from the task
types in turn, in an order drawn from the seed. The outcome plays no part in the choice.

Q: iter<n>/prm, which is Q_{n-1}. The action taken is scored with the response as sampled, an alternative with the same
reason (`Prompt.response`), so that only the action differs. Without a PRM checkpoint, or without torch, episodes are
shown without Q, and a note says why.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from itertools import chain, repeat, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import BestOf
from prm_gym.prm.scorer import Scorer
from prm_gym.report.episode_summaries import Store, who
from prm_gym.store import read_episodes
from prm_gym.types import Episode, PromptTooLong, Response
from prm_gym.unicode import well_formed

if TYPE_CHECKING:
    from prm_gym.prompts import Prompt

T = TypeVar("T")

_SCORED_AT_ONCE = 64  # sequences; bounds the memory, whatever the model


def sample(runs: list[dict[str, Any]], count: int, seed: int, tell: Callable[[str], object]) -> list[dict[str, Any]]:
    """At most `count` episodes of each store as plain dicts. All are read before any is scored, so an unreadable store
    is an error at once. `tell` is called with a line for each Q that is missing or damaged.

    An episode: {"id", "run", "policy", "mode", "split", "game", "task", "type", "won", "stop", "actions",
    "q" (name of Q or None), "turns": [{"o" observation, "c" commands, and unless last "a" action, "r" reason,
    "v" admissible, "q" Q of the action, "cq" [Q of each command]}]}.
    """
    chosen = [(run, n, folder, _chosen(of, count, seed)) for run in runs for n, folder, of in _groups(run)]
    shown: list[dict[str, Any]] = []

    def unless_missing(run: dict[str, Any], n: int, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except UserError as error:
            tell(f"{run['name']}: no Q_{n - 1} beside the episodes of iteration {n}: {error}")
            return None

    read_by_q = [
        None if n is None or not episodes else unless_missing(run, n, partial(_check_q, folder))
        for run, n, folder, episodes in chosen
    ]
    for (run, n, folder, episodes), prompt in zip(chosen, read_by_q, strict=True):
        scores = None
        if n is not None and prompt is not None:
            scores = unless_missing(run, n, partial(_scores, folder, prompt, episodes))
        for episode, of_turns in zip(episodes, scores or repeat(None), strict=False):
            used = None if of_turns is None else f"Q_{(n or 0) - 1}"
            shown.append({"run": run["name"], "q": used, **_as_dict(episode, of_turns, run["name"])})
    return shown


def _groups(run: dict[str, Any]) -> Iterator[tuple[int | None, Path, list[Store]]]:
    """(n, folder, stores) of each iteration: its evaluations, else its rollouts; then what `prm-gym evaluate` wrote."""
    for n in sorted({store.n for store in run["stores"] if store.n is not None}):
        of = [store for store in run["stores"] if store.n == n]
        yield n, run["path"] / f"iter{n}", [s for s in of if s.folder.name != "rollouts"] or of
    if others := [store for store in run["stores"] if store.n is None]:
        yield None, run["path"], others


def _chosen(stores: list[Store], count: int, seed: int) -> list[Episode]:
    return sorted((e for store in stores for e in _read(store.folder, _draw(store, count, seed))), key=_place)


def _place(episode: Episode) -> tuple[bool, str, int, str, str, str]:
    """Sort key on the page: policies alone before best-of-N, with the same order of games in each."""
    policy, mode = who(episode.policy_id)
    choice = BestOf.of_mode(mode)
    return mode != "policy", policy, choice.n if choice else 0, mode, episode.task_type, episode.game_id


def _draw(store: Store, count: int, seed: int) -> set[str]:
    """Ids of `count` episodes: games in an order drawn from the seed, task types in turn, one episode per game."""
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    for episode in reversed(store.episodes):  # of several of a game the first by its id
        kinds[episode["kind"]][episode["game"]] = episode["episode_id"]

    def order(game: str) -> bytes:
        return blake2b(f"{seed} {game}".encode(), digest_size=8).digest()

    in_turn = zip_longest(*([of[game] for game in sorted(of, key=order)] for _, of in sorted(kinds.items())))
    return set([episode for episode in chain.from_iterable(in_turn) if episode is not None][:count])


def _read(store: Path, ids: set[str]) -> list[Episode]:
    return [episode for episode in read_episodes(store) if episode.episode_id in ids] if ids else []


def _as_dict(episode: Episode, scores: list[list[float] | None] | None, run: str) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for t, turn in enumerate(episode.turns):
        shown: dict[str, Any] = {"o": turn.observation, "c": turn.admissible_commands}
        if turn.reward is not None:
            shown |= {"a": turn.action, "r": turn.reason, "v": turn.action_valid}
            if scores is not None and (of_turn := scores[t]) is not None:
                shown |= {"q": of_turn[0], "cq": of_turn[1:]}
        turns.append(shown)
    policy, mode = who(episode.policy_id)
    name = well_formed(f"{run} {episode.policy_id} {episode.episode_id}")
    return {
        "id": blake2b(name.encode(), digest_size=4).hexdigest(),
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


def _check_q(iteration: Path) -> Prompt:
    """The prompt that Q reads. Raises `UserError` if there is no Q, or it cannot be loaded; weights are not read."""
    checkpoint = iteration / "prm"
    if not (checkpoint / "config.json").is_file():
        raise UserError(checkpoint, "holds no PRM", "run the iteration's stage prm")
    prompt = prompts.load(_prompt_name(iteration))
    try:
        from prm_gym.inference.checkpoint import check_checkpoint
    except ImportError as error:
        raise UserError("Q", f"{error.name} is not installed", "pip install 'prm-gym[trl]'") from None
    check_checkpoint(checkpoint)
    return prompt


def _scores(iteration: Path, prompt: Prompt, episodes: list[Episode]) -> list[list[list[float] | None] | None]:
    """Per episode and executed turn: Q of the action taken, then of each admissible command in order; None for a turn
    over Q's context. Raises `UserError` if Q cannot be loaded.
    """
    from prm_gym.prm.in_process import PRMScorer

    scorer = PRMScorer(iteration / "prm", prompt=prompt, max_batch=_SCORED_AT_ONCE)
    return asyncio.run(score_turns(scorer, prompt, episodes))


async def score_turns(scorer: Scorer, prompt: Prompt, episodes: list[Episode]) -> list[list[list[float] | None] | None]:
    """As `_scores`, with any scorer, which is closed at the end."""

    async def score(episode: Episode, t: int) -> list[float] | None:
        state, turn = episode.state_at(t), episode.turns[t]
        commands = turn.admissible_commands or []
        texts = [turn.response, *(prompt.response(turn.reason, command) for command in commands)]
        actions = [turn.action, *commands]
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
        await scorer.close()


def _prompt_name(iteration: Path) -> str:
    """The prompt of the iteration's labels. Raises `UserError` if their manifest does not have it."""
    manifest = iteration / "dataset" / "prm" / "manifest.json"
    try:
        return str(json.loads(manifest.read_text("utf-8"))["settings"]["prompt"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(manifest, "does not say which prompt Q reads", "run the iteration's stage labels") from None
