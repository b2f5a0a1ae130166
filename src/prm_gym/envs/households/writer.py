"""Write households to disk in alfworld's own format, each game atomically.

Games are drawn with random generators seeded by (preset, seed, split, index), so a game does not depend on the number
of workers or on existing files. A game with the same texts as an earlier one of the run is drawn again. Workers write
the files. `households.json` has the parameters of a folder and whether it is complete: the same command resumes after a
kill, another command is refused.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from prm_gym.atomic import write_json
from prm_gym.envs.games import SPLITS, TASK_TYPES
from prm_gym.envs.households.catalog import catalog
from prm_gym.envs.households.household import Game
from prm_gym.envs.households.pddl import problem, trajectory
from prm_gym.envs.households.plans import check, walkthrough
from prm_gym.envs.households.sampling import PRESETS, draw_game
from prm_gym.envs.households.splits import draw_task
from prm_gym.errors import UserError
from prm_gym.worker_pool import spawned

MANIFEST = "households.json"
_FORMAT = 1  # to be increased if the same parameters give other bytes
_PARTIAL = ".partial"
_CHUNK = 16  # games handed to a worker at a time
_ATTEMPTS = 100  # redraws of a game before giving up on one that differs from all earlier ones


def generate(
    out: Path, *, preset: str, splits: Mapping[str, int], seed: int, workers: int = 1, progress: bool = True
) -> dict[str, int]:
    """Write `splits` (split name -> how many games) of household games under `out` and return the counts.

    Task types alternate, so they are balanced to within one game. Raises `UserError` before anything is written if a
    parameter is invalid, alfworld is not installed, or `out` has other content; and later for errors of the disk.
    """
    parameters = _parameters(preset, splits, seed, workers)
    counts: dict[str, int] = dict(parameters["splits"])
    tables = catalog()
    parameters["alfworld"] = tables.version
    out = Path(out)
    try:
        if _prepare(out, parameters):
            return counts
        written = _write_all(out, games(preset, counts, seed), workers)
        console = Console(stderr=True)
        for _ in track(written, "games", sum(counts.values()), console=console, disable=not progress):
            pass
        shutil.rmtree(out / _PARTIAL, ignore_errors=True)
        write_json(out / MANIFEST, {**parameters, "complete": True})
    except OSError as error:
        place = error.filename or out
        raise UserError(
            place, f"cannot be written ({error.strerror})", "free space or choose another folder, then run again"
        ) from error
    return counts


def games(preset: str, splits: Mapping[str, int], seed: int) -> Iterator[tuple[str, Game]]:
    """(split, game) for all games in order, all with different texts."""
    known: set[bytes] = set()
    for split, count in splits.items():
        for index in range(count):
            game = _draw_new(known, preset, split, index, seed)
            known.add(game.text_key)
            yield split, game


def _draw_new(known: set[bytes], preset: str, split: str, index: int, seed: int) -> Game:
    for attempt in range(_ATTEMPTS):
        game = _draw(preset, split, index, seed, attempt)
        if game.text_key not in known:
            return game
    raise UserError("splits", f"preset {preset} has only {index} different games", "ask for fewer", field=split)


def _draw(preset: str, split: str, index: int, seed: int, attempt: int) -> Game:
    key = f"{preset} {seed} {split} {index}"
    rng = random.Random(f"{key} {attempt}")
    number, task = draw_task(split, TASK_TYPES[index % len(TASK_TYPES)], rng)
    digits = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
    trial = f"trial_T{digits % 10**8:08d}_{index:06d}_{digits // 10**8 % 10**6:06d}"
    return draw_game(PRESETS[preset], number, task, trial, rng)


def _parameters(preset: str, splits: Mapping[str, int], seed: int, workers: int) -> dict[str, Any]:
    if preset not in PRESETS:
        raise UserError("preset", f"there is no preset {preset!r}", f"choose one of {', '.join(PRESETS)}")
    if not splits:
        raise UserError("splits", "no split was asked for", "give for instance train=1000,valid_seen=100")
    for split, count in splits.items():
        if split not in SPLITS:
            raise UserError("splits", "there is no such split", f"choose from {', '.join(SPLITS)}", field=repr(split))
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError("splits", f"{count!r} is not a number of games", "give at least 1", field=split)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError("seed", f"{seed!r} is not a seed", "give an integer from 0")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise UserError("workers", f"{workers!r} is not a number of processes", "give at least 1")
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    return {"format": _FORMAT, "preset": preset, "splits": ordered, "seed": seed}


def _prepare(out: Path, parameters: dict[str, Any]) -> bool:
    """Record the parameters in `out`, or check that they are the same; True if it already has all games."""
    manifest = out / MANIFEST
    if out.exists() and not out.is_dir():
        raise UserError(out, "is not a folder", "choose another")
    if not manifest.exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(out, "is not empty and holds no generated games", "choose a new or an empty folder")
        out.mkdir(parents=True, exist_ok=True)
        write_json(manifest, {**parameters, "complete": False})
        return False
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(manifest, "is not JSON", "delete the folder or choose another") from error
    for field, value in parameters.items():
        if not isinstance(found, dict) or found.get(field) != value:
            was = found.get(field) if isinstance(found, dict) else None
            raise UserError(
                manifest,
                f"the games here were generated with {was!r}, not {value!r}",
                "choose another folder, or delete this one",
                field=field,
            )
    return found.get("complete") is True


def _write_all(out: Path, jobs: Iterator[tuple[str, Game]], workers: int) -> Iterator[None]:
    """Write the games, yielding once for each, with a bounded number of games waiting in memory."""
    if workers == 1:
        for job in jobs:
            _write_games(out, [job])
            yield
        return
    workers = min(workers, os.cpu_count() or 1)
    with spawned(workers) as pool:
        while wave := list(islice(jobs, _CHUNK * workers * 4)):
            chunks = [wave[start : start + _CHUNK] for start in range(0, len(wave), _CHUNK)]
            for size in pool.map(_write_games, [out] * len(chunks), chunks):
                yield from [None] * size


def _write_games(out: Path, jobs: list[tuple[str, Game]]) -> int:
    """Write those games that are not on disk yet; returns the number of jobs."""
    for split, game in jobs:
        if not (out / split / game.folder).is_dir():
            _write_game(out, split, game)
    return len(jobs)


def _write_game(out: Path, split: str, game: Game) -> None:
    """Write both files of a game to a folder that is renamed into place when complete."""
    tables = catalog()
    commands = walkthrough(tables, game)
    check(tables, game, commands)
    partial = out / _PARTIAL / split / game.trial
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    content = {
        "pddl_domain": tables.domain,
        "grammar": tables.grammar.replace("UNKNOWN GOAL", game.sentence),
        "pddl_problem": problem(tables, game),
        "solvable": True,
        "walkthrough": commands,
    }
    (partial / "game.tw-pddl").write_text(json.dumps(content), encoding="utf-8")
    (partial / "traj_data.json").write_text(json.dumps(trajectory(game), indent=1), encoding="utf-8")
    final = out / split / game.folder
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, final)
