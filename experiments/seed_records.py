"""The results of a finding for one seed, kept in the repository, so that a seed is measured once on any machine.

results/seeds/<finding>-<seed>.json has the cells of the seed and the digest of the recipe. A game is named by a digest
of its id. `won` has a character per game, in the order of `games`: 1, 0, or - if it was not played.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import prm_gym
from experiments.findings import Cell, Place
from prm_gym.atomic import write_json
from prm_gym.config import read_yaml
from prm_gym.errors import UserError


def recipe_digest(folder: Path) -> str:
    """A digest of the values in the YAML files, without comments."""
    files = {file.name: read_yaml(file) for file in folder.glob("*.yaml")}
    return _digest(json.dumps(files, sort_keys=True), 16)


def place(out: Path, finding: str, seed: int) -> Path:
    """The file of a seed in the folder of results."""
    return out / "seeds" / f"{finding}-{seed}.json"


def write(file: Path, recipe: str, cells: Sequence[Cell]) -> None:
    """Write the cells of a seed, measured on the recipe with that digest."""
    types = {game: of for cell in cells for game, (of, _) in (cell.outcome or {}).items()}
    games = sorted(types, key=lambda game: (types[game], game))
    by_type = groupby(games, types.__getitem__)
    record = {
        "recipe": recipe,
        "prm_gym": prm_gym.__version__,
        "games": {of: " ".join(_digest(game, 8) for game in some) for of, some in by_type},
        "cells": [{"series": cell.series, "x": cell.x, **_found(cell, games)} for cell in cells],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, record)


def read(file: Path, recipe: str) -> list[Cell] | None:
    """The cells of a seed; None if it was not measured on the recipe with that digest."""
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text("utf-8"))
        if record["recipe"] != recipe:
            return None
        games = [(game, of) for of, some in record["games"].items() for game in some.split()]
        return [_cell(games, **cell) for cell in record["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(file, f"not the record of a seed ({error})", "remove it to measure the seed again") from None


def read_all(out: Path, finding: str, recipe: str) -> dict[int, list[Cell]]:
    """The cells of every seed that was measured on the recipe with that digest."""
    files = (out / "seeds").glob(f"{finding}-*.json")
    found = {int(file.stem.rpartition("-")[2]): read(file, recipe) for file in files}
    return {seed: cells for seed, cells in sorted(found.items()) if cells is not None}


def _found(cell: Cell, games: Sequence[str]) -> dict[str, Any]:
    if cell.outcome is None:
        return {"value": cell.value} if cell.pairs is None else {"value": cell.value, "pairs": cell.pairs}
    shares = {game: share for game, (_, share) in cell.outcome.items()}
    if not {*shares.values()} <= {0.0, 1.0}:
        raise UserError(cell.series, "a game was played more than once", "a record has room for one episode a game")
    return {"won": "".join(f"{shares[game]:.0f}" if game in shares else "-" for game in games)}


def _cell(
    games: Sequence[tuple[str, str]],
    series: str,
    x: Place,
    won: str | None = None,
    value: float | None = None,
    pairs: int | None = None,
) -> Cell:
    if won is None:
        return Cell(series, x, value=value, pairs=pairs)
    played = zip(games, won, strict=True)
    return Cell(series, x, {game: (of, float(mark)) for (game, of), mark in played if mark != "-"})


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
