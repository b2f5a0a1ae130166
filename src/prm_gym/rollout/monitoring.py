"""Monitoring of a rollout: a progress bar, `metrics.jsonl` in its folder, and optional trackers.

Episodes that were in the folder before are `resumed`. The bar and the success rate include them; all other counts are
of this run. A line of `metrics.jsonl` holds a `Summary` (see there for units) of the process, every ten seconds and at
the end.

The bar appears with the first response. The line below it shows the library's last log message, such as "server
http://... answers 500, retry 3 of 6 in 4 s". Where no bar can be drawn, messages are printed at most twice a minute.
Log records with an attribute `fault` (see `inference.http_servers`) are counted under its value.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from prm_gym.errors import UserError
from prm_gym.store.metrics import METRICS
from prm_gym.types import Episode, Response

SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_NOTES = 30.0  # printed where no bar is drawn
_SECONDS_OF_A_NOTE = 2.0  # for which a note is shown at least; then until the next response
_log = logging.getLogger("prm_gym")


@dataclass(slots=True)
class Summary:
    """Counts of one run. Token counts are those that the policy reports.

    >>> Summary(total=10, resumed=10, resumed_won=4).line()
    '10 of 10 episodes there already, 4 won; nothing to do'
    >>> Summary(total=10, resumed=6, resumed_won=4, episodes=3, won=1, failures=1).line()
    '9 of 10 episodes, 5 won; 6 were there already, 3 are new, 1 failed'
    >>> Summary(total=2, episodes=2, faults=Counter({"time-out": 1, "status 500": 3})).line()
    '2 episodes, 0 won, 0 failed; 4 server faults (3 status 500, 1 time-out)'
    """

    total: int = 0  # episodes asked for
    resumed: int = 0  # of `total`, those already in the folder
    resumed_won: int = 0  # of `resumed`, those won
    episodes: int = 0  # finished in this run
    won: int = 0
    failures: int = 0
    actions: int = 0  # sampled in this run (a branch's history is not)
    invalid_actions: int = 0  # in finished episodes: actions that were not admissible
    prompt_tokens: int = 0
    response_tokens: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)  # of servers, by kind; each request was retried

    @property
    def success(self) -> float:
        """The share of won episodes among the finished ones, resumed ones included, in [0, 1]."""
        episodes = self.resumed + self.episodes
        return (self.resumed_won + self.won) / episodes if episodes else 0.0

    def line(self) -> str:
        """The totals, then the resumed and the new episodes, then the faults of servers."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.faults.most_common())
        return self._episodes() + (f"; {self.faults.total():,} server faults ({kinds})" if kinds else "")

    def _episodes(self) -> str:
        there, won = self.resumed + self.episodes, self.resumed_won + self.won
        if not self.resumed:
            return f"{there:,} episodes, {won:,} won, {self.failures:,} failed"
        if not self.episodes and not self.failures:
            return f"{there:,} of {self.total:,} episodes there already, {won:,} won; nothing to do"
        return (
            f"{there:,} of {self.total:,} episodes, {won:,} won; {self.resumed:,} were there already, "
            f"{self.episodes:,} are new, {self.failures:,} failed"
        )

    def as_dict(self) -> dict[str, Any]:
        seconds = max(self.seconds, 1e-9)
        return {
            **asdict(replace(self, faults=Counter())),  # asdict cannot copy a Counter that holds anything
            "faults": dict(self.faults),
            "success": self.success,
            "actions_per_s": self.actions / seconds,
            "response_tokens_per_s": self.response_tokens / seconds,
        }


class _Bar(Progress):
    """A progress bar with a line of text below it."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.note:
            yield Text(self.note, "yellow", no_wrap=True, overflow="ellipsis")


class _Notes(logging.Handler):
    """Passes the library's log messages to `show` and counts the faults among them."""

    def __init__(self, show: Callable[[str], None], faults: Counter[str]) -> None:
        super().__init__(logging.INFO)
        self._show, self._faults = show, faults

    def emit(self, record: logging.LogRecord) -> None:
        if kind := getattr(record, "fault", None):
            self._faults[kind] += 1
        self._show(record.getMessage())


