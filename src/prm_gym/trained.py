"""What a checkpoint was trained for: the prompt it reads, and the step limit and temperature of its episodes.

`prm-gym iter` writes it into the checkpoint's provenance.json as "trained_for": {"prompt": {"name", "fingerprint",
"source"}, "max_episode_steps", "temperature"}. Commands that play a checkpoint take all three from there. A model that
reads another prompt than it was trained on writes nonsense, so other values are an error unless they are forced.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.fingerprint import of_prompt
from prm_gym.prompts import Prompt, load


@dataclass(frozen=True)
class TrainedFor:
    """`temperature` is that of the episodes that Q stands for; Stage 3 may sample hotter."""

    prompt: Prompt
    max_episode_steps: int
    temperature: float

    def as_dict(self) -> dict[str, Any]:
        prompt = {**of_prompt(self.prompt), "source": self.prompt.source}
        return {"prompt": prompt, "max_episode_steps": self.max_episode_steps, "temperature": self.temperature}


def trained_for(folder: str | PathLike[str]) -> TrainedFor | None:
    """What the checkpoint in `folder` says, or the training it is a `checkpoint-STEP` of; None if it says nothing.

    Raises `UserError` if its provenance.json cannot be read.
    """
    folder = Path(folder)
    places = [folder, *([folder.absolute().parent] if folder.name.startswith("checkpoint-") else [])]
    record = next(filter(None, map(provenance.read, places)), None)
    if record is None or "trained_for" not in record["settings"]:
        return None
    said = record["settings"]["trained_for"]
    try:
        prompt = Prompt(said["prompt"]["name"], said["prompt"]["source"])
        return TrainedFor(prompt, int(said["max_episode_steps"]), float(said["temperature"]))
    except (KeyError, TypeError, ValueError) as error:
        remedy = "remove it, and say --prompt, --max-episode-steps and --temperature"
        raise UserError(folder / provenance.FILE, f"cannot be read ({error!r})", remedy, field="trained_for") from None


def settle(
    folder: str | PathLike[str] | None,
    *,
    prompt: str | None,
    max_episode_steps: int | None,
    temperature: float | None,
    force: bool = False,
) -> TrainedFor:
    """How to play the checkpoint in `folder` (None: a policy that is no checkpoint). Where an argument is None it is as
    in training; of a model that says nothing, the prompt `full`, 30 steps and temperature 0.3.

    Raises `UserError` for an argument that differs from the training unless `force`.
    """
    trained = None if folder is None else trained_for(folder)
    asked = None if prompt is None else load(prompt)
    if trained is not None and not force:
        if asked is not None and asked.source != trained.prompt.source:
            raise _other(folder, "prompt", trained.prompt.name, asked.name)
        given = {"max_episode_steps": max_episode_steps, "temperature": temperature}
        for field, value in given.items():
            if value is not None and value != (before := getattr(trained, field)):
                raise _other(folder, field, before, value)
    usual = trained or TrainedFor(load("full"), 30, 0.3)
    return TrainedFor(
        asked or usual.prompt,
        usual.max_episode_steps if max_episode_steps is None else max_episode_steps,
        usual.temperature if temperature is None else temperature,
    )


def prompt_for(folder: str | PathLike[str], prompt: Prompt | str | None) -> Prompt:
    """`prompt`, by name, path or as it is; where it is None the one that the model was trained on, else `full`."""
    if isinstance(prompt, Prompt):
        return prompt
    trained = trained_for(folder) if prompt is None else None
    return load(prompt or "full") if trained is None else trained.prompt


def check_prm(folder: str | PathLike[str], prompt: Prompt, *, force: bool = False) -> None:
    """Raise `UserError` if the PRM in `folder` was trained on another prompt than the policy reads, unless `force`."""
    trained = trained_for(folder)
    if trained is not None and not force and trained.prompt.source != prompt.source:
        raise _other(folder, "prompt", trained.prompt.name, prompt.name)


def _other(folder: Any, field: str, trained: object, given: object) -> UserError:
    flag = "--" + field.replace("_", "-")
    problem = f"{folder} was trained for {trained}, not {given}"
    return UserError(flag, problem, f"leave {flag} out, or add --force to play it otherwise")
