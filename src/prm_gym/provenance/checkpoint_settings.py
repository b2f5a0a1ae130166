"""The settings that a checkpoint was trained for: its prompt, and the step limit and temperature of its episodes.

`prm-gym iter`, or a host's stage run by itself, writes them into the checkpoint's provenance.json as
"trained_for": {"prompt": {"name", "fingerprint", "source"}, "max_episode_steps", "temperature"}. Commands that play a
checkpoint use them by default. With another prompt than in training a model writes nonsense, so other values are an
error unless forced. A Q also has "reads", the tokens that it was trained to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.prompts import Prompt, load
from prm_gym.provenance.fingerprints import of_prompt
from prm_gym.provenance.model_config import architectures, model_config

READS = "responses without the end of the turn"  # Q; before 2026-11-28 the token that ends the turn as well


@dataclass(frozen=True)
class TrainedFor:
    """`temperature` is that of the episodes that Q was trained on; Stage 3 may use a higher one. None if unknown."""

    prompt: Prompt
    max_episode_steps: int | None
    temperature: float | None

    def as_dict(self) -> dict[str, Any]:
        prompt = {**of_prompt(self.prompt), "source": self.prompt.source}
        return {"prompt": prompt, "max_episode_steps": self.max_episode_steps, "temperature": self.temperature}


def trained_for(folder: str | PathLike[str]) -> TrainedFor | None:
    """The record in the checkpoint `folder`, or in the training of which it is a `checkpoint-STEP`; None without one.

    Raises `UserError` if its provenance.json cannot be read.
    """
    folder = Path(folder)
    record = next(filter(None, map(provenance.read, _places(folder))), None)
    if record is None or "trained_for" not in record["settings"]:
        return None
    said = record["settings"]["trained_for"]
    try:
        prompt = Prompt(said["prompt"]["name"], said["prompt"]["source"])
        return TrainedFor(prompt, said["max_episode_steps"], said["temperature"])
    except (KeyError, TypeError, ValueError) as error:
        remedy = "remove it, and say --prompt, --max-episode-steps and --temperature"
        raise UserError(folder / provenance.FILE, f"cannot be read ({error!r})", remedy, field="trained_for") from None


def _places(folder: str | PathLike[str]) -> list[Path]:
    """The folders that may hold the record of a checkpoint: its own, and that of its training."""
    folder = Path(folder)
    return [folder, *([folder.absolute().parent] if folder.name.startswith("checkpoint-") else [])]


def settle(
    folder: str | PathLike[str] | None,
    *,
    prompt: str | None,
    max_episode_steps: int | None,
    temperature: float | None,
    force: bool = False,
    usual_prompt: str = "full",
) -> TrainedFor:
    """The settings to play the checkpoint in `folder` with (None for a policy that is not a checkpoint).

    An argument that is None is as in training, or else the prompt `usual_prompt`, 30 steps and temperature 0.3. Raises
    `UserError` for an argument that differs from training unless `force`.
    """
    trained = None if folder is None else trained_for(folder)
    asked = None if prompt is None else load(prompt)
    if trained is not None and not force:
        if asked is not None and asked.source != trained.prompt.source:
            raise _other(folder, "prompt", trained.prompt.name, asked.name)
        given = {"max_episode_steps": max_episode_steps, "temperature": temperature}
        for field, value in given.items():
            before = getattr(trained, field)
            if value is not None and before is not None and value != before:
                raise _other(folder, field, before, value)
    usual = trained or TrainedFor(load(usual_prompt), None, None)

    def first(*values: Any) -> Any:
        return next(value for value in values if value is not None)

    return TrainedFor(
        asked or usual.prompt,
        first(max_episode_steps, usual.max_episode_steps, 30),
        first(temperature, usual.temperature, 0.3),
    )


def prompt_for(folder: str | PathLike[str], prompt: Prompt | str | None) -> Prompt:
    """`prompt`, loaded if it is a name or path; if it is None, the one the model was trained on, else `full`."""
    if isinstance(prompt, Prompt):
        return prompt
    trained = trained_for(folder) if prompt is None else None
    return load(prompt or "full") if trained is None else trained.prompt


def carry(config: Any, out: str | PathLike[str], *, reads: str | None = None) -> None:
    """Record in the checkpoint folder `out` the settings of the labels it was trained on, unless `prm-gym iter` has.

    The label folder is named anywhere in `config`, a host's file or a list of datasets. `reads` is `READS` for a Q.
    """
    out = Path(out)
    record = next((record for folder in _folders(config) if (record := provenance.read(folder))), None)
    before = provenance.read(out)
    if record is None or "prompt" not in record["settings"] or (before and "stage" in before["settings"]):
        return
    episodes = [each["settings"] for each in record["settings"].get("rollouts", ()) if each["settings"]]
    played = episodes[0] if episodes else {}
    policy = provenance.policy_of(played) if "policy" in played else {}
    sampled = {"max_episode_steps": played.get("max_episode_steps"), "temperature": policy.get("temperature")}
    trained = {"prompt": record["settings"]["prompt"], **sampled}
    settings = {"kind": "training", "config": config, "trained_for": trained}
    provenance.write(out, settings if reads is None else {**settings, "reads": reads})


def _folders(config: Any) -> Iterator[Path]:
    if isinstance(config, str):
        if config and os.path.isdir(config):  # `Path.is_dir` raises for a long text
            yield Path(config)
    elif isinstance(config, Mapping):
        for key, value in config.items():
            yield from (*_folders(key), *_folders(value))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _folders(value)


def check_prm(folder: str | PathLike[str], prompt: Prompt, *, force: bool = False) -> None:
    """Raise `UserError` if the PRM in `folder` was trained on another prompt than the policy's, unless `force`."""
    trained = trained_for(folder)
    if trained is not None and not force and trained.prompt.source != prompt.source:
        problem = f"{folder} was trained on the prompt {trained.prompt.name}, and the policy reads {prompt.name}"
        remedy = f"name a PRM of this policy, say --prompt {trained.prompt.name} if both read it, or add --force"
        raise UserError("--prm", problem, remedy)


def check_reads(folder: str | PathLike[str]) -> None:
    """Raise `UserError` if `folder` holds a model other than a Q, or a Q that was trained to read other tokens than
    `READS`. One without a provenance.json is of another program, and accepted.
    """
    _check_is_q(Path(folder))
    for place in _places(folder):
        settings = (provenance.read(place) or {"settings": {}})["settings"]
        if settings.get("kind") == "training" and settings.get("reads") != READS:
            problem = "this Q was trained by an older version, which read the token that ends the turn as well"
            raise UserError(place / provenance.FILE, problem, "train it again", field="reads")


def _check_is_q(folder: Path) -> None:
    config, named = model_config(folder), architectures(folder)
    if config is None or len(named) > 1:
        return  # loading the model tells
    labels = config.get("id2label")
    count = len(labels) if labels and isinstance(labels, dict) else 2  # two by default
    is_classifier = all(name.endswith("ForSequenceClassification") for name in named)
    if not is_classifier or count != 1:
        found = f"a classifier with {count} labels" if is_classifier else named[0]
        problem = f"{found} is no Q, a sequence classifier with one logit"
        remedy = "name a checkpoint that was trained on labels of Q"
        raise UserError(folder / "config.json", problem, remedy, field="architectures")


def _other(folder: Any, field: str, trained: object, given: object) -> UserError:
    flag = "--" + field.replace("_", "-")
    problem = f"{folder} was trained for {trained}, not {given}"
    return UserError(flag, problem, f"leave {flag} out, or add --force to play it otherwise")
