"""The provenance of an artefact: `provenance.json` in every folder of episodes, labels or weights.

    {"settings": {...},   everything that the content depends on, and nothing else
     "runs": [{"command", "started" (UTC, ISO 8601), "prm_gym", "commit" (null outside a checkout), "python",
               "packages": {name: version}, "machine"}, ...]}    the processes that wrote here, first to last

Settings are nested JSON. An input with content (a checkpoint, a prompt, a set of games) is an object
{"name", "fingerprint", ...}: two are the same if their fingerprints are equal; other keys are for people. The settings
of each kind of artefact:

    episodes     {"kind": "collect" or "branch", "policy": Policy.settings, "policy_id", "games", "iteration", "seed",
                 "max_episode_steps"}; of branches also "parents", "proposals" and how states and actions are chosen
    policy       {"kind": "expert" | "random" | "transformers" | "server" | "best_of_n" | "planner", ...} with, as they
                 apply, "model", "prompt", "temperature", "max_new_tokens"; of best-of-N "n", "weight", "among",
                 "policy", "scorer"; of a planner also "depth", "width", "world"
    labels       {"kind": "labels", "label", the label's arguments by name}, folders among them as {"name",
                 "fingerprint", "settings" of the folder or null}; of `inverse` also "policy"
    weights      {"kind": "training", "stage", "host", "config", "inputs", "trained_for"}
    results.json each entry has the "settings" of its episodes

Rules. `claim` refuses other settings, and names the first field that differs with both values. A setting missing from
the file of an older version is unknown: the artefact may be read but not added to. Speed (concurrency, batch sizes,
processes, servers, device, dtype) is not a setting. Neither is the amount (games drawn, rollouts per game): more of the
same may be added. The manifest of a stage (`runs.stage`) also has "settings" and one "run".
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import prm_gym
from prm_gym.atomic import write_json
from prm_gym.errors import UserError
from prm_gym.packages import versions
from prm_gym.provenance.fingerprints import Identity

FILE = "provenance.json"
_PACKAGES = ("torch", "transformers", "trl", "vllm", "alfworld", "duckdb", "pyarrow", "datasets")
_MISSING = object()

Settings = dict[str, Any]


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record `settings` in a new folder, or check that an existing folder has the same, before anything is added to it.

    Raises `UserError` for other or unknown settings, and for an unreadable file.
    """
    file = folder / FILE
    if not file.exists():
        write(folder, settings)
        return
    record = read(folder)
    assert record is not None
    remedy = "use the same settings to go on, or another output folder"
    refuse_others(file, record["settings"], settings, remedy)
    run, last = this_run(), record["runs"][-1] if record["runs"] else {}
    if {**run, "started": None} != {**last, "started": None}:
        write_json(file, {**record, "runs": [*record["runs"], run]})


def refuse_others(file: Path, before: Mapping[str, Any], now: Mapping[str, Any], remedy: str) -> None:
    """Raise `UserError` for the first setting in `file` that differs from the command's, with both values."""
    for field, made, wanted in differences(before, json.loads(json.dumps(now))):
        raise UserError(file, f"begun with {show(made)}, this command says {show(wanted)}", remedy, field=field)


def write(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the provenance of an artefact made by this process."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, {"settings": settings, "runs": [this_run()]})


def read(folder: Path) -> dict[str, Any] | None:
    """{"settings", "runs"} of an artefact; None without the file. Raises `UserError` if it cannot be read."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text("utf-8"))
        return {"settings": dict(record["settings"]), "runs": list(record["runs"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(file, f"cannot be read ({error!r})", "name another folder, or make this one again") from None


def identity(folder: Path) -> Identity:
    """An input folder, identified by its settings, since more episodes of the same may be added to it. The fingerprint
    is "unknown" without a provenance.json.
    """
    record = read(folder)
    known = None if record is None else digest(record["settings"])
    return {"name": str(folder), "fingerprint": known or "unknown"}


def policy_of(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the policy of episodes; for best-of-N and planners, those of the policy that samples."""
    policy: Mapping[str, Any] = settings["policy"]
    return policy_of(policy) if policy.get("kind") in ("best_of_n", "planner") else policy


def prompt_of(settings: Mapping[str, Any]) -> Identity | None:
    """The prompt of the policy of episodes, else of the scorer; None if neither reads one."""
    if "policy" not in settings:
        return None
    reads = [policy_of(settings), settings["policy"].get("scorer", {})]
    return next((each["prompt"] for each in reads if "prompt" in each), None)


def differences(one: Any, other: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The differences of two settings as (dotted field, value in `one`, value in `other`).

    Objects with a fingerprint are compared by it. A missing value is a marker that `show` renders as "unknown".
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if "fingerprint" in one and "fingerprint" in other:
            if one["fingerprint"] != other["fingerprint"]:
                yield field, one, other
            return
        for name in [*other, *(name for name in one if name not in other)]:
            place = f"{field}.{name}" if field else str(name)
            yield from differences(one.get(name, _MISSING), other.get(name, _MISSING), place)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, theirs, f"{field}[{number}]")
    elif one != other:
        yield field, one, other


def show(value: Any) -> str:
    """A setting as text; an object with a fingerprint as its name and the first digits of the fingerprint."""
    if value is _MISSING:
        return "unknown"
    if isinstance(value, Mapping) and "fingerprint" in value:
        return f"{value.get('name')!r} ({str(value['fingerprint'])[:8]})"
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {show(of)}" for name, of in value.items()) + ")"
    if isinstance(value, list | tuple):
        return ", ".join(map(show, value)) or "none"
    return "none" if value is None else repr(value)


def digest(settings: Mapping[str, Any]) -> str:
    """8 hex digits of the settings, for folder names; equal if `differences` finds none."""

    def compared(value: Any) -> Any:
        if isinstance(value, Mapping):
            if "fingerprint" in value:
                return value["fingerprint"]
            return {name: compared(of) for name, of in value.items()}
        return [compared(of) for of in value] if isinstance(value, list | tuple) else value

    text = json.dumps(compared(settings), sort_keys=True)
    return blake2b(text.encode(), digest_size=4).hexdigest()


def this_run() -> dict[str, Any]:
    """The entry of "runs" for this process."""
    return {
        "command": _command(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "prm_gym": prm_gym.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": _versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs{_gpu()}",
    }


def _command() -> str:
    """`prm-gym ...` as typed, or `python -m MODULE ...`."""
    program, *arguments = sys.argv
    names, folder = [Path(program).stem], Path(program).parent
    while (folder / "__init__.py").is_file():  # a file of a package runs by `-m`; a worker process has no `__spec__`
        names, folder = [folder.name, *names], folder.parent
    if len(names) == 1:
        return shlex.join([Path(program).name, *arguments])
    return shlex.join(["python", "-m", ".".join(names).removesuffix(".__main__"), *arguments])


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return versions(_PACKAGES)


@lru_cache(maxsize=1)
def _commit() -> str | None:
    """The commit of the checkout that prm_gym is imported from, with `-dirty` if files have changed."""
    root = Path(prm_gym.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None


def _gpu() -> str:
    """The GPUs, if torch is already imported."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return f", {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
