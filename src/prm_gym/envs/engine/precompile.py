"""Compile many games before they are played."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from rich.console import Console
from rich.progress import track

from prm_gym.envs.engine.disk_cache import cached_or_compiled
from prm_gym.envs.games import first_few
from prm_gym.errors import UserError
from prm_gym.worker_pool import spawned

READY, UNSUPPORTED, DAMAGED = "ready", "unsupported", "damaged"


@dataclass
class Compilation:
    """The result: the number of games that are ready, how many of these were `cached`, and for the others the reason.

    `unsupported` games are played by stock alfworld, except those whose text stock would evaluate as Python. `damaged`
    games are not played; the reason names the file and the remedy. Entries are in the order of the given paths.
    """

    ready: int = 0
    cached: int = 0
    unsupported: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """A line with the totals, then lines for the first few games that are not ready."""
        total = self.ready + len(self.unsupported) + len(self.damaged)
        first = f"{self.ready:,} of {total:,} games compiled"
        if self.cached == total:
            first += " already; nothing to do"
        elif self.cached:
            first += f"; {self.cached:,} were there already, {self.ready - self.cached:,} are new"
        stock = [f"{path}: played by stock alfworld ({why})" for path, why in self.unsupported.items()]
        return [
            first,
            *first_few(stock, "games played by stock alfworld"),
            *first_few(list(self.damaged.values()), "damaged game files"),
        ]


def compile_games(
    paths: Sequence[str | os.PathLike[str]],
    *,
    workers: int = 1,
    cache: str | os.PathLike[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Compilation:
    """Compile every game that is not cached, in `workers` processes. The files do not depend on `workers`.

    With several workers, the calling program must be importable (`if __name__ == "__main__":`), as for any process
    pool. Raises `UserError` if `workers` is less than 1, or with `strict` if a game is damaged (after the others are
    done); `OSError` if the cache cannot be written.
    """
    if workers < 1:
        raise UserError("workers", f"{workers} processes", "use at least 1")
    names = [os.fspath(path) for path in paths]
    done = _outcomes(names, workers, None if cache is None else os.fspath(cache))
    console = Console(stderr=True, quiet=not progress)
    compilation = Compilation()
    for name, (outcome, reason, cached) in zip(
        names, track(done, "Compiling games", total=len(names), console=console), strict=True
    ):
        if outcome == READY:
            compilation.ready += 1
            compilation.cached += cached
        else:
            (compilation.unsupported if outcome == UNSUPPORTED else compilation.damaged)[name] = reason
    if strict and compilation.damaged:
        where, first = f"{len(compilation.damaged)} of {len(names)} games", next(iter(compilation.damaged.values()))
        raise UserError(where, "damaged", f"the first is {first}")
    return compilation


def _outcomes(names: list[str], workers: int, cache: str | None) -> Iterator[tuple[str, str, bool]]:
    if workers == 1:
        yield from map(_outcome, names, repeat(cache))
        return
    with spawned(workers, jobs=len(names)) as pool:
        yield from pool.map(_outcome, names, repeat(cache), chunksize=4)


def _outcome(name: str, cache: str | None) -> tuple[str, str, bool]:
    try:
        stored, cached = cached_or_compiled(name, cache, keep=True)
    except UserError as error:
        return DAMAGED, str(error), False
    return (UNSUPPORTED, stored.unsupported, cached) if stored.unsupported else (READY, "", cached)
