"""A stage that a host trains: Q or a policy, from the host's own YAML in the recipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prm_gym import hosts, provenance
from prm_gym.config import read_yaml
from prm_gym.errors import UserError
from prm_gym.prompts import load
from prm_gym.provenance.checkpoint_settings import READS, TrainedFor
from prm_gym.runs import recipe
from prm_gym.runs.actors import Actors
from prm_gym.runs.recipe_sections import POLICY_STAGES
from prm_gym.runs.stage import Cost, Stage

# Keys of both hosts that name checkpoints and datasets.
_INPUTS = (
    "model_name_or_path",
    "reward_model_path",
    "reward_ensemble",
    "dataset_name",
    "dataset_mixer",
    "dataset_mixer_list",
)


def training(actors: Actors, name: str, out: Path, config: str) -> Stage:
    """The stage `name` (a key of `hosts.STAGES`) of the recipe's host, from its file `config` into `out`."""
    source = actors.folder / config
    # Placeholders stay as they are: a run folder that was moved is still complete.
    settings: dict[str, Any] = {
        "host": actors.recipe.host,
        "config": read_yaml(source),
        "processes": actors.recipe.stages.processes,
    }
    filled = recipe.fill_file(source, actors.root, actors.n)
    named = settings["config"].get("output_dir")
    written = None if named is None else recipe.fill(str(named), actors.root, actors.n, source)
    if written is None or os.path.realpath(written) != os.path.realpath(out):
        usual = "{run}/" + os.path.relpath(out, actors.root).replace(f"iter{actors.n}", "iter{iter}")
        problem = "missing" if written is None else f"is {written}, not the folder of {name}"
        raise UserError(source, problem, f"say {usual}", field="output_dir")
    if actors.recipe.stages.nodes > 1:  # manifests of before lack it
        settings["nodes"] = actors.recipe.stages.nodes
    q = {"reads": READS} if name == "prm" else {}
    settings |= q  # of a Q of an older version they differ: it is trained again
    machines, accelerate = actors.recipe.stages.machines, settings["config"].get("accelerate_config")
    read = (recipe.fill(text, actors.root, actors.n, source) for text in _inputs_in(settings["config"]))
    inputs = actors.made_from(*map(Path, read))

    def make() -> None:
        actors.servers.stop()
        r = actors.recipe
        if any(out.glob("checkpoint-*")) and provenance.read(out) is None:
            problem = "holds a training begun by an older version, which did not record all of its settings"
            raise UserError(out, problem, f"remove {out}, or choose another run folder")
        reads = TrainedFor(load(r.prompt), r.max_episode_steps, r.sampling.temperature)
        made_with = {"kind": "training", "stage": name, "host": r.host, "config": settings["config"]}
        provenance.claim(out, {**made_with, "inputs": inputs(), "trained_for": reads.as_dict(), **q})
        (out / config).write_text(filled, "utf-8")  # all that the host's launcher reads
        hosts.launch(r.host, name, out / config, out, machines, accelerate)

    policy = {"sft": "pi_0 by SFT", **{stage: f"pi_{actors.n} by {of}" for stage, of in POLICY_STAGES.items()}}
    title = f"Q_{actors.n - 1}" if name == "prm" else policy[name]
    model = settings["config"].get("model_name_or_path")
    command = hosts.command(actors.recipe.host, name, out / config, machines, out, accelerate)
    cost = Cost(
        trains=name,
        command=tuple(command),
        nodes=tuple(map(tuple, hosts.on_nodes(command, machines, accelerate))) if machines.launcher else (),
        model=None if model is None else Path(recipe.fill(model, actors.root, actors.n, source)),
    )
    return Stage(title, out, settings, make, inputs, cost)


def link_to(target: Path, link: Path) -> None:
    """Make `link` a relative symbolic link to `target`: a run folder may be moved."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(os.path.relpath(target, link.parent))


def _inputs_in(config: Any, key: str = "") -> Iterator[str]:
    """The folders that the host's file reads: all strings with {run}, except the output folder, and those of `_INPUTS`
    elsewhere.
    """
    if isinstance(config, str) and ("{run}" in config or key in _INPUTS):
        yield config
    elif isinstance(config, dict):
        for name, value in config.items():
            yield from () if name == "output_dir" else [*_inputs_in(name, key), *_inputs_in(value, name)]
    elif isinstance(config, list):
        for value in config:
            yield from _inputs_in(value, key)
