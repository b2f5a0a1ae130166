"""A recipe's iteration at a small size, measured stage by stage: `python -m prm_gym.runs.probe RECIPE RUN OUT [HOST]`.

It runs in a process of its own, as an iteration does, and so its first stages pay for the same imports. OUT gets

    {"stages": {place: Measured}, "prompts": {turn: the longest prompt in tokens}, "context": tokens, or null}

where the place of a stage is its folder in the run, as `place` says.
"""

from __future__ import annotations

import json
import math
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from rich.console import Console

from prm_gym import provenance
from prm_gym.atomic import write_json
from prm_gym.config import read_yaml
from prm_gym.hosts import Machines
from prm_gym.hosts.training_process import end_with_parent
from prm_gym.runs import stage
from prm_gym.runs.actors import Actors
from prm_gym.runs.iteration import Run
from prm_gym.runs.recipe_sections import POLICY_STAGES
from prm_gym.runs.stage import Stage
from prm_gym.store import parts, stores

FEWEST = 4  # games
_FEWEST_STEPS, _MOST_STEPS = 2, 32
_SAMPLES = 8  # responses drawn at a branch point, the default of `rollout.branch`


@dataclass(frozen=True)
class Measured:
    """`amount` is what the time grows with: episodes, or steps of a training. `rows` are those of a dataset's train
    split; `checkpoint` are bytes, of `size`, of a training's last checkpoint. `grouped` is the number of items of a
    training for each row of its dataset, below 1 where rows that share text are one item; the items are counted in
    whole batches, so it is too high for a dataset of a few.
    """

    amount: float
    seconds: float
    cpu: float  # seconds of all cores, this process and those that it waited for
    requests: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    rows: int = 0
    size: int = 0  # bytes
    checkpoint: int = 0
    grouped: float = 1.0


