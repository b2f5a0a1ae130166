"""What a rollout shows while it runs: a progress bar, `metrics.jsonl` in its folder, and trackers when asked for.

Counts are of this run; episodes that were in the folder before are `resumed`. A line of `metrics.jsonl` holds a
`Summary` (see there for units), every ten seconds and at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prm_gym.errors import UserError
from prm_gym.types import Episode, Response

METRICS = "metrics.jsonl"
SECONDS_BETWEEN_LINES = 10.0


@dataclass(slots=True)
class Summary:
    """Counts of one run. Tokens are those of the responses and prompts the policy reported."""

    total: int = 0  # episodes asked for
    resumed: int = 0  # of them already in the folder
    episodes: int = 0  # finished in this run
    won: int = 0
    failures: int = 0
    actions: int = 0  # sampled in this run (a branch's history is not)
    invalid_actions: int = 0  # of the actions of finished episodes, those not admissible
    prompt_tokens: int = 0
    response_tokens: int = 0
    seconds: float = 0.0

    @property
    def success(self) -> float:
        """Share of this run's finished episodes that were won, in [0, 1]."""
        return self.won / self.episodes if self.episodes else 0.0

    def as_dict(self) -> dict[str, Any]:
        seconds = max(self.seconds, 1e-9)
        return {
            **asdict(self),
            "success": self.success,
            "actions_per_s": self.actions / seconds,
            "response_tokens_per_s": self.response_tokens / seconds,
        }


class Monitor:
    """Counts, shows and logs; a context manager around one run in the folder `out`."""

    def __init__(
        self, out: Path, *, bar: bool = True, tensorboard: bool = False, wandb_project: str | None = None
    ) -> None:
        self.summary = Summary()
        self._out = out
        self._trackers: list[Callable[[dict[str, Any]], None]] = []
        self._closers: list[Callable[[], object]] = []
        if tensorboard:
            self._add_tensorboard()
        if wandb_project is not None:
            self._add_wandb(wandb_project)
        self._bar = Progress(
            TextColumn("episodes"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("success {task.fields[success]:.1%}"),
            TextColumn("{task.fields[rate]:,.0f} tokens/s"),
            TextColumn("failures {task.fields[failures]}"),
            TimeRemainingColumn(),
            disable=not bar,
        )
        self._task = self._bar.add_task("", total=None, success=0.0, rate=0.0, failures=0)

    def __enter__(self) -> Monitor:
        self._start = self._last = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        self._bar.stop()
        self._write()
        for close in self._closers:
            close()

    def expect(self, total: int, resumed: int) -> None:
        """`total` episodes are asked for, `resumed` of them are in the folder already."""
        self.summary.total, self.summary.resumed = total, resumed
        self._bar.update(self._task, total=total)
        self._show()

    def responded(self, response: Response) -> None:
        """An action was sampled and goes to the environment."""
        self.summary.actions += 1
        self.sampled([response])

    def sampled(self, responses: Sequence[Response]) -> None:
        """Responses were sampled, whether or not they are executed."""
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
        self.summary.invalid_actions += sum(not turn.action_valid for turn in own)
        self._show()

    def failed(self) -> None:
        self.summary.failures += 1
        self._show()

    def _show(self) -> None:
        counts = self.summary
        counts.seconds = time.monotonic() - self._start
        self._bar.update(
            self._task,
            completed=counts.resumed + counts.episodes + counts.failures,
            success=counts.success,
            rate=counts.response_tokens / max(counts.seconds, 1e-9),
            failures=counts.failures,
        )

    def _write(self) -> None:
        self._last = time.monotonic()
        line = {"time": round(time.time(), 3), **self.summary.as_dict()}
        with (self._out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
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
