"""Run variants of a recipe. Stages that a variant has in common with another run are linked, not run again.

<root>/seed-<s>            the recipe itself, with other seeds for s > 0
<root>/seed-<s>-<variant>  the same with some settings changed; `recipe/` in each is the recipe used

Stages are in the order of their dependencies, so two runs share every stage before the first with different settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from prm_gym.atomic import locked, write_text
from prm_gym.config import read_yaml
from prm_gym.evaluation.intervals import Outcome, outcome
from prm_gym.policies.best_of_n import BestOf
from prm_gym.runs import stage
from prm_gym.runs.iteration import Run
from prm_gym.runs.recipe import load
from prm_gym.runs.stage import Stage
from prm_gym.runs.training import link_to

Changes = Mapping[str, Mapping[str, Any]]
"""{file of the recipe: {key: new value}}; mappings are merged."""


class Variants:
    """The runs of one seed of `recipe` under `root`; other seeds share the games of seed 0."""

    def __init__(self, recipe: Path, root: Path, seed: int) -> None:
        self.recipe, self._root, self.seed = recipe, root, seed

    def run(self, variant: str = "", changes: Changes | None = None, iterations: int = 1, like: str = "") -> list[Run]:
        """Run iterations 1 .. `iterations` of a variant, or without a name of the recipe itself.

        A variant is evaluated without best-of-N. It shares stages with the complete variant `like`, or with the recipe.
        """
        runs = [self._prepared(variant, changes, like)]
        complete(runs[0].stages(), runs[0].root)
        for n in range(2, iterations + 1):
            runs.append(Run(runs[0].folder, runs[0].root, n))
            complete(runs[-1].stages(), runs[-1].root)
        return runs

    def start(self, variant: str, changes: Changes) -> Run:
        """Run a variant up to its pi_0."""
        run = self._prepared(variant, changes)
        return _before(run.evaluation(0).out, run)

    def q(self, variant: str, changes: Changes) -> Run:
        """Run the first iteration of a variant up to the evaluation of its Q_0."""
        run = self._prepared(variant, changes)
        return _before(run.iter / "dataset" / "prompts", run)

    def _prepared(self, variant: str = "", changes: Changes | None = None, like: str = "") -> Run:
        """Write the recipe of a variant, and link the stages that it shares."""
        folder = self.folder(variant)
        if variant:
            self.run()
            changes = merged({"recipe.yaml": {"evaluation": {"best_of": 1}}}, changes or {})
            write_variant(self.folder() / "recipe", folder / "recipe", changes)
            lender = self.folder(like)
        else:
            write_variant(self.recipe, folder / "recipe", seed_changes(self.recipe, self.seed) if self.seed else {})
            lender = self._root / "seed-0"
        run = Run(folder / "recipe", folder, 1)
        if lender != folder:
            share(run.stages(), folder, Run(lender / "recipe", lender, 1).stages(), lender)
        return run

    def folder(self, variant: str = "") -> Path:
        return self._root / "-".join(filter(None, [f"seed-{self.seed}", variant]))

    def evaluated(self, run: Run, n: int, *, best_of: BestOf | int | None = None, **options: Any) -> Outcome:
        """The outcome of `Run.evaluation(n, ...)`, which is run if it is not complete; an integer is best-of-N by Q."""
        choice = BestOf(best_of) if isinstance(best_of, int) else best_of
        wanted = run.evaluation(n, best_of=choice, **options)
        complete([wanted], run.root)
        return outcome(wanted.out / "episodes")

    def held_out(self, run: Run, games: int) -> Path:
        """The folder of `Run.held_out(games)`, which is run if it is not complete."""
        wanted = run.held_out(games)
        complete([wanted], run.root)
        return wanted.out


def _before(out: Path, run: Run) -> Run:
    """Complete the stages before the one with the output `out`; returns `run`."""
    complete(list(takewhile(lambda each: each.out != out, run.stages())), run.root)
    return run


def complete(stages: list[Stage], root: Path) -> None:
    """Run the incomplete stages, after waiting for any other process in the run folder `root`."""
    if all(stage.is_complete(each) for each in stages):
        return
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".lock"):
        if todo := [each for each in stages if not stage.is_complete(each)]:
            console = Console()
            console.rule(Text(root.name))
            stage.run(todo, console)


def write_variant(source: Path, out: Path, changes: Changes) -> None:
    """Write the recipe `source` with `changes` to `out`, atomically by file. Files without a change are copied; a file
    that `source` does not have is made of its changes alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in sorted({*(file.name for file in source.glob("*.yaml")), *changes}):
        file = source / name
        if name in changes:
            values = read_yaml(file) if file.exists() else {}
            text = yaml.safe_dump(merged(values, changes[name]), sort_keys=False)
        else:
            text = file.read_text("utf-8")
        write_text(out / name, text)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` merged in, recursively."""
    out = deepcopy(dict(values))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


def seed_changes(recipe: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Other demonstrations, rollouts and training for `seed`. The held-out games stay the same, for paired differences,
    and so does the model to start from, as in the paper.
    """
    changed: dict[str, Any] = {"rollouts": {"seed": 1000 * seed}}
    if load(recipe).start.demonstrations:
        changed["start"] = {"demonstrations": {"seed": seed}}
    trained = {file.name: {"seed": seed} for file in recipe.glob("*.yaml") if file.name != "recipe.yaml"}
    return {"recipe.yaml": changed, **trained}


def share(stages: list[Stage], root: Path, others: list[Stage], other: Path) -> None:
    """Link the complete stages of the run `other` before the first difference into the run `root`. A stage that `root`
    leaves out is no difference.
    """
    theirs = {each.out.relative_to(other): each for each in others}
    for mine in stages:
        alike = theirs.get(mine.out.relative_to(root))
        if alike is None or mine.settings != alike.settings or not stage.is_complete(alike):
            return
        if not mine.out.exists():
            mine.out.parent.mkdir(parents=True, exist_ok=True)
            mine.out.symlink_to(os.path.relpath(alike.out, mine.out.parent.resolve()))
        if mine.out.name == "start":  # the stage links a model, base or pi_0, beside its output
            link_to((other / mine.name).resolve(), root / mine.name)
