"""A recipe: one folder with `recipe.yaml` (Stage 1 and evaluation) and the host's own YAML per stage.

In `recipe.yaml` and in the host's files `{run}` is replaced by the run folder, `{iter}` by the iteration and `{iter-1}`
by the previous one; a host's file is otherwise unchanged. Every key is checked before work starts.
"""

from __future__ import annotations

import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from prm_gym.config import build, read_yaml
from prm_gym.errors import UserError, no_folder
from prm_gym.runs.recipe_checks import check
from prm_gym.runs.recipe_sections import Recipe

_PLACE = re.compile(r"\{(run|iter|iter-1)\}")
_UNKNOWN = re.compile(r"\{[a-z][a-z0-9_+-]*\}|\{ *(?i:run|iter)\b[^}:]*\}")


def load(folder: str | PathLike[str]) -> Recipe:
    """The recipe in `folder`. Raises `UserError` for the first key, value or file that is wrong."""
    path = Path(folder) / "recipe.yaml"
    if not path.parent.is_dir():
        raise UserError(folder, no_folder(path.parent), "name the folder of the recipe")
    recipe = build(Recipe, _best_of_listed(read_yaml(path)), path)
    check(recipe, path)
    return recipe


def _best_of_listed(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe, with `evaluation.best_of` expanded to a list."""
    evaluation = values.get("evaluation")
    if not isinstance(evaluation, dict) or "best_of" not in evaluation:
        return values
    given = evaluation["best_of"]
    ways = [{"n": way} if type(way) is int else way for way in (given if isinstance(given, list) else [given])]
    return {**values, "evaluation": {**evaluation, "best_of": [] if type(given) is int and given == 1 else ways}}


def fill(text: str, run: str | PathLike[str], iteration: int, where: str | PathLike[str]) -> str:
    """`text` with `{run}`, `{iter}` and `{iter-1}` filled in."""
    values = {"run": str(run), "iter": str(iteration), "iter-1": str(iteration - 1)}
    filled = _PLACE.sub(lambda match: values[match[1]], text)
    if left := _UNKNOWN.search(filled):
        raise UserError(where, f"unknown placeholder {left[0]}", "use {run}, {iter} or {iter-1}")
    return filled


def fill_file(file: Path, run: Path, iteration: int) -> str:
    """The text of the YAML `file`, as `fill`. Raises `UserError` if the run folder's name would change its meaning."""
    text, name = file.read_text("utf-8"), "prm-gym-run"
    filled = fill(text, run, iteration, file)
    try:
        kept = _content(filled) == _content(fill(text, name, iteration, file)).replace(name, json.dumps(str(run))[1:-1])
    except yaml.YAMLError:
        kept = False
    if not kept:
        raise UserError(run, f"has characters that YAML reads otherwise in {file}", "choose another run folder")
    return filled


def _content(text: str) -> str:
    return json.dumps(yaml.safe_load(text), default=str)
