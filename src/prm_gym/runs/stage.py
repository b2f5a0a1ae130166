"""A stage of a run: what it makes, from which settings, and the manifest that says it is complete.

The manifest is written last. A stage whose manifest is there is skipped; one without is run, and goes on where it was
as far as what it calls can (episode stores and training checkpoints do). Settings that differ from those of a complete
stage are an error, never a silent mixture. So is an input (a checkpoint, a dataset, games) that has changed since.

    manifest.json: {"stage", "settings", "inputs": {place: {"name", "fingerprint"}}, "seconds", "run", facts}

"run" is an entry of the "runs" in `provenance`. An input that has been removed since is not asked for, nor are those of
a stage that an older version completed, which did not write them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import prm_gym
from prm_gym.atomic import write_json
from prm_gym.errors import UserError
from prm_gym.provenance import differences, show, this_run
from prm_gym.provenance.fingerprints import Identity

MANIFEST = "manifest.json"
_HOW_FAST = ("sampling.max_batch", "sampling.processes")  # recorded, but what is made does not depend on them


@dataclass(frozen=True)
class Cost:
    """The cost of a stage, as far as the recipe determines it, for a dry run."""

    rows: int | None = None  # at most, in its episode store
    command: tuple[str, ...] = ()  # of the host, for a training stage
    model: Path | None = None  # the checkpoint that a training starts from

    @classmethod
    def of_episodes(cls, episodes: int, max_episode_steps: int) -> Cost:
        """A row for each action, and one for the final observation."""
        return cls(rows=episodes * (max_episode_steps + 1))


@dataclass(frozen=True)
class Stage:
    """`make` fills the folder `out` and may return facts for the manifest. `settings` and `inputs`, the folders and
    other things by name that `out` is made from, are all that it depends on.
    """

    name: str
    out: Path
    settings: dict[str, Any]
    make: Callable[[], dict[str, Any] | None]
    inputs: Callable[[], dict[str, Identity]] = dict
    cost: Cost = Cost()


def is_complete(stage: Stage) -> bool:
    """Whether the manifest says so. Raises `UserError` if it is unreadable or made with other settings or inputs."""
    path = stage.out / MANIFEST
    if not path.exists():
        return False
    remedy = f"choose another run folder, or remove {stage.out} and what was made from it"
    try:
        manifest = json.loads(path.read_text("utf-8"))
        made_with, made_from = manifest["settings"], manifest.get("inputs", {})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(path, f"not a manifest ({error})", remedy) from None
    wanted = json.loads(json.dumps(stage.settings))
    for key, made, want in _differences(made_with, wanted):
        if key in _HOW_FAST:
            continue
        raise UserError(path, f"made with {made!r}, not {want!r}", remedy, field=key)
    there = stage.inputs() if made_from else {}
    common = made_from.keys() & there.keys()
    for name, made, now in differences({n: made_from[n] for n in common}, {n: there[n] for n in common}):
        problem = f"made from {show(made)}, which is {show(now)} now"
        raise UserError(path, problem, remedy, field=f"inputs.{name}")
    return True


def _differences(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs between two JSON values as (dotted key, one, other); a key that is missing counts as null."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from _differences(one.get(name), other.get(name), f"{key}.{name}" if key else name)
    elif one != other:
        yield key, one, other


def run(stages: list[Stage], console: Console) -> None:
    """Make what is not complete, in order."""
    for number, stage in enumerate(stages, 1):
        label = f"[bold]\\[{number}/{len(stages)}] {stage.name}[/bold]"
        if is_complete(stage):
            console.print(f"{label} [dim]complete[/dim]")
            continue
        console.print(f"{label} -> {stage.out}")
        started = time.monotonic()
        try:
            stage.out.mkdir(parents=True, exist_ok=True)
            inputs = stage.inputs()
            facts = stage.make() or {}
            seconds = round(time.monotonic() - started, 1)
            manifest = {"stage": stage.name, "settings": stage.settings, "inputs": inputs, "seconds": seconds, **facts}
            write_json(stage.out / MANIFEST, {**manifest, "prm_gym": prm_gym.__version__, "run": this_run()})
        except OSError as error:
            remedy = "free space or make the folder writable, then run the same command again"
            raise UserError(error.filename or stage.out, error.strerror or str(error), remedy) from error
        console.print(f"{label} [green]done[/green] in {seconds:.0f} s")