def shrink(folder: Path, to: Path, share: float, policy: Path | None = None, host: str | None = None) -> None:
    """Write the recipe in `folder` into `to`, smaller: two batches of episodes for each stage times `share`, at
    most a quarter of them, and a few training steps. Below a batch an episode costs more than it does in
    the run. `policy` takes the place of pi_0, and `host` that of the recipe's.
    """
    shutil.copytree(folder, to)
    values = read_yaml(folder / "recipe.yaml")
    sampling: dict[str, int] = values["sampling"]
    batch = 2 * sampling.get("max_batch", 64) * sampling.get("processes", 1)

    def few(full: int, each: int = 1) -> int:
        """How many games out of `full`, of which each gives `each` episodes."""
        return min(full, max(FEWEST, round(share * min(2 * batch, full * each / 4) / each)))

    if policy is not None:
        labels, shown = values.get("labels") or {}, values["start"].get("demonstrations")
        read = labels.get("kind") == "dagger" or "{run}/demonstrations" in json.dumps(labels)
        values["start"] = {"model": str(policy.resolve()), **({"demonstrations": shown} if shown and read else {})}
    start = values["start"]
    for kind in start.keys() & {"demonstrations", "exploring"}:
        start[kind]["games"] = few(start[kind]["games"], start[kind].get("rollouts_per_game", 1))
    rollouts, branches, quality = values["rollouts"], values.get("branches"), values.get("quality")
    rollouts["games"] = few(rollouts["games"], rollouts["per_game"] * (_most(branches) if branches else 1))
    if quality:
        quality["games"] = few(quality["games"], 1 + _most(quality["branches"]))
    values["evaluation"]["games"] = few(values["evaluation"]["games"])
    games = values.get("games")
    if games and games.get("path") is None:
        shown = [start.get(kind, {}).get("games", 0) for kind in ("demonstrations", "exploring")]
        needed = {"train": max(rollouts["games"], *shown), "valid_seen": 0, "valid_unseen": 0}
        for section, split in ((values["evaluation"], "valid_unseen"), (quality or {}, "valid_seen")):
            named = section.get("split", split)
            needed[named] = max(needed.get(named, 0), section.get("games", 0))
        games["splits"] = {split: max(1, min(count, needed.get(split, 0))) for split, count in games["splits"].items()}
    (to / "recipe.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    named = [start.get("sft"), *(values["stages"].get(name) for name in ("prm", *POLICY_STAGES))]
    for file in {to / name for name in named if name is not None}:
        if file.is_file():
            config = _shorter(read_yaml(file), host or values["host"], share)
            file.write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")


def _most(branches: dict[str, Any]) -> int:
    return int(branches["states_per_episode"] * branches["actions"] * branches["continuations"])


def _shorter(config: dict[str, Any], host: str, share: float) -> dict[str, Any]:
    """A training of a few steps. Reward modeling of open-instruct has no limit; it is short with the few data."""
    named = config.get("max_train_steps") if host == "open-instruct" else config.get("max_steps", -1)
    most = _MOST_STEPS if named is None or named <= 0 else min(_MOST_STEPS, max(3 * _FEWEST_STEPS, named // 4))
    steps = max(_FEWEST_STEPS, round(share**2 * most))  # squared: the two sizes must differ by more than a start does
    if host == "trl":
        return {**config, "max_steps": steps}
    if "total_episodes" in config:
        batch = int(config.get("per_device_train_batch_size", 1)) * int(config.get("gradient_accumulation_steps", 1))
        return {**config, "total_episodes": steps * batch * world(config, Machines())}
    return {**config, "max_train_steps": steps} if "max_seq_length" in config else config


def world(config: dict[str, Any], machines: Machines) -> int:
    """The number of training processes."""
    accelerate = config.get("accelerate_config")
    each = int(read_yaml(accelerate).get("num_processes", 1)) if accelerate else machines.processes
    return each * machines.nodes


def batch_of(config: dict[str, Any], processes: int) -> int:
    """The items in a batch of all processes."""
    each = int(config.get("per_device_train_batch_size", 8)) * int(config.get("gradient_accumulation_steps", 1))
    return each * processes


def steps(config: dict[str, Any], items: float, processes: int) -> int:
    """The training steps on `items` items that a host's YAML asks for."""
    batch = batch_of(config, processes)
    if config.get("total_episodes"):
        return math.ceil(int(config["total_episodes"]) / batch)
    named = config.get("max_steps") or config.get("max_train_steps")
    if named and int(named) > 0:
        return int(named)
    epochs = float(config.get("num_train_epochs", 3 if "dataset_name" in config else 1))  # the hosts' defaults
    return math.ceil(epochs * math.ceil(items / batch))


def place(actors: Actors, each: Stage) -> str:
    """The folder of a stage in its run, with the iteration left out."""
    text = each.out.relative_to(actors.root).as_posix()
    for number, name in ((actors.n, "new"), (actors.n - 1, "old")):
        text = text.replace(f"iter{number}/", "iter/").replace(f"/pi_{number}_", f"/{name}_")
    return text


def rows(folder: Path) -> int:
    """The rows of a dataset's train split."""
    return sum(pq.read_metadata(file).num_rows for file in folder.rglob("train*.parquet"))


def dataset_of(config: dict[str, Any]) -> str:
    """The dataset folder that a host's YAML names, with its placeholders."""
    mixer = config.get("dataset_mixer_list") or list(config.get("dataset_mixer") or [])
    return str(config.get("dataset_name") or mixer[0])


def measure(folder: Path, run: Path, host: str | None = None) -> dict[str, Any]:
    """Make iteration 1 of the recipe in `folder`; what OUT gets."""
    iteration, found = Run(folder, run, 1, host), dict[str, Any]()
    with iteration.servers:
        for each in iteration.stages():
            begun, used = time.monotonic(), _cpu()
            stage.run([each], Console(quiet=True))
            seconds, cpu = time.monotonic() - begun, _cpu() - used
            if each.cost.trains:
                config = each.settings["config"]
                data = Path(dataset_of(config).replace("{run}", str(run)).replace("{iter}", "1"))
                processes = world(config, iteration.recipe.stages.machines)
                amount: float = steps(config, rows(data), processes)
            else:
                amount = each.cost.episodes or 1
            checkpoints = sorted(each.out.glob("checkpoint*"), key=lambda path: path.stat().st_mtime)
            batches = _batches(checkpoints[-1]) if checkpoints else None
            measured = Measured(
                amount,
                seconds,
                cpu,
                **_requests(each),
                rows=rows(each.out),
                size=_size(each.out),
                checkpoint=_size(checkpoints[-1]) if checkpoints else 0,
                grouped=min(1.0, batches * batch_of(config, processes) / rows(data)) if batches else 1.0,
            )
            found[place(iteration, each)] = asdict(measured)
    return {"stages": found, "prompts": _longest_prompts(run), "context": _context(iteration)}


def _batches(checkpoint: Path) -> float | None:
    """The batches of an epoch, as transformers' Trainer writes them beside a checkpoint; None of other trainers."""
    if not (state := checkpoint / "trainer_state.json").exists():
        return None
    found = json.loads(state.read_text("utf-8"))
    return float(found["global_step"] / found["epoch"])


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _turns(folder: Path) -> Iterator[dict[str, Any]]:
    """The turns of the stores below `folder` that a model has answered, without a branch's history."""
    for file in (part for store in stores(folder) for part in parts(store)):
        columns = ["turn", "prompt_tokens", "response_tokens", "branch_turn", "parent_id"]
        there = pq.read_schema(file).names
        for row in pq.read_table(file, columns=[name for name in columns if name in there]).to_pylist():
            own = row.get("parent_id") is None or row["turn"] > row["branch_turn"]
            if own and row["prompt_tokens"]:
                yield row


def _requests(each: Stage) -> dict[str, int]:
    """Requests and tokens of a stage: the turns played, and the responses drawn at branch points."""
    turns = list(_turns(each.out))
    count = len(turns)
    prompt, response = (sum(row[name] for row in turns) for name in ("prompt_tokens", "response_tokens"))
    drawn = _points(each.out) if count else 0
    answers = each.settings.get("best_of") or 1  # responses to a request
    return {
        "requests": count + drawn,
        "prompt_tokens": round(prompt * (1 + drawn / count)) if count else 0,
        "response_tokens": round(response / count * (answers * count + _SAMPLES * drawn)) if count else 0,
    }


def _points(folder: Path) -> int:
    files = folder.rglob("branch_points.jsonl")
    return sum(len(json.loads(line)["points"]) for file in files for line in file.read_text("utf-8").splitlines())


def _longest_prompts(run: Path) -> dict[int, int]:
    longest = Counter[int]()
    for row in _turns(run):
        longest[row["turn"]] = max(longest[row["turn"]], row["prompt_tokens"])
    return dict(sorted(longest.items()))


def _context(iteration: Run) -> int | None:
    """Of the policy: what its server says, else its config."""
    record = provenance.read(iteration.iter / "rollouts")
    told = record and record["settings"]["policy"].get("served", {}).get("max_model_len")
    file = iteration.policy(0) / "config.json"
    context: int | None = told or json.loads(file.read_text("utf-8")).get("max_position_embeddings")
    return context


if __name__ == "__main__":
    end_with_parent()
    recipe, where, out, *chosen = sys.argv[1:]
    write_json(Path(out), measure(Path(recipe), Path(where), *chosen))
