"""The output of a training: the checkpoint in `output_dir`, logs beside it, nothing in the working directory.

`metrics.jsonl` has a line for each write of the host's log, with renamed metrics; so have the TensorBoard files in
`logs`. The host writes its checkpoint to a subfolder. `publish` moves it up when it is complete, config.json last, so a
folder with a config.json is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class MetricsWriter:
    """A replacement of the host's SummaryWriter."""

    def __init__(self, folder: Path, names: Mapping[str, str], extra: Callable[[], Mapping[str, float]] = dict) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._board: Any = SummaryWriter(str(folder / "logs"))
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._names = names
        self._extra = extra
        self._step, self._line = -1, dict[str, Any]()

    def add_text(self, name: str, text: str) -> None:
        self._board.add_text(name, text)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        name = self._names.get(name, name)
        self._board.add_scalar(name, value, step)
        if step != self._step or name in self._line:  # the host writes a set of metrics one by one
            self.flush()
            self._step, self._line = step, {"step": step, **self._extra()}
        self._line[name] = value

    def flush(self) -> None:
        if self._line:
            self._file.write(json.dumps(self._line) + "\n")
            self._file.flush()
            self._line = {}
        self._board.flush()


def publish(source: Path, output_dir: Path) -> None:
    """Move the finished checkpoint `source` to `output_dir`, config.json last, and remove the copy of the data."""
    for path in sorted(source.iterdir(), key=lambda path: path.name == "config.json"):
        target = output_dir / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
    shutil.rmtree(source)
    shutil.rmtree(output_dir / "data", ignore_errors=True)
