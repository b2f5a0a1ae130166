"""Branches: several actions from a state of a collected episode, and several continuations of each.

For every parent episode and chosen turn t, `samples` responses at s_t are drawn from the policy (or from `proposals`,
for example the same policy at a higher temperature). The candidates are the different environment actions among them,
in the order sampled; at most `actions_per_state` are kept. Each is executed in s_t `continuations` times, and the
policy plays on to the end. Every continuation is a whole episode in the store. Its `parent_id` and `branch_turn` = t
say that its turns before t are the parent's, replayed and checked against the parent's text. The action at t was
selected for being different, so it counts as a visit of (s_t, a) but is no sample of pi.

With demonstrations as parents, one action and one continuation, this gives rollouts from expert states (resets).

`branch_points.jsonl` stores the candidates of each parent as soon as they are drawn, so that a resumed run uses the
same candidates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from prm_gym import provenance
from prm_gym.envs.contract import Task
from prm_gym.errors import UserError
from prm_gym.journal import whole_lines
from prm_gym.provenance.fingerprints import of_games
from prm_gym.rollout.beginning import Failed, Plan
from prm_gym.rollout.concurrency import (
    Failures,
    MakeEnv,
    alfworld,
    check,
    claim_folder,
    execute,
    in_parallel,
    run_and_close,
    settings_of_env,
)
from prm_gym.rollout.episode import hash_id, hash_seed
from prm_gym.rollout.monitoring import Monitor, Summary
from prm_gym.store import EpisodeWriter, parts, read_episodes, won_ids
from prm_gym.store.parquet import read_columns
from prm_gym.types import Episode, Policy, PromptTooLong, Response, StopReason

POINTS = "branch_points.jsonl"


@dataclass(frozen=True, slots=True)
class Point:
    """A state to branch at, and the actions to execute there."""

    turn: int
    actions: tuple[Response, ...]  # different environment actions


async def branch(
    parents: str | PathLike[str] | Sequence[str | PathLike[str]],
    games: Sequence[Task],
    policy: Policy,
    out: str | PathLike[str],
    *,
    proposals: Policy | None = None,
    states_per_episode: int | None = None,
    actions_per_state: int = 2,
    continuations: int = 1,
    samples: int = 8,
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
    """Branch from the episodes in the store folder(s) `parents` into the store folder `out`.

    Parameters
    ----------
    games: must hold the parents' games.
    proposals: the policy that samples the actions at a state, `policy` if None. Q(s, a) is that of `policy`, which
        continues from there. A low temperature of `policy` gives returns with little noise, a high one of `proposals`
        more different actions.
    states_per_episode: the size of a seeded sample of a parent's turns; None takes all.
    samples: responses sampled at a state; at least `actions_per_state`.
    max_episode_steps: actions of an episode, the parent's included. Later turns of a longer parent are not branched.
    share: (i, n) takes the i-th of n shares of the parents, assigned by their ids, for n processes.

    The other arguments, the return value and the errors are those of `collect`.
    """
    out = Path(out)
    folders = [Path(parents)] if isinstance(parents, str | PathLike) else [Path(folder) for folder in parents]
    counts = {
        "states_per_episode": states_per_episode,
        "actions_per_state": actions_per_state,
        "continuations": continuations,
        "max_episode_steps": max_episode_steps,
        "concurrency": concurrency,
    }
    check(counts, seed=seed, iteration=iteration, max_failed_share=max_failed_share)
    if samples < actions_per_state:
        problem = f"{samples} samples cannot show {actions_per_state} different actions"
        raise UserError("actions_per_state", problem, f"must be at most {samples}")
    places = [folder.resolve() for folder in folders]
    if out.resolve() in places:
        raise UserError(out, "is a folder of parents too", "name another output folder")
    if len(set(places)) < len(places):
        raise UserError("parents", "a folder is given twice", "name each folder once")
    settings = {
        "kind": "branch",
        "policy": await policy.settings(),
        "policy_id": policy.policy_id,
        "proposals": None if proposals is None else await proposals.settings(),
        "parents": [provenance.identity(folder) for folder in folders],
        "games": of_games(games),
        "iteration": iteration,
        "seed": seed,
        "max_episode_steps": max_episode_steps,
        "states_per_episode": states_per_episode,
        "actions_per_state": actions_per_state,
        "samples": samples,
        **settings_of_env(make_env),
    }
    by_id = {game.game_id: game for game in games}
    _check_games(folders, by_id)
    make_env = make_env or alfworld(games, max_episode_steps)
    proposer = proposals or policy
    chooser = _Chooser(proposer, states_per_episode, actions_per_state, samples, seed, max_episode_steps)
    with (
        EpisodeWriter(out) as writer,
        Monitor(out, share=share, bar=progress, tensorboard=tensorboard, wandb_project=wandb_project) as monitor,
    ):
        claim_folder(out, settings)
        points = _read_points(out / POINTS)
        failures = Failures(out, monitor, max_failed_share)

        async def choose(parent: Episode) -> None:
            try:
                chosen = await chooser.points(parent, monitor)
            except Failed as failure:
                failures.record(failure, parent.game_id, parent.episode_id)
                return
            failures.well()
            points[parent.episode_id] = chosen
            line = {"parent_id": parent.episode_id, "points": [asdict(point) for point in chosen]}
            with (out / POINTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

        def shared() -> Iterator[Episode]:
            seen: dict[str, bytes] = {}  # an episode in several folders counts once
            for parent in read_episodes(*folders):
                if hash_seed("share", parent.episode_id) % share[1] != share[0]:
                    continue
                texts = parent.turns[-1].state_key
                if parent.episode_id not in seen:
                    seen[parent.episode_id] = texts
                    yield parent
                elif seen[parent.episode_id] != texts:
                    problem = f"hold two episodes {parent.episode_id}, of one policy under several settings"
                    raise UserError("parents", problem, "branch from these folders one by one")

        new = (parent for parent in shared() if parent.episode_id not in points)
        await in_parallel(new, choose, concurrency)
        failures.check()

        def branches_of(parent: str) -> Iterator[tuple[str, int, int, Response]]:
            """Id, seed, turn and first response of each."""
            for point in points.get(parent, ()):
                for number, action in enumerate(point.actions):
                    for index in range(continuations):
                        place = (seed, parent, point.turn, number, index)
                        episode_id = hash_id("branch", policy.policy_id, iteration, *place)
                        yield episode_id, hash_seed("branch", *place), point.turn, action

        def plans() -> Iterator[Plan]:
            for parent in shared():
                for episode_id, own_seed, turn, action in branches_of(parent.episode_id):
                    if episode_id not in writer.finished:
                        yield Plan(episode_id, by_id[parent.game_id], own_seed, iteration, parent, turn, action)

        mine = (parent for parent in points if hash_seed("share", parent) % share[1] == share[0])
        asked = {episode_id for parent in mine for episode_id, *_ in branches_of(parent)}
        monitor.expect(len(asked), len(asked & writer.finished), len(asked & won_ids(out)))
        await execute(
            plans(),
            policy,
            writer,
            make_env,
            monitor,
            max_episode_steps=max_episode_steps,
            workers=concurrency,
            max_failed_share=max_failed_share,
        )
    return monitor.summary


def rollout_branches(
    parents: str | PathLike[str] | Sequence[str | PathLike[str]],
    games: Sequence[Task],
    policy: Policy,
    out: str | PathLike[str],
    **options: Any,
) -> Summary:
    """`branch` for callers without an event loop. Closes the connections of both policies at the end."""
    closed = [policy, proposals] if (proposals := options.get("proposals")) else [policy]
    return run_and_close(branch(parents, games, policy, out, **options), *closed)


@dataclass(frozen=True, slots=True)
class _Chooser:
    """Draws the branch points of one parent; the arguments are those of `branch`."""

    policy: Policy
    states_per_episode: int | None
    actions_per_state: int
    samples: int
    seed: int
    max_episode_steps: int

    async def points(self, parent: Episode, monitor: Monitor) -> list[Point]:
        """The points in the order of their turns. Raises `Failed` when the policy fails."""
        turns = range(parent.branch_turn, min(parent.actions, self.max_episode_steps))
        drawn = sorted(turns, key=lambda t: hash_id("turn", self.seed, parent.episode_id, t))
        chosen = sorted(drawn[: self.states_per_episode])
        return [point for t in chosen if (point := await self._point(parent, t, monitor))]

    async def _point(self, parent: Episode, turn: int, monitor: Monitor) -> Point | None:
        place = (self.seed, parent.episode_id, turn)
        state = parent.state_at(turn)
        try:
            responses = await self.policy.act(state, n=self.samples, seed=hash_seed("point", *place))
        except PromptTooLong:
            return None
        except UserError:
            raise
        except Exception as error:  # as in `episode`: one failure must not end the others
            raise Failed(StopReason.POLICY_ERROR, turn, error) from error
        monitor.sampled(responses)
        actions: dict[str, Response] = {}
        for response in responses:
            actions.setdefault(response.action, response)
        return Point(turn, tuple(actions.values())[: self.actions_per_state])


def _check_games(folders: Sequence[Path], games: Mapping[str, Task]) -> None:
    """Raise `UserError` for a parent whose game is not among `games`."""
    for part in (part for folder in folders for part in parts(folder)):
        for game in pc.unique(read_columns(part, ["game_id"])["game_id"]).to_pylist():
            if game not in games:
                raise UserError("games", f"{game} of the parents in {part.parent} is not there", "name its folder")


def _read_points(file: Path) -> dict[str, list[Point]]:
    """The points already drawn, by parent. An incomplete last line is removed."""
    points = {}
    for number, text in enumerate(whole_lines(file), 1):
        try:
            line = json.loads(text)
            points[line["parent_id"]] = [_point(entry) for entry in line["points"]]
        except (ValueError, KeyError, TypeError) as error:
            problem = f"line {number} cannot be read ({error!r})"
            raise UserError(file, problem, "remove that line to draw the points of its parent again") from None
    return points


def _point(entry: dict[str, Any]) -> Point:
    actions = tuple(Response(**{**action, "token_ids": None}) for action in entry["actions"])
    return Point(entry["turn"], actions)
