"""A stage of a run: its output, its settings, and the manifest that marks it complete.

The manifest is written last. A stage with a manifest is skipped. One without is run; episode stores and training
checkpoints resume. Settings that differ from those of a complete stage are an error, and so is an input (a checkpoint,
a dataset, games) that has changed since.

    manifest.json: {"stage", "settings", "inputs": {place: {"name", "fingerprint"}}, "seconds", "run", facts}

"run" is an entry of the "runs" in `provenance`. Inputs that were removed since are not compared, and neither are those
of a stage completed by an older version, which did not record them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

import prm_gym
from prm_gym.atomic import write_json
from prm_gym.errors import UserError
from prm_gym.provenance import differences, show, this_run
from prm_gym.provenance.fingerprints import Identity

MANIFEST = "manifest.json"
_LATER = ("branches", "max_episode_steps", "max_new_tokens")  # settings that older manifests lack: unknown there
# Settings that are recorded and not compared, since the output does not depend on them: any key that begins so.
_HOW_FAST = ("sampling.max_batch", "sampling.processes", "sampling.serve", "sampling.ray")


@dataclass(frozen=True)
class Cost:
    """The cost of a stage, as far as the recipe determines it, for a dry run."""

    rows: int | None = None  # at most, in its episode store
    episodes: int | None = None  # that it plays or reads, at most: what its time grows with
    trains: str = ""  # the host's stage, such as sft, prm, online_dpo
    command: tuple[str, ...] = ()  # of the host, for a training stage
    nodes: tuple[tuple[str, ...], ...] = ()  # what the command's launcher runs on each node
    servers: tuple[str, ...] = ()  # the commands of the servers that it starts, for a shell
    model: Path | None = None  # the checkpoint that a training starts from

    @classmethod
    def of_episodes(cls, episodes: int, max_episode_steps: int, servers: tuple[str, ...] = ()) -> Cost:
        """A row for each action, and one for the final observation."""
        return cls(rows=episodes * (max_episode_steps + 1), episodes=episodes, servers=servers)


@dataclass(frozen=True)
class Stage:
    """`make` fills the folder `out` and may return facts for the manifest. Its output depends only on `settings` and on
    `inputs`: folders and other inputs by name.
    """

    name: str
    out: Path
    settings: dict[str, Any]
    make: Callable[[], dict[str, Any] | None]
    inputs: Callable[[], dict[str, Identity]] = dict
    cost: Cost = Cost()


def is_complete(stage: Stage) -> bool:
    """Whether the stage has a manifest. Raises `UserError` if that is unreadable, or has other settings or inputs."""
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
        if key.startswith(_HOW_FAST) or (made is None and key in _LATER):
            continue
        raise UserError(path, f"made with {made!r}, not {want!r}", remedy, field=key)
    there = stage.inputs() if made_from else {}
    common = made_from.keys() & there.keys()
    for name, made, now in differences({n: made_from[n] for n in common}, {n: there[n] for n in common}):
        problem = f"made from {show(made)}, which is {show(now)} now"
        raise UserError(path, problem, remedy, field=f"inputs.{name}")
    return True


def _differences(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The differences of two JSON values as (dotted key, one, other); a missing key counts as null."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from _differences(one.get(name), other.get(name), f"{key}.{name}" if key else name)
    elif one != other:
        yield key, one, other


def run(stages: list[Stage], console: Console) -> None:
    """Run the incomplete stages, in order."""
    for number, stage in enumerate(stages, 1):
        label = Text(f"[{number}/{len(stages)}] {stage.name}", "bold")
        if is_complete(stage):
            console.print(label, Text("complete", "dim"))
            continue
        console.print(label, Text(f"-> {stage.out}"))
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
        console.print(label, Text("done", "green"), f"in {seconds:.0f} s")
