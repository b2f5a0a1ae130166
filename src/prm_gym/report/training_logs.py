"""Training logs: process reward and KL divergence of Stage 3, and the number of steps of any stage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError

# Both hosts log Q's mean score of the sampled responses, and KL(pi || reference) summed over a response's tokens.
PROCESS_REWARD, KL = "objective/scores", "objective/kl"


def stage3(policy: Path) -> dict[str, Any] | None:
    """{"unit": of the steps, "points": [(step, process reward)], "kl": [(step, nats)]}; None without such a log."""
    unit, lines = log(policy)
    points = _series(lines, PROCESS_REWARD)
    return {"unit": unit, "points": points, "kl": _series(lines, KL)} if len(points) > 1 else None


def steps(folder: Path) -> tuple[int, str] | None:
    """The number of training steps of a stage and their unit; None if neither a log nor a checkpoint has it."""
    unit, lines = log(folder)
    known = [line.get("step") for line in lines] + [state.get("global_step") for state in _states(folder)]
    counts = [count for count in known if isinstance(count, int)]
    return (max(counts), unit) if counts else None


def log(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The unit of "step" and the lines, from TRL's last checkpoint or the metrics.jsonl of open-instruct."""
    path = folder / "metrics.jsonl"
    if path.exists():
        texts = path.read_text("utf-8").splitlines()
        lines = [read_json(path, text) for text in texts if text.strip()]
        return "episode", [line for line in lines if isinstance(line, dict)]  # what open-instruct counts by
    logs = [found for state in _states(folder) if isinstance(found := state.get("log_history"), list)]
    return "step", [line for line in max(logs, key=len, default=[]) if isinstance(line, dict)]


def read_json(path: Path, text: str | None = None) -> Any:
    """The JSON in a file, or in `text` of it. Raises `UserError` if it is none."""
    try:
        return json.loads(path.read_text("utf-8") if text is None else text)
    except ValueError as error:
        raise UserError(path, f"is no JSON ({error})", "remove it and make the stage again") from None


def _states(folder: Path) -> list[dict[str, Any]]:
    """The trainer_state.json of a TRL training and of its checkpoints."""
    found = [folder / "trainer_state.json", *sorted(folder.glob("checkpoint-*/trainer_state.json"))]
    states = [read_json(path) for path in found if path.exists()]
    return [state for state in states if isinstance(state, dict)]


def _series(lines: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of a metric, in order, where both are numbers."""
    return sorted(
        (int(line["step"]), float(line[key]))
        for line in lines
        if isinstance(line.get(key), int | float) and isinstance(line.get("step"), int) and math.isfinite(line[key])
    )
