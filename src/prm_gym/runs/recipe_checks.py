"""What a recipe must satisfy beyond the types of its keys. Each check raises `UserError` for the first thing wrong."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from prm_gym.config import build_value, check_keys, read_yaml
from prm_gym.envs.games import SPLITS
from prm_gym.envs.households.sampling import PRESETS
from prm_gym.errors import HOTTEST, INT32, INT64, UserError, check_range
from prm_gym.hosts.losses import LABELS
from prm_gym.labels import KINDS, label_function
from prm_gym.labels.folders import FOLDERS
from prm_gym.policies.expert import SEARCHES
from prm_gym.prompts import load
from prm_gym.runs.recipe_sections import (
    POLICY_STAGES,
    Demonstrations,
    Evaluation,
    Labels,
    Recipe,
    RejectionSampling,
    Sampling,
    Start,
)
from prm_gym.worker_pool import MOST_PROCESSES

_GIVEN = {"prompt", "gamma", "policy", "scorer"}  # arguments of labels that the recipe gives in other sections
_COUNT: dict[str, float] = {"least": 1, "most": INT32}
_SHARE: dict[str, float] = {"least": 0, "most": 1}
_TEMPERATURE: dict[str, float] = {"least": 0, "most": HOTTEST}
_RANGES: dict[str, dict[str, float]] = {  # of numbers by key, in any section
    **dict.fromkeys(("games", "per_game", "rollouts_per_game", "states_per_episode", "actions"), _COUNT),
    **dict.fromkeys(("hidden_size", "layers", "heads"), _COUNT),
    **dict.fromkeys(("continuations", "max_new_tokens", "max_batch", "max_episode_steps", "n"), _COUNT),
    "processes": {"least": 1, "most": MOST_PROCESSES},
    "replicas": {"least": 1, "most": 1024},
    "shares": {"least": 1, "most": 2**20},
    "gpus": {"least": 0, "most": 1024},
    "nodes": {"least": 1, "most": 65536},
    "wait": {"above": 0},
    **dict.fromkeys(("random_actions", "mistakes", "dawdling"), _SHARE),
    **dict.fromkeys(("temperature", "best_of_temperature"), _TEMPERATURE),
    "seed": {"least": 0, "most": INT64},
    "gamma": {"above": 0, "most": 1},
}


def check(recipe: Recipe, path: Path) -> None:
    """Check all of `recipe`, which was read from `path`."""
    _check_ranges(recipe, path)
    if recipe.host not in ("trl", "open-instruct"):
        raise UserError(path, f"unknown host '{recipe.host}'", "say trl or open-instruct", field="host")
    _check_env(recipe, path)
    _check_serve(recipe.sampling, path)
    _check_start(recipe.start, path)
    _check_labels(recipe.labels, path)
    _check_stages(recipe, path)
    _check_best_of(recipe.evaluation, path)
    _check_files(recipe, path)
    _check_loss(recipe, path)
    _check_names(recipe, path)
    _check_games(recipe, path)


def _check_ranges(section: Any, path: Path, prefix: str = "") -> None:
    """Raise `UserError` for the first number of recipe.yaml that is out of range, in any section."""
    for entry in fields(section):
        value = getattr(section, entry.name)
        if is_dataclass(value):
            _check_ranges(value, path, f"{prefix}{entry.name}.")
        elif value is not None and entry.name in _RANGES:
            try:
                check_range(entry.name, value, **_RANGES[entry.name])
            except UserError as error:
                raise UserError(path, error.problem, error.remedy, field=prefix + entry.name) from None


def _check_env(recipe: Recipe, path: Path) -> None:
    """Raise `UserError` for games beside an environment, or demonstrations of an expert that it has not."""
    if (recipe.games is None) is (recipe.env is None):
        problem = "missing" if recipe.games is None else "there are `games` and an `env`"
        raise UserError(path, problem, "give `games` of ALFWorld, or the `env` to play", field="games")
    if recipe.env is None:
        return
    recipe.env.check(path, "env.")
    start = recipe.start
    shown = {"start.demonstrations": start.demonstrations, "start.exploring": start.exploring}
    for name, wanted in shown.items():
        if wanted is not None and name.endswith("exploring"):
            raise UserError(path, "no expert explores here", "remove it: ALFWorld alone has one", field=name)
        for key in ("mistakes", "search"):
            if wanted is not None and getattr(wanted, key) != getattr(Demonstrations, key):
                problem = "is of ALFWorld's expert alone"
                remedy = "remove it; random_actions and dawdling are there"
                raise UserError(path, problem, remedy, field=f"{name}.{key}")


def _check_serve(sampling: Sampling, path: Path) -> None:
    """Raise `UserError` for servers named twice, or a command that does not say what to serve and where."""
    if sampling.server and sampling.serve:
        problem = "`server` names servers that are there"
        raise UserError(path, problem, "remove one of the two", field="sampling.serve")
    for name, serve in (("serve", sampling.serve), ("serve_prm", sampling.serve_prm)):
        for place in ("{model}", "{port}"):
            if serve is not None and place not in serve.command:
                problem = f"{place} is missing"
                raise UserError(path, problem, "say where it stands", field=f"sampling.{name}.command")
        if serve is not None and serve.replicas is not None and serve.replicas < len(serve.devices):
            problem = f"{len(serve.devices)} entries for {serve.replicas} replicas"
            raise UserError(path, problem, "remove the rest", field=f"sampling.{name}.devices")


def _check_start(start: Start, path: Path) -> None:
    if (start.model is None or start.sft is not None) and (start.demonstrations is None or start.sft is None):
        problem = "neither a model nor demonstrations with an sft file"
        raise UserError(path, problem, "give `model`, or `demonstrations` and `sft`, or all three", field="start")
    if start.model is not None and start.scratch is not None:
        raise UserError(path, "a model and one from scratch", "give `model` or `scratch`", field="start.scratch")
    if start.exploring is not None and start.sft is None:
        raise UserError(path, "there, but no sft file reads it", "add `sft`, or remove it", field="start.exploring")
    if (of := start.scratch) is not None and of.hidden_size % (2 * of.heads):  # rotary embeddings halve a head
        problem = f"{of.hidden_size} is not an even multiple of {of.heads} heads"
        raise UserError(path, problem, "say a multiple of twice the heads", field="start.scratch.hidden_size")
    if start.cut_vocabulary and (start.model is None or start.sft is None):
        problem = "no model, or no demonstrations to cut it to"
        raise UserError(path, problem, "give `model`, `demonstrations` and `sft`", field="start.cut_vocabulary")


def _check_labels(labels: Labels, path: Path) -> None:
    """The kind, and its options: the keyword arguments of its function that the recipe does not set itself."""
    if labels.kind not in KINDS:
        raise UserError(path, f"no label '{labels.kind}'", f"choose one of {', '.join(KINDS)}", field="labels.kind")
    if labels.iterations not in ("last", "all"):
        problem = f"unknown iterations '{labels.iterations}'"
        raise UserError(path, problem, "say last or all", field="labels.iterations")
    for name, kind, options in (("options", labels.kind, labels.options), ("prompts", "prompts", labels.prompts)):
        parameters = list(inspect.signature(label_function(kind)).parameters.values())
        valid = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
        check_keys(options, sorted(valid - _GIVEN), path, f"labels.{name}.")
        for each in parameters:
            if each.kind is each.KEYWORD_ONLY and each.default is each.empty and each.name not in {*options, *_GIVEN}:
                raise UserError(path, f"missing, and {kind} needs it", "add it", field=f"labels.{name}.{each.name}")
        hints = get_type_hints(label_function(kind))
        for key, value in options.items():  # which may become another: YAML reads 1e-2 as a text
            if not (key in FOLDERS and isinstance(value, str)):
                options[key] = build_value(_in_yaml(hints[key]), value, path, f"labels.{name}.{key}")
        if "expert_fraction" in options and not options.get("expert"):
            field = f"labels.{name}.expert_fraction"
            raise UserError(path, "has no effect without expert", "name its folders, or remove this", field=field)


def _in_yaml(hint: Any) -> Any:
    """The type of a label's argument as YAML has it: lists for sequences, texts for folders."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return reduce(or_, map(_in_yaml, arguments))
    if origin is Sequence:
        return list[_in_yaml(arguments[0])]  # type: ignore[misc]
    return str if hint is Path or origin is Callable else hint


