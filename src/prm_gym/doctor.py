"""What this environment can do: packages by the part of prm_gym that needs them, accelerator, ALFWORLD_DATA."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

_PARTS = {
    "core": ("datasets", "duckdb", "gymnasium", "jinja2", "pyarrow"),
    "alfworld": ("alfworld", "textworld", "fast-downward-textworld"),
    "trl": ("torch", "transformers", "trl"),
    "server": ("httpx",),
}


def report() -> Table:
    """A table with one row a part: what is installed, and the command for what is not."""
    table = Table(title=f"prm-gym {version('prm-gym')} on Python {platform.python_version()}", title_justify="left")
    for column in ("part", "found", "missing"):
        table.add_column(column)
    for part, packages in _PARTS.items():
        versions = {package: _version(package) for package in packages}
        found = ", ".join(f"{package} {number}" for package, number in versions.items() if number)
        missing = [package for package, number in versions.items() if not number]
        remedy = f"{', '.join(missing)}: pip install 'prm-gym[{part}]'" if missing else "-"
        table.add_row(part, found or "-", remedy)
    table.add_row("device", _device(), "-")
    data = os.environ.get("ALFWORLD_DATA")
    there = data is not None and Path(data).is_dir()
    table.add_row(
        "games", data if data and there else "-", "-" if there else "ALFWORLD_DATA is not set; see `prm-gym games`"
    )
    return table


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "-"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
