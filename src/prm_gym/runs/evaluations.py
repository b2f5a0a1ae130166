"""The stages that evaluate Q_{n-1} and pi_n, on held-out games."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prm_gym import provenance
from prm_gym.atomic import write_json
from prm_gym.evaluation.results_file import add_result
from prm_gym.evaluation.results_table import name as display_name
from prm_gym.evaluation.success import summarise
from prm_gym.policies.best_of_n import BestOf
from prm_gym.runs.actors import Actors
from prm_gym.runs.stage import Cost, Stage

if TYPE_CHECKING:
    from prm_gym.evaluation.prm_quality import Quality


class Evaluations(Actors):
    """The evaluations of one iteration."""

    def held_out(self, games: int | None = None) -> Stage:
        """Episodes and branches of pi_{n-1} on held-out games, for evaluating Q_{n-1}: as the recipe's `quality` says,
        on `games` games if given.
        """
        assert self.recipe.quality is not None
        wanted = self.recipe.quality
        folder = "held_out" if games in (None, wanted.games) else f"held_out_{games}"
        wanted, out = replace(wanted, games=games or wanted.games), self.iter / "eval" / folder

        def make() -> dict[str, Any]:
            chosen, policy = self.games(wanted.split, wanted.games), self.sampler(self.n - 1)
            self.collect(chosen, policy, out / "rollouts", max_games=wanted.games, iteration=self.n - 1, seed=1)
            return self.branch(out / "rollouts", wanted.split, wanted.branches, out / "branches")

        r = self.recipe
        settings = {**asdict(wanted), "sampling": asdict(r.sampling), "prompt": r.prompt}
        settings["max_episode_steps"] = r.max_episode_steps
        inputs = self.made_from(self.policy(self.n - 1), games=wanted.split)
        episodes = wanted.games * (1 + wanted.branches.most_per_episode)
        servers = self.servers.commands(self.policy(self.n - 1))
        cost = Cost.of_episodes(episodes, self.recipe.max_episode_steps, servers)
        return Stage(f"held-out branches of pi_{self.n - 1}", out, settings, make, inputs, cost)

    def quality(self, held_out: Path) -> Quality:
        """Evaluate Q_{n-1} on the folder of a `held_out` stage, of this run or of one with the same pi_{n-1}."""
        from prm_gym.evaluation.prm_quality import measure
        from prm_gym.rollout.concurrency import run_and_close
        from prm_gym.store import read_episodes

        episodes = read_episodes(held_out / "rollouts", held_out / "branches")
        levels = self.recipe.labels.kind not in ("preferences", "inverse")  # their Q compares actions at one state only
        scorer = self.scoring()()
        return run_and_close(measure(episodes, scorer, gamma=self.recipe.gamma, levels=levels), scorer)

    def quality_stage(self) -> Stage:
        """`quality` on the recipe's held-out games, into eval/prm/quality.json."""
        out = self.iter / "eval" / "prm"

        def make() -> dict[str, Any]:
            quality = self.quality(self.held_out().out)
            write_json(out / "quality.json", quality.as_dict())
            Console().print(quality.summary())
            return {"quality": quality.as_dict()}

        settings = {"gamma": self.recipe.gamma, "prompt": self.recipe.prompt}
        inputs = self.made_from(self.iter / "prm", self.held_out().out)
        played = self.held_out().cost.episodes
        cost = Cost(episodes=played, servers=self.servers.commands(None, self.iter / "prm"))
        return Stage(f"Q_{self.n - 1} on held-out games", out, settings, make, inputs, cost)

    def evaluation(
        self,
        n: int,
        *,
        best_of: BestOf | None = None,
        step: int | None = None,
        games: int | None = None,
        split: str | None = None,
    ) -> Stage:
        """Success of pi_n, or of BoN(pi_n, Q) with this iteration's Q, into results.json.

        `step` evaluates the checkpoint of that training step instead of pi_n; `games` and `split` replace the
        recipe's. An entry of results.json on more games is kept.
        """
        e, r = self.recipe.evaluation, self.recipe
        e = replace(e, games=games or e.games, split=split or e.split)
        mode = best_of.mode if best_of else "policy"
        name = f"pi_{n}" if step is None else f"pi_{n}/checkpoint-{step}"
        other = [
            str(value)
            for value, usual in ((split, r.evaluation.split), (games, r.evaluation.games))
            if value not in (None, usual)
        ]
        out = self.iter / "eval" / "_".join([name.replace("/checkpoint", ""), mode, *other])
        temperature = e.best_of_temperature if best_of else e.temperature

        def make() -> dict[str, Any]:
            from prm_gym.store import read_episodes

            sampler = self.sampler(n, temperature, self.policy(n, step))
            policy = self.best_of(sampler, best_of) if best_of else sampler
            chosen = self.games(e.split, e.games)
            of = {"max_games": e.games, "iteration": n, "seed": e.seed, "max_failed_share": 0.0}
            self.collect(chosen, policy, out / "episodes", **of)
            episodes = read_episodes(out / "episodes")
            q = f"Q_{self.n - 1}" if best_of else None
            record = provenance.read(out / "episodes")
            known = None if record is None else record["settings"]
            result = summarise(episodes, policy=name, prm=q, mode=mode, split=e.split, seed=e.seed, settings=known)
            add_result(self.root / "results.json", result, keep_larger=True)
            return {"success": result["success"]}

        settings: dict[str, Any] = {"games": e.games, "split": e.split, "temperature": temperature, "seed": e.seed}
        settings |= {"best_of": best_of and best_of.n, "prompt": r.prompt, "max_episode_steps": r.max_episode_steps}
        settings["max_new_tokens"] = r.sampling.max_new_tokens
        if best_of and best_of != BestOf(best_of.n):  # manifests of plain best-of-N lack these keys
            settings |= {"weight": best_of.weight, "among": best_of.among}
        title = f"evaluation of {display_name(name, mode, f'Q_{self.n - 1}')}"
        inputs = self.made_from(self.policy(n, step), *([self.iter / "prm"] if best_of else []), games=e.split)
        servers = self.servers.commands(self.policy(n, step), self.iter / "prm" if best_of else None)
        return Stage(title, out, settings, make, inputs, Cost.of_episodes(e.games, r.max_episode_steps, servers))
