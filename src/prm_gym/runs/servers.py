"""The servers that a run starts (`sampling.serve`, `sampling.serve_prm`).

They start with the first stage that needs them, stay up while the stages that follow need the same checkpoint, and end
before a training, which wants their GPUs, and with the run.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from prm_gym.errors import UserError
from prm_gym.inference.http_servers import OUTAGE
from prm_gym.inference.replicas import Replicas, check, fill
from prm_gym.runs.recipe_sections import Sampling, Serve


class Served(NamedTuple):
    """Where a checkpoint is served; `outage` is how many seconds a server may be down."""

    urls: list[str]
    name: str  # of the model
    outage: float


class Servers:
    """The servers of a run, a context manager that stops them. `recipe` is the file they are described in, `logs` the
    folder for their output.
    """

    def __init__(self, sampling: Sampling, recipe: Path, logs: Path) -> None:
        self._wanted = {"serve": sampling.serve, "serve_prm": sampling.serve_prm}
        self._recipe, self._logs = recipe, logs
        self._up: dict[str, tuple[Path, Replicas]] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all. Raises the `UserError` of servers that were given up, if that interrupted the run."""
        failed = next((replicas.error for _, replicas in self._up.values() if replicas.error is not None), None)
        self.stop()
        if failed is not None and kind is not None:
            raise failed from error

    def check(self) -> None:
        """Raise `UserError` if a command is not there."""
        for key, serve in self._wanted.items():
            if serve is not None:
                check(serve.command, self._recipe, f"sampling.{key}.command")

    def policy(self, checkpoint: Path) -> Served | None:
        """Servers of the policy in `checkpoint`; None if the recipe starts none."""
        return self._serve("serve", checkpoint)

    def prm(self, checkpoint: Path) -> Served | None:
        """Servers of Q; None if the recipe starts none."""
        return self._serve("serve_prm", checkpoint)

    def commands(self, policy: Path | None, prm: Path | None = None) -> tuple[str, ...]:
        """The commands that serve the two checkpoints, for a shell. Ports are chosen when they are started."""
        lines = []
        for key, checkpoint in (("serve", policy), ("serve_prm", prm)):
            serve = self._wanted[key]
            if serve is None or checkpoint is None:
                continue
            command = shlex.join(fill(serve.command, model=str(checkpoint.absolute()), port="PORT"))
            for i in range(serve.count):
                devices = f"CUDA_VISIBLE_DEVICES={serve.devices[i % len(serve.devices)]} " if serve.devices else ""
                lines.append(devices + command)
        return tuple(lines)

    def stop(self) -> None:
        """Stop all servers. A later stage starts them again."""
        while self._up:
            _, replicas = self._up.popitem()[1]
            replicas.stop()

    def _serve(self, key: str, checkpoint: Path) -> Served | None:
        serve = self._wanted[key]
        if serve is None:
            return None
        path, replicas = self._up.get(key, (None, None))
        if replicas is None or path != checkpoint.resolve() or replicas.error is not None:
            if replicas is not None:
                self._up.pop(key)
                replicas.stop()
            replicas = self._start(key, serve, checkpoint)
        replicas.wait_for_one()
        return Served(replicas.urls, replicas.name, OUTAGE + serve.wait)

    def _start(self, key: str, serve: Serve, checkpoint: Path) -> Replicas:
        log = self._logs / checkpoint.name
        replicas = Replicas(
            serve.command,
            checkpoint,
            log,
            count=serve.count,
            devices=serve.devices,
            wait=serve.wait,
            where=self._recipe,
            field=f"sampling.{key}.command",
        )
        with suppress(ValueError):
            log = log.relative_to(Path.cwd())
        Console().print(Text(f"starting {len(replicas.urls)} servers of {checkpoint}; output in {log}-*.log", "dim"))
        try:
            replicas.start()
        except OSError as error:
            problem = f"{error.filename or checkpoint}: {error.strerror or error}"
            raise UserError(self._recipe, problem, "correct it and run again", field=f"sampling.{key}") from error
        self._up[key] = checkpoint.resolve(), replicas
        return replicas
