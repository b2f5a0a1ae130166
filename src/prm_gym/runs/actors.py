"""The policies of one iteration, pi_n and BoN(pi_n, Q_{n-1}), in process or on the recipe's servers, and their games.

Policies are constructed inside the worker process, so callers pass a factory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.errors import UserError
from prm_gym.prompts import load
from prm_gym.provenance.fingerprints import of_folder, of_games, of_prompt, of_settings
from prm_gym.runs import recipe
from prm_gym.runs.recipe_sections import Branches, Recipe
from prm_gym.runs.servers import Served, Servers

if TYPE_CHECKING:
    from prm_gym.envs.contract import Task
    from prm_gym.policies.best_of_n import BestOf
    from prm_gym.prm.in_process import PRMScorer
    from prm_gym.prm.scorer import Scorer
    from prm_gym.rollout import Summary
    from prm_gym.types import Policy


class Actors:
    """The games, policies and Q of iteration n of the recipe in `folder`; `run` is the run folder."""

    def __init__(self, folder: Path, run: Path, iteration: int, host: str | None = None) -> None:
        if iteration < 0:
            raise UserError("ITER", f"{iteration} is no iteration", "iterations count from 1; ITER=0 makes pi_0 alone")
        self.folder, self.root, self.n = folder, run, iteration
        self.recipe: Recipe = recipe.load(folder)
        if host:
            self.recipe = replace(self.recipe, host=host)
        self.iter = run / f"iter{iteration}"
        self.servers = Servers(self.recipe.sampling, folder / "recipe.yaml", self.iter / "servers")

    def policy(self, n: int, step: int | None = None) -> Path:
        """The checkpoint of pi_n, or of a step of its training; step 0 is pi_{n-1}, where that training began."""
        if step is None:
            return self.root / f"pi_{n}"
        return self.root / f"iter{n}" / "policy" / f"checkpoint-{step}" if step else self.policy(n - 1)

    def games(self, split: str, count: int | None = None) -> Sequence[Task]:
        """The games of `split`. Raises `UserError` if there are fewer than `count`."""
        from prm_gym.envs.games import find_games

        games: Sequence[Task]
        if self.recipe.env is not None:
            games = self.recipe.env.tasks(split)
        else:
            path = self.recipe.games and self.recipe.games.path
            games = find_games(os.path.expandvars(path) if path else self.root / "games", split)
        if count is not None and count > len(games):
            problem = f"{count} games of {split} wanted, {len(games)} there"
            raise UserError(self.folder / "recipe.yaml", problem, "generate more or ask for fewer", field="games")
        return games

    @property
    def generates(self) -> bool:
        """Whether the games are the run's own: households that it generates."""
        return self.recipe.games is not None and self.recipe.games.path is None

    def made_from(self, *folders: Path, games: str | None = None) -> Callable[[], dict[str, Any]]:
        """The inputs of a stage: the prompt, the existing ones of `folders`, and the games of the split `games` unless
        the run generated them (the stage `games` records their settings).
        """

        def inputs() -> dict[str, Any]:
            found = {"prompt": of_prompt(load(self.recipe.prompt))}
            for folder in filter(Path.is_dir, folders):
                of_run = folder.is_relative_to(self.root)  # which may be moved
                name = os.path.relpath(folder, self.root) if of_run else os.path.abspath(folder)
                found[name] = of_folder(folder)
            if self.recipe.env is not None:
                found["env"] = of_settings(self.recipe.env.name, self.recipe.env.settings)
            if games is not None and not self.generates:
                found["games"] = of_games(self.games(games))
            return found

        return inputs

    def sampler(self, n: int, temperature: float | None = None, checkpoint: Path | None = None) -> Callable[[], Policy]:
        """A factory of pi_n, or of another checkpoint of its training: in process, or on servers, which are up now."""
        checkpoint = checkpoint or self.policy(n)
        served = self.servers.policy(checkpoint)
        return partial(_policy, self.recipe, checkpoint, f"pi_{n}", temperature, served)

    def relabeller(self, n: int) -> Policy:
        """pi_n for requests without episodes: on the recipe's Ray cluster, or as in `sampler`."""
        sampling = self.recipe.sampling
        if sampling.ray is None:
            return self.sampler(n)()
        from prm_gym.policies.on_ray import RayPolicy

        return RayPolicy(self.sampler(n), f"pi_{n}", sampling.ray, 2 * sampling.max_batch)

    def scorer(self) -> PRMScorer:
        """Q_{n-1} in process."""
        return _in_process(self.recipe, self.iter / "prm")

    def scoring(self) -> Callable[[], Scorer]:
        """A factory of Q_{n-1}: in process, or on servers, which are up now."""
        folder = self.iter / "prm"
        served = self.servers.prm(folder)
        return (
            partial(_in_process, self.recipe, folder)
            if served is None
            else partial(_served, self.recipe, folder, served)
        )

    def best_of(self, sampler: Callable[[], Policy], choice: BestOf) -> Callable[[], Policy]:
        """A factory of best-of-N by Q_{n-1}."""
        return partial(_best_of, sampler, self.scoring(), choice)

    def collect(self, games: Sequence[Task], policy: Callable[[], Policy], out: Path, **options: Any) -> dict[str, Any]:
        """Collect episodes into `out` with the factory `policy`, in the recipe's processes. Returns the counts."""
        return self._play(partial(_rollout, games, policy), out, **options)

    def branch(self, parents: Path, split: str, b: Branches, out: Path) -> dict[str, Any]:
        """Branch from the episodes in `parents` with pi_{n-1}, as `b` says. Returns the counts."""
        policy, hot = self.sampler(self.n - 1), None
        if b.temperature is not None:
            hot = self.sampler(self.n - 1, b.temperature)
        return self._play(
            partial(_rollout_branches, parents, self.games(split), policy, hot),
            out,
            states_per_episode=b.states_per_episode,
            actions_per_state=b.actions,
            continuations=b.continuations,
            iteration=self.n - 1,
        )

    def _play(self, play: Callable[..., Summary], out: Path, **options: Any) -> dict[str, Any]:
        from prm_gym.rollout import in_processes, on_ray

        sampling = self.recipe.sampling
        shared: dict[str, Any] = {"max_episode_steps": self.recipe.max_episode_steps}
        shared |= {"concurrency": 2 * sampling.max_batch, "make_env": self.recipe.env}
        work = partial(play, {**shared, **options})
        if sampling.ray:
            return on_ray(work, out, sampling.ray).as_dict()
        return in_processes(work, out, sampling.processes).as_dict()