def _check_stages(recipe: Recipe, path: Path) -> None:
    """Raise `UserError` unless one stage trains the policy, and it has the Q or the labels that it needs."""
    given = list(recipe.stages.of_policy)
    if len(given) != 1:
        problem = f"{', '.join(given) or 'nothing'} trains the policy"
        raise UserError(path, problem, f"give one of {', '.join(POLICY_STAGES)}", field="stages")
    if (given == ["dagger"]) is not (recipe.labels.kind == "dagger"):
        problem = f"is {recipe.labels.kind}, and the stage that trains the policy is {given[0]}"
        raise UserError(path, problem, "labels and stage are both dagger, or none is", field="labels.kind")
    if given != ["dagger"] and recipe.stages.prm is None:
        raise UserError(path, "missing", "name the host's file that trains Q", field="stages.prm")
    if given != ["rejection_sampling"] and recipe.rejection_sampling != RejectionSampling():
        remedy = "add `stages.rejection_sampling`, or remove it"
        raise UserError(path, "is for a stage that is not there", remedy, field="rejection_sampling")
    needless = {
        "stages.prm": recipe.stages.prm,
        "branches": recipe.branches,
        "quality": recipe.quality,
        "evaluation.best_of": recipe.evaluation.best_of,
    }
    for field_name, value in needless.items():
        if given == ["dagger"] and value:
            raise UserError(path, "is for a Q, and dagger trains none", "remove it", field=field_name)
    if recipe.stages.nodes > 1 and not recipe.stages.launcher:
        problem = f"{recipe.stages.nodes} nodes, and nothing that starts a command on them"
        raise UserError(path, problem, "say e.g. srun --ntasks-per-node=1", field="stages.launcher")


