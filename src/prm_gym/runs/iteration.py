"""One iteration of Algorithm 1: pi_{n-1} -> Q_{n-1} -> pi_n, as a list of stages over one run folder.

<run>/games, demonstrations, sft_dataset, scratch     once
<run>/pretraining, base                               once, if the recipe pretrains, or cuts a vocabulary
<run>/pi_0                                            the start; pi_1, pi_2, ... are links to iter<n>/policy
<run>/iter<n>/rollouts, branches                      Stage 1: episodes of pi_{n-1}
<run>/iter<n>/dataset/{prm,prompts}                   Stage 1: labels
<run>/iter<n>/prm                                     Stage 2: Q_{n-1}
<run>/iter<n>/policy                                  Stage 3: pi_n
<run>/iter<n>/eval                                    Q_{n-1} and pi_n on held-out games
<run>/results.json                                    one entry a policy, mode, split and seed
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prm_gym import hosts, provenance
from prm_gym.atomic import write_json
from prm_gym.config import read_yaml
from prm_gym.errors import UserError
from prm_gym.evaluation import success
from prm_gym.hosts.open_instruct.value_model import check_value_model, value_function
from prm_gym.policies.best_of_n import BestOf
from prm_gym.prompts import load
from prm_gym.provenance.checkpoint_settings import TrainedFor
from prm_gym.runs import recipe, stage
from prm_gym.runs.actors import Actors
from prm_gym.runs.recipe import Demonstrations, label_function
from prm_gym.runs.stage import Cost, Stage

if TYPE_CHECKING:
    from prm_gym.evaluation.prm_quality import Quality


class Run(Actors):
    """The stages of one iteration of a recipe in a run folder."""

    def stages(self) -> list[Stage]:
        """The stages of iteration n in order: those of pi_0 if n is 0, and before the others if n is 1. Raises
        `UserError` if the host, a value model that the labels want, or the iteration before is not there.
        """
        hosts.check(self.recipe.host)
        games = [self._games()] if self.recipe.games.path is None else []
        if self.n == 0:
            return [*games, *self._start()]
        if "value_fn" in self.recipe.labels.options:
            check_value_model(self._filled(self.recipe.labels.options)["value_fn"])
        if self.n > 1 and not (self.policy(self.n - 1) / stage.MANIFEST).exists():
            remedy = f"run ITER={self.n - 1} first"
            raise UserError(self.policy(self.n - 1), f"pi_{self.n - 1} is not there", remedy)
        return [
            *games,
            *(self._start() if self.n == 1 else []),
            *([self.evaluation(0)] if self.n == 1 else []),
            *([self.held_out()] if self.recipe.quality else []),
            *self._stage1(),
            self._train("prm", "prm", self.recipe.stages.prm),
            *([self._quality()] if self.recipe.quality else []),
            self._prompts(),
            self._train("online_dpo", "policy", self.recipe.stages.online_dpo),
            self.evaluation(self.n),
            *(self.evaluation(self.n, best_of=choice) for choice in self.recipe.evaluation.best_of),
        ]

    # --- before the first iteration ---------------------------------------------------------------------------------

    def _games(self) -> Stage:
        settings = self.recipe.games

        def make() -> dict[str, Any]:
            from prm_gym.envs.engine import compile_games
            from prm_gym.envs.games import find_games
            from prm_gym.envs.households import generate

            out = self.root / "games"
            written = generate(out, preset=settings.preset, splits=settings.splits, seed=settings.seed, workers=2)
            compile_games([game.path for game in find_games(out)], workers=2)
            return {"games": written}

        return Stage("games", self.root / "games", asdict(settings), make)

    def _start(self) -> list[Stage]:
        start, base = self.recipe.start, self.root / "base"
        if start.sft is None:
            return [self._given("pi_0", self.policy(0), self.root / "start")]
        assert start.demonstrations is not None
        dataset, before = self.root / "sft_dataset", start.pretraining
        shown = self._demonstrations(self.root, start.demonstrations, start.exploring)
        pi_0 = self._host_stage("sft", self.policy(0), start.sft)
        if start.model is not None and start.cut_vocabulary:
            return [*shown, self._cut(start.model, base, dataset), pi_0]
        if start.model is not None:
            return [self._given("base", base, self.root / "start"), *shown, pi_0]
        if start.scratch is None:
            return [*shown, pi_0]
        if before is None:
            return [*shown, self._scratch(start.scratch, dataset), pi_0]
        folder = self.root / "pretraining"
        return [
            *self._demonstrations(folder, before.demonstrations, before.exploring),
            self._scratch(start.scratch, folder / "sft_dataset"),
            replace(self._host_stage("sft", base, before.sft), name="pretraining"),
            *shown,
            pi_0,
        ]

    def _given(self, name: str, place: Path, out: Path) -> Stage:
        """The checkpoint that the recipe names, under the name `place`."""
        model = self.recipe.start.model
        assert model is not None

        def link() -> None:
            if not (Path(model) / "config.json").is_file():
                problem = f"no checkpoint folder {model}"
                raise UserError(self.folder / "recipe.yaml", problem, "download it first", field="start.model")
            _link(place, Path(model).resolve())

        return Stage(name, out, {"model": model}, link)

    def _cut(self, model: str, base: Path, dataset: Path) -> Stage:
        """A pretrained model with the tokens that an `sft` dataset needs."""

        def make() -> dict[str, Any]:
            from prm_gym.pretrained.checkpoint import conversations, prepare

            return prepare(model, base, conversations([dataset]))._asdict()

        settings = {"model": model, "cut_vocabulary": True}
        return Stage("base with a cut vocabulary", base, settings, make, self.made_from(dataset))

    def _scratch(self, sizes: dict[str, int], dataset: Path) -> Stage:
        """A model that knows nothing, and a tokenizer for the texts of an `sft` dataset."""
        out = self.root / "scratch"

        def make() -> None:
            from prm_gym.hosts.tiny_model import make_tiny_model

            make_tiny_model(out, _texts(dataset), **sizes)

        return Stage("model from scratch", out, dict(sizes), make, self.made_from(dataset))

    def _demonstrations(self, folder: Path, plain: Demonstrations, explored: Demonstrations | None) -> list[Stage]:
        """Demonstrations into `folder`, and all of them into its `sft_dataset`: `plain` under the prompt of the recipe,
        `explored` under the exploration prompt.
        """
        kinds, dataset = {folder / "demonstrations": plain}, folder / "sft_dataset"
        if explored is not None:
            kinds[folder / "exploring"] = explored
        collected, *exploring = kinds
        shown_as = {"prompt": self.recipe.prompt, **({"exploring": True} if exploring else {})}

        def demonstrate(wanted: Demonstrations, out: Path) -> dict[str, Any]:
            from prm_gym.policies.expert import ExpertPolicy

            policy = partial(
                ExpertPolicy,
                wanted.random_actions,
                mistakes=wanted.mistakes,
                dawdling=wanted.dawdling,
                search=wanted.search,
            )
            return self.collect(
                self.games("train", wanted.games),
                policy,
                out,
                rollouts_per_game=wanted.rollouts_per_game,
                max_games=wanted.games,
                seed=wanted.seed,
            )

        def label() -> None:
            from prm_gym.labels import sft

            sft.label([collected], dataset, prompt=self.recipe.prompt, exploring=exploring)

        def stage_of(wanted: Demonstrations, out: Path) -> Stage:
            make, cost = partial(demonstrate, wanted, out), self._rows(wanted.games * wanted.rollouts_per_game)
            return Stage(out.name, out, asdict(wanted), make, self.made_from(games="train"), cost)

        return [
            *(stage_of(wanted, out) for out, wanted in kinds.items()),
            Stage("sft dataset", dataset, shown_as, label, self.made_from(*kinds)),
        ]

    # --- the three stages of the paper ------------------------------------------------------------------------------

    def _stage1(self) -> list[Stage]:
        r, wanted, branches = self.recipe, self.recipe.rollouts, self.recipe.branches
        rollouts, branched, dataset = self.iter / "rollouts", self.iter / "branches", self.iter / "dataset" / "prm"

        # Algorithm 2 has negatives of all past policies, whose next actions are those of pi_{n-1}.
        inverse = r.labels.kind == "inverse"
        first = 1 if inverse or r.labels.iterations == "all" else self.n
        kinds = ["rollouts", "branches"] if branches and not inverse else ["rollouts"]
        sources = [self.root / f"iter{i}" / kind for i in range(first, self.n + 1) for kind in kinds]
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
                options["policy"] = self.sampled(self.n - 1)
            elif "gamma" in inspect.signature(kind).parameters:
                options["gamma"] = r.gamma
            if "value_fn" in options:  # V_mu, fitted before
                options["value_fn"] = value_function(options["value_fn"])
            kind(sources, dataset, **options)

        shared = {"sampling": asdict(r.sampling), "max_episode_steps": r.max_episode_steps, "prompt": r.prompt}
        played = self.made_from(policy, games="train")
        name, episodes = f"rollouts of pi_{self.n - 1}", wanted.games * wanted.per_game
        cost = self._rows(episodes)
        stages = [Stage(name, rollouts, {**asdict(wanted), **shared}, collect, played, cost)]
        if branches:
            name, inputs = f"branches of pi_{self.n - 1}", self.made_from(policy, rollouts)
            cost = self._rows(episodes * branches.most_per_episode)
            stages.append(Stage(name, branched, {**asdict(branches), **shared}, branch, inputs, cost))
        settings = {"prompt": r.prompt, "gamma": r.gamma, "kind": r.labels.kind, "options": r.labels.options}
        if r.labels.iterations == "all" and self.n > 1:
            settings["iterations"] = "all"
        asked = [policy] if inverse else []
        read = self.made_from(*sources, *asked, *self._folders(r.labels.options))
        return [*stages, Stage(f"labels for Q_{self.n - 1}", dataset, settings, label, read)]

    def _rows(self, episodes: int) -> Cost:
        """Of so many episodes: a row for each action, and one for the end."""
        return Cost(rows=episodes * (self.recipe.max_episode_steps + 1))

    def _prompts(self) -> Stage:
        r, out = self.recipe, self.iter / "dataset" / "prompts"

        def label() -> None:
            label_function("prompts")([self.iter / "rollouts"], out, prompt=r.prompt, **self._filled(r.labels.prompts))

        read = self.made_from(self.iter / "rollouts", *self._folders(r.labels.prompts))
        return Stage("prompts for online DPO", out, {"prompt": r.prompt, **r.labels.prompts}, label, read)

    def _filled(self, options: dict[str, Any]) -> dict[str, Any]:
        """Label options with the placeholders of folders filled in."""
        where = self.folder / "recipe.yaml"

        def fill(value: Any) -> Any:
            if isinstance(value, list):
                return [fill(entry) for entry in value]
            is_folder = isinstance(value, str) and "{" in value
            return Path(recipe.fill(value, self.root, self.n, where)) if is_folder else value

        return {key: fill(value) for key, value in options.items()}

    def _folders(self, options: dict[str, Any]) -> list[Path]:
        """Those that label options name."""
        values = [value if isinstance(value, list) else [value] for value in self._filled(options).values()]
        return [each for value in values for each in value if isinstance(each, Path)]

    def _train(self, name: str, folder: str, config: str) -> Stage:
        made = self._host_stage(name, self.iter / folder, config)
        if name != "online_dpo":
            return made

        def make() -> None:
            made.make()
            _link(self.policy(self.n), self.iter / folder)

        return replace(made, make=make)

    def _host_stage(self, name: str, out: Path, config: str) -> Stage:
        source = self.folder / config
        filled = recipe.fill(source.read_text("utf-8"), self.root, self.n, source)

        # The values as they stand, {run} and all: a run folder that was moved is still complete.
        settings: dict[str, Any] = {
            "host": self.recipe.host,
            "config": read_yaml(source),
            "processes": self.recipe.stages.processes,
        }
        named = (recipe.fill(text, self.root, self.n, source) for text in _named(settings["config"]))
        inputs = self.made_from(*map(Path, named))

        def make() -> None:
            r = self.recipe
            if any(out.glob("checkpoint-*")) and provenance.read(out) is None:
                problem = "holds a training that an older version began, which did not say all that it depends on"
                raise UserError(out, problem, f"remove {out}, or choose another run folder")
            reads = TrainedFor(load(r.prompt), r.max_episode_steps, r.sampling.temperature)
            made_with = {"kind": "training", "stage": name, "host": r.host, "config": settings["config"]}
            provenance.claim(out, {**made_with, "inputs": inputs(), "trained_for": reads.as_dict()})
            (out / config).write_text(filled, "utf-8")  # the host's launcher gets nothing else
            hosts.launch(self.recipe.host, name, out / config, out, self.recipe.stages.processes)

        title = {"sft": "pi_0 by SFT", "prm": f"Q_{self.n - 1}", "online_dpo": f"pi_{self.n} by online DPO"}[name]
        model = settings["config"].get("model_name_or_path")
        cost = Cost(
            command=tuple(hosts.command(self.recipe.host, name, out / config, self.recipe.stages.processes, out)),
            model=None if model is None else Path(recipe.fill(model, self.root, self.n, source)),
        )
        return Stage(title, out, settings, make, inputs, cost)

    # --- on held-out games ------------------------------------------------------------------------------------------

    def held_out(self, games: int | None = None) -> Stage:
        """Episodes and branches of pi_{n-1} that Q_{n-1} has not learned from, to measure it on: as the recipe's
        `quality` says, on `games` in place of its games.
        """
        assert self.recipe.quality is not None
        wanted = self.recipe.quality
        folder = "held_out" if games in (None, wanted.games) else f"held_out_{games}"
        wanted, out = replace(wanted, games=games or wanted.games), self.iter / "eval" / folder

        def make() -> dict[str, Any]:
            chosen, policy = self.games(wanted.split, wanted.games), self.sampler(self.n - 1)
            self.collect(chosen, policy, out / "rollouts", max_games=wanted.games, iteration=self.n - 1, seed=1)
            return self.branch(out / "rollouts", wanted.split, wanted.branches, out / "branches")

        settings = {**asdict(wanted), "sampling": asdict(self.recipe.sampling), "prompt": self.recipe.prompt}
        inputs = self.made_from(self.policy(self.n - 1), games=wanted.split)
        cost = self._rows(wanted.games * (1 + wanted.branches.most_per_episode))
        return Stage(f"held-out branches of pi_{self.n - 1}", out, settings, make, inputs, cost)

    def quality(self, held_out: Path) -> Quality:
        """How good Q_{n-1} is on what a stage `held_out` has made, of this run or of one with the same pi_{n-1}."""
        from prm_gym.evaluation.prm_quality import measure
        from prm_gym.store import read_episodes

        episodes = read_episodes(held_out / "rollouts", held_out / "branches")
        levels = self.recipe.labels.kind not in ("preferences", "inverse")  # those say nothing between states
        return asyncio.run(measure(episodes, self.scorer(), gamma=self.recipe.gamma, levels=levels))

    def _quality(self) -> Stage:
        out = self.iter / "eval" / "prm"

        def make() -> dict[str, Any]:
            quality = self.quality(self.held_out().out)
            write_json(out / "quality.json", quality.as_dict())
            Console().print(quality.summary())
            return {"quality": quality.as_dict()}

        settings = {"gamma": self.recipe.gamma, "prompt": self.recipe.prompt}
        inputs = self.made_from(self.iter / "prm", self.held_out().out)
        return Stage(f"Q_{self.n - 1} on held-out games", out, settings, make, inputs)

    def evaluation(
        self,
        n: int,
        *,
        best_of: BestOf | int | None = None,
        step: int | None = None,
        games: int | None = None,
        split: str | None = None,
    ) -> Stage:
        """Success of pi_n, or of BoN(pi_n, Q) with this iteration's Q, into results.json; an integer N is short for
        `BestOf(N)`.

        `step` takes the checkpoint of that training step in place of pi_n; `games` and `split` take the place of the
        recipe's. Of fewer games than an entry of results.json has, nothing goes there.
        """
        e, r = self.recipe.evaluation, self.recipe
        e = replace(e, games=games or e.games, split=split or e.split)
        choice = BestOf(best_of) if isinstance(best_of, int) else best_of
        mode = choice.mode if choice else "policy"
        name = f"pi_{n}" if step is None else f"pi_{n}/checkpoint-{step}"
        other = [
            str(value)
            for value, usual in ((split, r.evaluation.split), (games, r.evaluation.games))
            if value not in (None, usual)
        ]
        out = self.iter / "eval" / "_".join([name.replace("/checkpoint", ""), mode, *other])
        temperature = e.best_of_temperature if choice else e.temperature

        def make() -> dict[str, Any]:
            from prm_gym.store import read_episodes

            sampler = self.sampler(n, temperature, self.policy(n, step))
            policy = partial(self.best_of, sampler, choice) if choice else sampler
            chosen = self.games(e.split, e.games)
            self.collect(chosen, policy, out / "episodes", max_games=e.games, iteration=n, seed=e.seed)
            episodes = read_episodes(out / "episodes")
            q = f"Q_{self.n - 1}" if choice else None
            record = provenance.read(out / "episodes")
            known = None if record is None else record["settings"]
            result = success.summarise(
                episodes, policy=name, prm=q, mode=mode, split=e.split, seed=e.seed, settings=known
            )
            success.add_result(self.root / "results.json", result, keep_larger=True)
            return {"success": result["success"]}

        settings: dict[str, Any] = {"games": e.games, "split": e.split, "temperature": temperature, "seed": e.seed}
        settings |= {"best_of": choice and choice.n, "prompt": r.prompt, "max_episode_steps": r.max_episode_steps}
        if choice and choice != BestOf(choice.n):  # older run folders know plain Q alone, without these keys
            settings |= {"weight": choice.weight, "among": choice.among}
        title = f"evaluation of {success.name(name, mode, f'Q_{self.n - 1}')}"
        inputs = self.made_from(self.policy(n, step), *([self.iter / "prm"] if choice else []), games=e.split)
        return Stage(title, out, settings, make, inputs, self._rows(e.games))


def _named(config: Any) -> Iterator[str]:
    """The folders of the run that a host's file names to read: the texts with {run}, but for that of its output."""
    if isinstance(config, str) and "{run}" in config:
        yield config
    elif isinstance(config, dict):
        for key, value in config.items():
            yield from () if key == "output_dir" else [*_named(key), *_named(value)]
    elif isinstance(config, list):
        for value in config:
            yield from _named(value)


def _link(link: Path, target: Path) -> None:
    """Make `link` a relative link to `target`, so that a run folder can be moved."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(os.path.relpath(target, link.parent))


def _texts(dataset: Path) -> Iterator[str]:
    """All that was said in the conversations of an `sft` dataset."""
    from datasets import load_dataset

    for row in load_dataset(str(dataset), split="train"):
        for message in [*row["prompt"], *row["completion"]]:
            yield message["content"]