def _policy(recipe: Recipe, checkpoint: Path, name: str, temperature: float | None, served: Served | None) -> Policy:
    """The policy in `checkpoint`. The rollout that uses it closes it."""
    s = recipe.sampling
    temperature = s.temperature if temperature is None else temperature
    if s.server or served:
        from prm_gym.inference.http_servers import OUTAGE
        from prm_gym.policies.server import ServerPolicy

        return ServerPolicy(
            served.urls if served else s.server,
            served.name if served else str(checkpoint),
            prompt=recipe.prompt,
            tokenizer=checkpoint,
            temperature=temperature,
            max_tokens=s.max_new_tokens,
            policy_id=name,
            concurrency=s.max_batch,
            outage=served.outage if served else OUTAGE,
        )
    from prm_gym.policies.transformers import TransformersPolicy

    return TransformersPolicy(
        checkpoint,
        prompt=recipe.prompt,
        temperature=temperature,
        max_new_tokens=s.max_new_tokens,
        max_batch=s.max_batch,
        policy_id=name,
    )


def _in_process(recipe: Recipe, folder: Path) -> PRMScorer:
    from prm_gym.prm.in_process import PRMScorer

    return PRMScorer(folder, prompt=recipe.prompt, max_batch=recipe.sampling.max_batch)


def _served(recipe: Recipe, folder: Path, served: Served) -> Scorer:
    from prm_gym.prm.served import ServedPRMScorer

    return ServedPRMScorer(
        served.urls,
        served.name,
        prompt=recipe.prompt,
        tokenizer=folder,
        concurrency=recipe.sampling.max_batch,
        outage=served.outage,
    )


def _best_of(sampler: Callable[[], Policy], scoring: Callable[[], Scorer], choice: BestOf) -> Policy:
    from prm_gym.policies.best_of_n import BestOfN

    return BestOfN(sampler(), scoring(), **asdict(choice))


def _rollout(
    games: Sequence[Task], policy: Callable[[], Policy], options: dict[str, Any], out: Path, share: tuple[int, int]
) -> Summary:
    from prm_gym.rollout import rollout

    return rollout(games, policy(), out, share=share, progress=share[0] == 0, **options)


def _rollout_branches(
    parents: Path,
    games: Sequence[Task],
    policy: Callable[[], Policy],
    hot: Callable[[], Policy] | None,
    options: dict[str, Any],
    out: Path,
    share: tuple[int, int],
) -> Summary:
    from prm_gym.rollout import rollout_branches

    proposals = hot() if hot else None
    options = {"proposals": proposals, "share": share, "progress": share[0] == 0, **options}
    return rollout_branches(parents, games, policy(), out, **options)