def _check_best_of(evaluation: Evaluation, path: Path) -> None:
    for i, choice in enumerate(evaluation.best_of):
        choice.check(path, f"evaluation.best_of[{i}].")
        if choice in evaluation.best_of[:i]:
            problem = f"{choice.mode} stands there twice"
            raise UserError(path, problem, "remove one", field="evaluation.best_of")


def _check_loss(recipe: Recipe, path: Path) -> None:
    """The loss of Q is that of its labels."""
    if recipe.stages.prm is None:
        return
    file = path.parent / recipe.stages.prm
    loss = read_yaml(file).get("loss", "soft_bce")
    if not isinstance(loss, str) or loss not in LABELS:
        raise UserError(file, f"no loss '{loss}'", f"choose one of {', '.join(LABELS)}", field="loss")
    if recipe.labels.kind not in LABELS[loss]:
        problem = f"{loss} is no loss of {recipe.labels.kind} labels"
        wanted = [name for name, kinds in LABELS.items() if recipe.labels.kind in kinds]
        remedy = f"say {wanted[0]}" if wanted else f"labels.kind is one of {', '.join(LABELS[loss])}"
        raise UserError(file, problem, remedy, field="loss")


def _check_names(recipe: Recipe, path: Path) -> None:
    """The prompt, the preset and the splits of games, and the order of an expert's search are there."""
    try:
        load(recipe.prompt)
    except UserError as error:
        raise UserError(path, error.problem, error.remedy, field="prompt") from None
    chosen: list[tuple[str, Iterable[str], Iterable[str]]] = []
    if recipe.games is not None:
        chosen.append(("games.preset", [recipe.games.preset], PRESETS))
        chosen.append(("games.splits", recipe.games.splits, SPLITS))
        chosen.append(("evaluation.split", [recipe.evaluation.split], SPLITS))
        chosen.append(("quality.split", [recipe.quality.split] if recipe.quality else [], SPLITS))
    for name in ("demonstrations", "exploring"):
        if (wanted := getattr(recipe.start, name)) is not None:
            chosen.append((f"start.{name}.search", [wanted.search], SEARCHES))
    for field, values, valid in chosen:
        for value in values:
            if value not in valid:
                raise UserError(path, f"no '{value}'", f"choose one of {', '.join(valid)}", field=field)


def _check_games(recipe: Recipe, path: Path) -> None:
    """Generated games are enough for all that is played."""
    if recipe.games is None or recipe.games.path is not None:
        return
    start, evaluation, quality = recipe.start, recipe.evaluation, recipe.quality
    played = {"rollouts": ("train", recipe.rollouts.games), "evaluation": (evaluation.split, evaluation.games)}
    if quality is not None:
        played["quality"] = quality.split, quality.games
    for name, wanted in (("demonstrations", start.demonstrations), ("exploring", start.exploring)):
        if wanted is not None:
            played[f"start.{name}"] = "train", wanted.games
    for name, (split, games) in played.items():
        there = recipe.games.splits.get(split, 0)
        if games > there:
            problem = f"{games} of {split}, and games.splits has {there}"
            raise UserError(path, problem, "generate more or ask for fewer", field=f"{name}.games")


def _check_files(recipe: Recipe, path: Path) -> None:
    """The host's files stand beside recipe.yaml."""
    stages = {"prm": recipe.stages.prm, **recipe.stages.of_policy}
    named = {"start.sft": recipe.start.sft, **{f"stages.{name}": file for name, file in stages.items()}}
    for name, file in named.items():
        # A copy of it, filled in, goes into the stage's folder under this name.
        if file is not None and os.path.normpath(file) != Path(file).name:
            raise UserError(path, f"'{file}' is not a file name", "put the file beside recipe.yaml", field=name)
        if file is not None and not (path.parent / file).is_file():
            raise UserError(path, f"no file '{file}' beside it", "add it or correct the name", field=name)
