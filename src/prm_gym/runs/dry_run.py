"""The plan of an iteration, for a dry run: its stages, which are complete, their cost, and the host's commands.

Costs are estimated only if the recipe or the run folder determines them:

    rows of a store   episodes * (max_episode_steps + 1), an upper bound: no game won, every branch made
    disk of a store   those rows * the bytes per row of the stores in the run folder
    disk of a training on TRL   4 bytes per parameter of the initial model, and 12 (with AdamW's two moments) in each of
                      its `save_total_limit` checkpoints
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from prm_gym.runs.stage import Stage, is_complete
from prm_gym.safetensors_header import read_header
from prm_gym.store import parts, stores


@dataclass(frozen=True)
class Planned:
    """`rows` (at most) and `disk` (bytes) are None if undetermined, or the stage is complete."""

    stage: Stage
    complete: bool
    rows: int | None
    disk: int | None

    @property
    def command(self) -> str:
        """The host's command, quoted for a shell; empty for other stages."""
        return shlex.join(self.stage.cost.command)


def plan(stages: Sequence[Stage], run: Path) -> list[Planned]:
    """The stages in order, in the run folder `run`. Raises `UserError` as `is_complete`; nothing is written."""
    per_row = _bytes_per_row(run)
    planned = []
    for stage in stages:
        if is_complete(stage):
            planned.append(Planned(stage, True, None, None))
        elif (rows := stage.cost.rows) is not None:
            planned.append(Planned(stage, False, rows, None if per_row is None else math.ceil(rows * per_row)))
        else:
            planned.append(Planned(stage, False, None, _of_training(stage)))
    return planned


def _bytes_per_row(run: Path) -> float | None:
    """Of the episode stores in the run folder; None if there is none."""
    files = [file for folder in stores(run) for file in parts(folder)]
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    return sum(file.stat().st_size for file in files) / rows if rows else None


def _of_training(stage: Stage) -> int | None:
    limit = stage.settings.get("config", {}).get("save_total_limit")
    if stage.cost.model is None or stage.settings["host"] != "trl" or not isinstance(limit, int):
        return None
    count = _parameters(stage.cost.model)
    return None if count is None else count * (4 + 12 * limit)


def _parameters(folder: Path) -> int | None:
    """The number of parameters in a checkpoint; None without safetensors files."""
    headers = [read_header(file)[1] for file in sorted(folder.glob("*.safetensors"))]
    return sum(math.prod(of["shape"]) for tensors in headers for of in tensors.values()) or None
