"""Many episodes at once, into one store folder.

Each of `workers` asyncio tasks takes the next plan, plays it in its own environment and adds the whole episode to the
store. While one task awaits the policy, the event loop steps the others. Beside the store's parts the folder holds

    provenance.json  the settings; a run with the same settings resumes, one with others is refused
    failures.jsonl   the failures of the last run, with stop reason and text; the next run tries those episodes again
    metrics.jsonl    see `monitoring`

A failed episode is not stored, because its return is unknown.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from prm_gym import provenance
from prm_gym.envs.alfworld import ALFWorldEnv
from prm_gym.envs.contract import CheckedEnvironment, Environment, Task
from prm_gym.envs.games import Game
from prm_gym.envs.named import NamedEnvironment
from prm_gym.errors import INT32, INT64, UserError, check_range
from prm_gym.rollout.beginning import Beginnings, Failed, Plan
from prm_gym.rollout.episode import play
from prm_gym.rollout.monitoring import Monitor
from prm_gym.store import EpisodeWriter
from prm_gym.store.episodes import part_files
from prm_gym.types import Policy, StopReason

FAILURES = "failures.jsonl"
FEWEST_TO_JUDGE = 20  # tries before the share of failures can end a run

MakeEnv: TypeAlias = Callable[[], "Environment | CheckedEnvironment"]
T = TypeVar("T")


class Closable(Protocol):
    async def close(self) -> None: ...


class Failures:
    """Writes failures to failures.jsonl and ends the run when their share exceeds `max_share`."""

    def __init__(self, out: Path, monitor: Monitor, max_share: float) -> None:
        self._file, self._monitor, self._max_share = out / FAILURES, monitor, max_share
        self._failed = self._tried = 0

    def well(self) -> None:
        self._tried += 1

    def record(self, failure: Failed, game_id: str, episode_id: str) -> None:
        """Raises `UserError` when the limit is exceeded, after at least `FEWEST_TO_JUDGE` tries."""
        self._tried += 1
        self._failed += 1
        self._monitor.failed()
        self._last = " ".join(str(failure).split())
        line = {
            "episode_id": episode_id,
            "game_id": game_id,
            "turn": failure.turn,
            "stop_reason": failure.stop_reason.value,
            "reason": str(failure),
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._tried >= FEWEST_TO_JUDGE:
            self.check()

    def check(self) -> None:
        """Raises `UserError` when the limit is exceeded."""
        if self._failed > self._max_share * self._tried:
            raise UserError(
                self._file,
                f"{self._failed} of {self._tried} failed, above the share of {self._max_share:g}; "
                f"the last: {self._last}",
                "remove the cause and give the same command again (finished episodes are kept)",
            )


async def execute(
    plans: Iterable[Plan],
    policy: Policy,
    writer: EpisodeWriter,
    make_env: MakeEnv,
    monitor: Monitor,
    *,
    max_episode_steps: int,
    workers: int,
    max_failed_share: float,
) -> None:
    """Play every plan and add every finished episode to the store, where it stays if an error ends the run.

    Raises `UserError` when too many episodes fail, or when the policy raises one, since it concerns all episodes.
    """
    failures = Failures(writer.folder, monitor, max_failed_share)
    idle: list[CheckedEnvironment] = []
    with ThreadPoolExecutor(1, "prm_gym-blocking") as thread:
        beginnings = Beginnings(thread)

        async def one(plan: Plan) -> None:
            env = None
            try:
                env = idle.pop() if idle else _construct(make_env)
                episode = await play(
                    plan,
                    env,
                    policy,
                    max_episode_steps=max_episode_steps,
                    beginnings=beginnings,
                    on_response=monitor.responded,
                )
            except BaseException as error:
                if env is not None:
                    env.close()  # in whatever state the failure left it
                if not isinstance(error, Failed):
                    raise
                failures.record(error, plan.task.game_id, plan.episode_id)
            else:
                idle.append(env)
                await asyncio.get_running_loop().run_in_executor(thread, writer.add, episode)
                monitor.finished(episode)
                failures.well()

        try:
            await in_parallel(plans, one, workers)
        finally:
            for env in idle:
                env.close()
    failures.check()


async def in_parallel(items: Iterable[T], work: Callable[[T], Awaitable[None]], workers: int) -> None:
    """Apply `work` to the items in order, `workers` at once. The first error cancels the rest and is raised."""
    rest = iter(items)
    first = list(islice(rest, workers))  # one worker for each, so there are never more workers than items
    queue = chain(first, rest)

    async def worker() -> None:
        for item in queue:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in first]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run_and_close(work: Coroutine[Any, Any, T], *closed: Closable) -> T:
    """Run `work` in an event loop of its own and close the policies, scorers or worlds before the loop ends."""

    async def main() -> T:
        try:
            return await work
        finally:
            for each in closed:
                await each.close()

    return asyncio.run(main())


def _construct(make_env: MakeEnv) -> CheckedEnvironment:
    try:
        env = make_env()
    except UserError:
        raise
    except Exception as error:
        raise Failed(StopReason.ENV_ERROR, 0, error) from error
    return env if isinstance(env, CheckedEnvironment) else CheckedEnvironment(env)


def settings_of_env(make_env: MakeEnv | None) -> dict[str, Any]:
    """The settings of a `NamedEnvironment` for provenance.json; none for ALFWorld, which its games describe."""
    return {"env": make_env.settings} if isinstance(make_env, NamedEnvironment) else {}


def alfworld(games: Sequence[Task], max_episode_steps: int) -> MakeEnv:
    """A factory of environments that play `games` on the exact engine."""

    def make_env() -> Environment:
        return cast(Environment, ALFWorldEnv(cast(Sequence[Game], games), max_episode_steps=max_episode_steps))

    return make_env


def check(counts: Mapping[str, int | None], *, seed: int, iteration: int, max_failed_share: float) -> None:
    """Raises `UserError` for a count below 1, a negative seed or iteration, or a share outside [0, 1]."""
    for name, count in counts.items():
        if count is not None:
            check_range(name, count, least=1, most=INT32)
    check_range("seed", seed, least=0, most=INT64)
    check_range("iteration", iteration, least=0, most=INT32)
    check_range("max_failed_share", max_failed_share, least=0, most=1)


def claim_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Begin the folder with `settings`, or check that it was begun with the same.

    Raises `UserError` if it was begun with others, or has episodes of unknown settings.
    """
    if part_files(out) and provenance.read(out) is None:
        raise UserError(out, f"holds episodes without a {provenance.FILE}", "name another output folder")
    provenance.claim(out, settings)
    (out / FAILURES).unlink(missing_ok=True)