class Monitor:
    """Counts, shows and logs; a context manager around one run, or a `share` (i, n) of one, in the folder `out`."""

    def __init__(
        self,
        out: Path,
        *,
        share: tuple[int, int] = (0, 1),
        bar: bool = True,
        tensorboard: bool = False,
        wandb_project: str | None = None,
    ) -> None:
        self.summary = Summary()
        self._out, self._share = out, share
        self._trackers: list[Callable[[dict[str, Any]], None]] = []
        self._closers: list[Callable[[], object]] = []
        if tensorboard:
            self._add_tensorboard()
        if wandb_project is not None:
            self._add_wandb(wandb_project)
        self._bar = _Bar(
            TextColumn("episodes"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("success {task.fields[success]:.1%}"),
            TextColumn("{task.fields[rate]:,.0f} tokens/s"),
            TextColumn("failures {task.fields[failures]}"),
            TextColumn("{task.fields[faults]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not bar,
        )
        self._task = self._bar.add_task("", total=None, success=0.0, rate=0.0, failures=0, faults="")
        self._shown = False
        self._notes, self._noted = _Notes(self._note, self.summary.faults), -_SECONDS_BETWEEN_NOTES

    def __enter__(self) -> Monitor:
        self._start = self._last = time.monotonic()
        self._level = _log.level
        _log.setLevel(min(_log.getEffectiveLevel(), logging.INFO))
        _log.addHandler(self._notes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _log.removeHandler(self._notes)
        _log.setLevel(self._level)
        self._bar.note = ""
        refused = error is not None and self.summary == Summary()
        self._count_seconds()
        if self._shown:
            self._show()
            self._bar.stop()
        if not refused:  # a refused folder is left as it was
            self._write()
        for close in self._closers:
            close()

    def expect(self, total: int, resumed: int, resumed_won: int) -> None:
        """Set the number of episodes asked for, of those already in the folder, and of the won ones among these."""
        counts = self.summary
        counts.total, counts.resumed, counts.resumed_won = total, resumed, resumed_won
        self._bar.update(self._task, total=total)

    def responded(self, response: Response) -> None:
        """Count an action that was sampled and will be executed."""
        self.summary.actions += 1
        self.sampled([response])

    def sampled(self, responses: Sequence[Response]) -> None:
        """Count sampled responses, executed or not."""
        if self._bar.note and time.monotonic() - self._noted > _SECONDS_OF_A_NOTE:
            self._bar.note = ""
        if not self._shown:
            self._show()
        for response in responses:
            self.summary.prompt_tokens += response.prompt_tokens
            self.summary.response_tokens += response.response_tokens
        if time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._show()
            self._write()

    def finished(self, episode: Episode) -> None:
        self.summary.episodes += 1
        self.summary.won += episode.won
        own = (turn for turn in episode.turns[episode.branch_turn :] if turn.reward is not None)
        self.summary.invalid_actions += sum(turn.action_valid is False for turn in own)
        self._show()

    def failed(self) -> None:
        self.summary.failures += 1
        self._show()

    def _note(self, text: str) -> None:
        now, bar = time.monotonic(), self._bar
        if bar.console.is_terminal:
            bar.note, self._noted = text, now
            self._show()
        elif not bar.disable and now - self._noted > _SECONDS_BETWEEN_NOTES:
            self._noted = now
            bar.console.print(Text(text), soft_wrap=True)

    def _count_seconds(self) -> None:
        self.summary.seconds = time.monotonic() - self._start

    def _show(self) -> None:
        self._count_seconds()
        counts = self.summary
        if not self._shown:
            self._shown = True
            self._bar.start()
        self._bar.update(
            self._task,
            completed=counts.resumed + counts.episodes + counts.failures,
            success=counts.success,
            rate=counts.response_tokens / max(counts.seconds, 1e-9),
            failures=counts.failures,
            faults=f"server faults {faults:,}" if (faults := counts.faults.total()) else "",
        )

    def _write(self) -> None:
        self._last = time.monotonic()
        line = {"time": round(time.time(), 3), **self.summary.as_dict()}
        with (self._out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"share": self._share, **line}) + "\n")
        for track in self._trackers:
            track(line)

    def _add_tensorboard(self) -> None:
        try:
            tensorboard = import_module("tensorboard.summary")
        except ImportError as error:
            raise UserError("tensorboard", "is not installed", "pip install tensorboard") from error
        writer = tensorboard.Writer(str(self._out / "tensorboard"))

        def track(line: dict[str, Any]) -> None:
            step = line["resumed"] + line["episodes"]
            for name in ("success", "failures", "actions_per_s", "response_tokens_per_s"):
                writer.add_scalar(f"rollout/{name}", float(line[name]), step)
            writer.add_scalar("rollout/server_faults", float(sum(line["faults"].values())), step)

        self._trackers.append(track)
        self._closers.append(writer.close)

    def _add_wandb(self, project: str) -> None:
        try:
            wandb = import_module("wandb")
        except ImportError as error:
            raise UserError("wandb", "is not installed", "pip install wandb") from error
        run = wandb.init(project=project, dir=str(self._out), config={"folder": str(self._out)})
        self._trackers.append(lambda line: run.log({f"rollout/{name}": value for name, value in line.items()}))
        self._closers.append(run.finish)
