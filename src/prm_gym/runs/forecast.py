"""What an iteration will take, before it is run: requests, tokens, disk, GPU hours and hours of each stage.

The iteration is made twice at a small size (`probe`). For a stage of amount x (episodes, or training steps)

    time(x) = a + b x          through the two measurements; a is what a start takes: imports, weights, servers
    everything else            in proportion to x
    disk of a training         its final checkpoint, and as many others as it keeps
    time to write checkpoints  the bytes of those beyond the probe's one, by the measured speed of the disk

An iteration from a given pi_{n-1} is probed with it. Without one, the probe trains pi_0 for a few steps only; its
episodes may be longer or shorter than those of the real pi_0.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts.training_process import end_with_parent
from prm_gym.runs import probe, recipe
from prm_gym.runs.iteration import Run
from prm_gym.runs.probe import Measured, dataset_of, place
from prm_gym.runs.stage import Stage, is_complete

SHARES = (0.5, 1.0)  # of the probe's size
_WRITTEN = 64 << 20  # bytes, to measure the disk


@dataclass(frozen=True)
class Expected:
    """What a stage will take; `cpu` in seconds of all cores of this machine, `size` in bytes."""

    stage: Stage
    amount: float
    seconds: float
    cpu: float
    requests: int
    prompt_tokens: int
    response_tokens: int
    size: int
    gpus: int

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.gpus / 3600


@dataclass(frozen=True)
class Forecast:
    """The stages of an iteration that are left to do, and what the probe saw."""

    stages: list[Expected]
    prompts: dict[int, int]  # turn -> the longest prompt, in tokens
    context: int | None  # of the policy, in tokens
    disk: float  # bytes/s
    seconds: float  # that the probe took


def forecast(iteration: Run, say: Callable[[str], None]) -> Forecast:
    """Probe the recipe beside the run folder and extrapolate. `say` tells what is being done. Nothing is left behind.

    Raises `UserError` as the stages do, or if the probe's process fails.
    """
    todo = [each for each in iteration.stages() if not is_complete(each)]
    policy = iteration.policy(iteration.n - 1)
    known = policy if (policy / "config.json").is_file() else None
    begun, measured = time.monotonic(), []
    beside = next(parent for parent in iteration.root.absolute().parents if parent.is_dir())
    with tempfile.TemporaryDirectory(prefix="prm_gym-plan-", dir=beside) as made:
        for number, share in enumerate(SHARES, 1):
            say(f"probe {number} of {len(SHARES)}: the recipe at a small size, from {known or 'its own start'}")
            probe.shrink(iteration.folder, Path(made) / f"recipe-{number}", share, known, iteration.recipe.host)
            run, out = Path(made) / f"run-{number}", Path(made) / f"{number}.json"
            in_process([Path(made) / f"recipe-{number}", run, out, iteration.recipe.host])
            measured.append(json.loads(out.read_text("utf-8")))
        disk = _write_speed(Path(made))
    seen = measured[-1]
    prompts = {int(turn): tokens for turn, tokens in seen["prompts"].items()}
    stages = _extrapolate(iteration, todo, [each["stages"] for each in measured], disk)
    return Forecast(stages, prompts, seen["context"], disk, time.monotonic() - begun)


def fit(small: tuple[float, float], large: tuple[float, float]) -> tuple[float, float]:
    """(a, b) of y = a + b x through two points (x, y), both at least 0; for equal x, a is the mean.

    If the larger took no longer, the noise hides the start. It is then taken as 0: rather too much than far too little.

    >>> fit((10, 7.0), (20, 9.0))
    (5.0, 0.2)
    >>> fit((10, 3.0), (20, 8.0))
    (0.0, 0.4)
    >>> fit((10, 9.0), (20, 7.0))
    (0.0, 0.35)
    """
    (x1, y1), (x2, y2) = small, large
    if x1 == x2:
        return (y1 + y2) / 2, 0.0
    slope = (y2 - y1) / (x2 - x1)
    if slope <= 0 or y2 < slope * x2:
        return 0.0, y2 / x2
    return y2 - slope * x2, slope


def _extrapolate(iteration: Run, todo: list[Stage], probes: list[dict[str, Any]], disk: float) -> list[Expected]:
    rows: dict[Path, float] = {}  # of the datasets, by folder
    expected = []
    for each in todo:
        points = [Measured(**probed[place(iteration, each)]) for probed in probes]
        config = each.settings.get("config", {})
        if each.cost.trains:
            data = Path(recipe.fill(dataset_of(config), iteration.root, iteration.n, each.out))
            there = rows.get(data.absolute(), probe.rows(data) if data.is_dir() else 0)
            items = there * points[-1].grouped
            amount: float = probe.steps(config, items, probe.world(config, iteration.recipe.stages.machines))
        else:
            amount = each.cost.episodes or 1

        there = _in_proportion(points, "rows", amount)
        if (most := each.settings.get("size")) and there > most:  # a label's limit, of which the probe stays below
            amount, there = amount * most / there, most
        rows[each.out.absolute()] = there
        starts = {name: fit(*((p.amount, getattr(p, name)) for p in points)) for name in ("seconds", "cpu")}
        seconds, cpu = (a + b * amount for a, b in starts.values())
        size, written = _in_proportion(points, "size", amount), 0.0
        if each.cost.trains:
            size, written = _of_training(points[-1], config, amount)
        expected.append(
            Expected(
                stage=each,
                amount=amount,
                seconds=seconds + written / disk,
                cpu=cpu,
                requests=round(_in_proportion(points, "requests", amount)),
                prompt_tokens=round(_in_proportion(points, "prompt_tokens", amount)),
                response_tokens=round(_in_proportion(points, "response_tokens", amount)),
                size=round(size),
                gpus=_gpus(iteration, each),
            )
        )
    return expected


def _in_proportion(points: list[Measured], name: str, amount: float) -> float:
    return amount * float(sum(getattr(p, name) for p in points)) / sum(p.amount for p in points)


def _of_training(probed: Measured, config: dict[str, Any], steps: float) -> tuple[float, float]:
    """(bytes left, bytes written to checkpoints beyond the probe's one) of a training of `steps` steps."""
    if not probed.checkpoint:
        return probed.size, 0.0
    every = int(config.get("save_steps") or config.get("checkpoint_every") or config.get("checkpointing_steps") or 500)
    made = max(1, math.ceil(steps / every))
    kept = min(made, int(config.get("save_total_limit") or config.get("keep_last_n_checkpoints") or made))
    return probed.size + (kept - 1) * probed.checkpoint, (made - 1) * probed.checkpoint


def _gpus(iteration: Run, each: Stage) -> int:
    """The GPUs that a stage holds: those of its servers (one each for servers that are there), or of its processes."""
    r, config = iteration.recipe, each.settings.get("config", {})
    if each.cost.trains:
        if config.get("use_cpu") or not (_has_gpu() or config.get("accelerate_config") or r.stages.launcher):
            return 0
        return probe.world(config, r.stages.machines) + len(_devices(config.get("vllm_devices") or ""))
    if not each.cost.rows and not each.cost.servers:
        return 0
    plays = each.cost.rows is not None and "temperature" in json.dumps(each.settings)
    if r.sampling.server and plays:
        return len(r.sampling.server)
    served = [len(_devices(part)) for line in each.cost.servers for part in line.split() if part.startswith(_CUDA)]
    return sum(served) if each.cost.servers else int(plays and _has_gpu())


_CUDA = "CUDA_VISIBLE_DEVICES="


def _devices(text: str) -> list[str]:
    return [device for device in text.removeprefix(_CUDA).split(",") if device]


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def in_process(arguments: list[Any]) -> None:
    """Measure an iteration in a process of its own; the arguments are those of `probe`. Raises `UserError`."""
    command = [sys.executable, "-m", "prm_gym.runs.probe", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=partial(end_with_parent), text=True
    )
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no output")
        raise UserError(Path(arguments[0]).name, f"the probe failed ({said[:300]})", "correct it; the run would too")


def _write_speed(folder: Path) -> float:
    """Bytes/s of a file written to the disk itself (fsync)."""
    block, begun = os.urandom(1 << 20), time.monotonic()
    with (folder / "disk").open("wb") as file:
        for _ in range(_WRITTEN // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return _WRITTEN / max(time.monotonic() - begun, 1e-6)


def free_disk(run: Path) -> int:
    """Bytes that are free where the run folder is, or will be."""
    return shutil.disk_usage(next(path for path in (run.absolute(), *run.absolute().parents) if path.is_dir())).free
