"""One iteration of Algorithm 1: pi_{n-1} -> Q_{n-1} -> pi_n, as a list of stages over one run folder.

<run>/games, demonstrations, sft_dataset, scratch     once
<run>/base                                            once, if pi_0 is trained from a model
<run>/pi_0                                            the start; pi_1, pi_2, ... are links to iter<n>/policy
<run>/iter<n>/rollouts, branches                      Stage 1: episodes of pi_{n-1}
<run>/iter<n>/dataset/{prm,prompts}                   Stage 1: labels (or rejection_sampling, dagger)
<run>/iter<n>/prm                                     Stage 2: Q_{n-1}
<run>/iter<n>/policy                                  Stage 3: pi_n
<run>/iter<n>/eval                                    Q_{n-1} and pi_n on held-out games
<run>/results.json                                    one entry per policy, mode, split and seed

`start` has the stages before the first iteration, `training` those of the host, `evaluations` those on held-out games.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prm_gym import hosts
from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct.value_model import check_value_model, value_function
from prm_gym.labels import label_function
from prm_gym.labels.folders import FOLDERS
from prm_gym.runs import recipe, stage, start
from prm_gym.runs.evaluations import Evaluations
from prm_gym.runs.recipe_sections import POLICY_STAGES
from prm_gym.runs.stage import Cost, Stage
from prm_gym.runs.training import link_to, training


class Run(Evaluations):
    """One iteration of a recipe in a run folder."""

    def stages(self) -> list[Stage]:
        """The stages of iteration n in order. Iteration 0 makes pi_0 alone, iteration 1 makes it first.

        Raises `UserError` if the host, the value model of the labels or the previous iteration is missing.
        """
        hosts.check(self.recipe.host, self._files_to_train())
        self.servers.check()
        games = [start.games(self)] if self.generates else []
        if self.n == 0:
            return [*games, *start.pi_0(self)]
        if "value_fn" in self.recipe.labels.options:
            check_value_model(self._filled(self.recipe.labels.options)["value_fn"])
        if self.n > 1 and not (self.policy(self.n - 1) / stage.MANIFEST).exists():
            remedy = f"run ITER={self.n - 1} first"
            raise UserError(self.policy(self.n - 1), f"pi_{self.n - 1} is not there", remedy)
        q = self.recipe.stages.prm
        return [
            *games,
            *(start.pi_0(self) if self.n == 1 else []),
            *([self.evaluation(0)] if self.n == 1 else []),
            *([self.held_out()] if self.recipe.quality else []),
            *self._stage1(),
            *([training(self, "prm", self.iter / "prm", q)] if q else []),
            *([self.quality_stage()] if self.recipe.quality else []),
            *self._stage3(),
            self.evaluation(self.n),
            *(self.evaluation(self.n, best_of=choice) for choice in self.recipe.evaluation.best_of),
        ]

    def _files_to_train(self) -> dict[str, Path]:
        """The host's file of each training that is not complete."""
        r, policy = self.recipe, self.iter / "policy"
        trained = {"sft": (r.start.sft, self.root / "pi_0")} if self.n < 2 else {}
        if self.n:
            trained["prm"] = r.stages.prm, self.iter / "prm"
            trained |= {name: (file, policy) for name, file in r.stages.of_policy.items()}
        return {
            name: self.folder / file
            for name, (file, out) in trained.items()
            if file is not None and not (out / stage.MANIFEST).exists()
        }

    def _stage1(self) -> list[Stage]:
        r, wanted, branches = self.recipe, self.recipe.rollouts, self.recipe.branches
        rollouts, branched = self.iter / "rollouts", self.iter / "branches"
        dataset = self.iter / "dataset" / ("dagger" if r.labels.kind == "dagger" else "prm")

        # Algorithm 2 takes negatives from all past policies, and their next actions from pi_{n-1}.
        inverse, dagger = r.labels.kind == "inverse", r.labels.kind == "dagger"
        first = 1 if inverse or dagger or r.labels.iterations == "all" else self.n
        kinds = ["rollouts", "branches"] if branches and not inverse else ["rollouts"]
        sources = [self.root / f"iter{i}" / kind for i in range(first, self.n + 1) for kind in kinds]
        if dagger and r.start.demonstrations is not None:
            sources.append(self.root / "demonstrations")
        policy = self.policy(self.n - 1)

        def collect() -> dict[str, Any]:
            return self.collect(
                self.games("train", wanted.games),
                self.sampler(self.n - 1),
                rollouts,
                rollouts_per_game=wanted.per_game,
                max_games=wanted.games,
                iteration=self.n - 1,
                seed=wanted.seed + self.n,
            )

        def branch() -> dict[str, Any]:
            assert branches is not None
            return self.branch(rollouts, "train", branches, branched)

        def label() -> None:
            kind = label_function(r.labels.kind)
            options: dict[str, Any] = {"prompt": r.prompt, **self._filled(r.labels.options)}
            if inverse:
                options["policy"] = self.relabeller(self.n - 1)
            elif "gamma" in inspect.signature(kind).parameters:
                options["gamma"] = r.gamma
            if "value_fn" in options:  # V_mu
                options["value_fn"] = value_function(options["value_fn"])
            kind(sources, dataset, **options)

        shared = {"sampling": asdict(r.sampling), "max_episode_steps": r.max_episode_steps, "prompt": r.prompt}
        played = self.made_from(policy, games="train")
        name, episodes = f"rollouts of pi_{self.n - 1}", wanted.games * wanted.per_game
        servers = self.servers.commands(policy)
        cost = Cost.of_episodes(episodes, r.max_episode_steps, servers)
        stages = [Stage(name, rollouts, {**asdict(wanted), **shared}, collect, played, cost)]
        if branches:
            name, inputs = f"branches of pi_{self.n - 1}", self.made_from(policy, rollouts)
            cost = Cost.of_episodes(episodes * branches.most_per_episode, r.max_episode_steps, servers)
            stages.append(Stage(name, branched, {**asdict(branches), **shared}, branch, inputs, cost))
        settings = {"prompt": r.prompt, "gamma": r.gamma, "kind": r.labels.kind, "options": r.labels.options}
        settings["branches"] = "branches" in kinds
        if r.labels.iterations == "all" and self.n > 1:
            settings["iterations"] = "all"
        asked = [policy] if inverse else []
        labelled = episodes * (branches.most_per_episode + 1 if branches and not inverse else 1)
        asks = Cost(episodes=labelled * (self.n - first + 1), servers=servers if inverse else ())
        read = self.made_from(*sources, *asked, *self._folders(r.labels.options))
        name = f"labels of the expert for pi_{self.n}" if dagger else f"labels for Q_{self.n - 1}"
        return [*stages, Stage(name, dataset, settings, label, read, asks)]

    def _stage3(self) -> list[Stage]:
        [(method, config)] = self.recipe.stages.of_policy.items()
        trained = training(self, method, self.iter / "policy", config)

        def make() -> None:
            trained.make()
            link_to(trained.out, self.policy(self.n))

        policy = replace(trained, make=make)
        if method == "dagger":
            return [policy]
        read = self._best_responses() if method == "rejection_sampling" else self._prompts(POLICY_STAGES[method])
        return [read, policy]

    def _prompts(self, method: str) -> Stage:
        r, out = self.recipe, self.iter / "dataset" / "prompts"

        def label() -> None:
            label_function("prompts")([self.iter / "rollouts"], out, prompt=r.prompt, **self._filled(r.labels.prompts))

        read = self.made_from(self.iter / "rollouts", *self._folders(r.labels.prompts))
        cost = Cost(episodes=r.rollouts.games * r.rollouts.per_game)
        return Stage(f"prompts for {method}", out, {"prompt": r.prompt, **r.labels.prompts}, label, read, cost)

    def _best_responses(self) -> Stage:
        """Best-of-N by Q_{n-1} at the states of Stage 3."""
        r, out = self.recipe, self.iter / "dataset" / "rejection_sampling"
        wanted, rollouts = r.rejection_sampling, self.iter / "rollouts"

        def label() -> dict[str, Any]:
            report = label_function("rejection_sampling")(
                [rollouts],
                out,
                policy=self.sampler(self.n - 1, wanted.temperature)(),
                scorer=self.scoring()(),
                n=wanted.n,
                prompt=r.prompt,
                **self._filled(r.labels.prompts),
            )
            return {"sampled": report.statistics["sampled"]}

        settings = {"prompt": r.prompt, **asdict(wanted), "sampling": asdict(r.sampling), **r.labels.prompts}
        folders = self._folders(r.labels.prompts)
        read = self.made_from(rollouts, self.policy(self.n - 1), self.iter / "prm", *folders)
        servers = self.servers.commands(self.policy(self.n - 1), self.iter / "prm")
        cost = Cost(episodes=r.rollouts.games * r.rollouts.per_game, servers=servers)
        return Stage(f"best of {wanted.n} responses by Q_{self.n - 1}", out, settings, label, read, cost)

    def _filled(self, options: dict[str, Any]) -> dict[str, Any]:
        """Label options with folders as `Path`s, placeholders in their names filled in."""
        where = self.folder / "recipe.yaml"

        def fill(key: str, value: Any) -> Any:
            if isinstance(value, list):
                return [fill(key, entry) for entry in value]
            is_folder = isinstance(value, str) and (key in FOLDERS or "{" in value)
            return Path(recipe.fill(value, self.root, self.n, where)) if is_folder else value

        return {key: fill(key, value) for key, value in options.items()}

    def _folders(self, options: dict[str, Any]) -> list[Path]:
        """The folders named by label options."""
        values = [value if isinstance(value, list) else [value] for value in self._filled(options).values()]
        return [each for value in values for each in value if isinstance(each, Path)]
