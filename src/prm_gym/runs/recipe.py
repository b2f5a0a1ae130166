"""A recipe: one folder with `recipe.yaml` (Stage 1 and evaluation, this module) and the host's own YAML per stage.

In `recipe.yaml` and in the host's files `{run}` is replaced by the run folder, `{iter}` by the iteration and `{iter-1}`
by the previous one; a host's file is otherwise unchanged. Every key is checked before work starts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from prm_gym.config import build, check_keys, read_yaml
from prm_gym.envs.named import NamedEnvironment
from prm_gym.errors import HOTTEST, INT32, INT64, UserError, check_range
from prm_gym.hosts import Machines
from prm_gym.labels import KINDS
from prm_gym.policies.best_of_n import BestOf
from prm_gym.ray_cluster import Cluster
from prm_gym.worker_pool import MOST_PROCESSES

_COUNT: dict[str, float] = {"least": 1, "most": INT32}
_SHARE: dict[str, float] = {"least": 0, "most": 1}
_TEMPERATURE: dict[str, float] = {"least": 0, "most": HOTTEST}
_RANGES: dict[str, dict[str, float]] = {  # of numbers by key, in any section
    **dict.fromkeys(("games", "per_game", "rollouts_per_game", "states_per_episode", "actions"), _COUNT),
    **dict.fromkeys(("continuations", "max_new_tokens", "max_batch", "max_episode_steps", "n"), _COUNT),
    "processes": {"least": 1, "most": MOST_PROCESSES},
    "replicas": {"least": 1, "most": 1024},
    "shares": {"least": 1, "most": 2**20},
    "gpus": {"least": 0, "most": 1024},
    "nodes": {"least": 1, "most": 65536},
    "wait": {"above": 0},
    **dict.fromkeys(("random_actions", "mistakes", "dawdling"), _SHARE),
    **dict.fromkeys(("temperature", "best_of_temperature"), _TEMPERATURE),
    "seed": {"least": 0, "most": INT64},
    "gamma": {"above": 0, "most": 1},
}
POLICY_STAGES = ("online_dpo", "policy_gradient", "rejection_sampling", "dagger")  # of which a recipe has one
_PLACE = re.compile(r"\{(run|iter|iter-1)\}")


@dataclass(frozen=True)
class Games:
    """Where the games come from: `path`, a folder in alfworld's format (ALFWORLD_DATA), or generated households."""

    path: str | None = None
    preset: str = "small"
    seed: int = 0
    splits: dict[str, int] = field(default_factory=dict)  # split -> number of games to generate


@dataclass(frozen=True)
class Serve:
    """Servers that the run starts, replaces when they die, and stops. `command` has {model} and {port}, such as
    "vllm serve {model} --port {port}". There is one server for each entry of `devices` (its CUDA_VISIBLE_DEVICES), or
    `replicas` of them; each may take `wait` seconds to come up.
    """

    command: str
    devices: list[str] = field(default_factory=list)
    replicas: int | None = None
    wait: float = 900.0

    @property
    def count(self) -> int:
        return self.replicas or len(self.devices) or 1


@dataclass(frozen=True)
class Sampling:
    """How a policy is sampled: on the OpenAI-compatible servers with the base URLs `server`, or on those that `serve`
    starts, or else in `processes` processes, each with its own copy of the policy. `serve_prm` starts vLLM servers of
    Q, which is otherwise in process. With `ray`, rollouts, branches and next actions are shares on a Ray cluster.
    """

    temperature: float
    max_new_tokens: int
    max_batch: int = 64
    server: list[str] = field(default_factory=list)
    serve: Serve | None = None
    serve_prm: Serve | None = None
    processes: int = 1
    ray: Cluster | None = None


@dataclass(frozen=True)
class Demonstrations:
    """Expert episodes for SFT, on `games` of the train split. `random_actions`, `mistakes`, `dawdling` and `search` are
    those of `prm_gym.policies.expert.ExpertPolicy`; they set the quality of demonstrations. The expert of an `env` is
    its own (`info["expert_action"]`) and takes `random_actions` and `dawdling` alone. `max_episode_steps` is the
    recipe's if None. SFT reads won episodes alone, which within few steps are those with the fewest mistakes.
    """

    games: int
    rollouts_per_game: int = 1
    random_actions: float = 0.0
    mistakes: float = 0.0
    dawdling: float = 0.0
    search: str = "rare_first"
    max_episode_steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """pi_0: an existing checkpoint (`model`), or SFT on `demonstrations` and on `exploring`, which are rendered with
    the exploration prompt.

    SFT starts from {run}/base, which is `model` if both are given, or from {run}/scratch, a model of the sizes
    `scratch`. With `cut_vocabulary`, {run}/base is `model` (anything that `prm-gym model` takes) reduced to the tokens
    of the demonstrations.
    """

    model: str | None = None
    cut_vocabulary: bool = False
    demonstrations: Demonstrations | None = None
    exploring: Demonstrations | None = None
    scratch: dict[str, int] | None = None
    sft: str | None = None  # the host's YAML


@dataclass(frozen=True)
class Rollouts:
    """Stage 1: `games` of the train split, `per_game` independent rollouts of each."""

    games: int
    per_game: int
    seed: int = 0


@dataclass(frozen=True)
class Branches:
    """Stage 1, branches: at `states_per_episode` states of each collected episode `actions` different actions, each
    followed by `continuations` rollouts. `temperature` samples the actions at the state, by default the recipe's; the
    continuations always use the recipe's.
    """

    states_per_episode: int
    actions: int
    continuations: int
    temperature: float | None = None

    @property
    def most_per_episode(self) -> int:
        """The maximum number of branches of an episode. Short episodes, or equal samples, give fewer."""
        return self.states_per_episode * self.actions * self.continuations


@dataclass(frozen=True)
class Labels:
    """`kind` and its options, as for `prm-gym label KIND`; `prompts` are those of `prm-gym label prompts`, for the
    states of Stage 3. Q_{i-1} learns from the episodes of the `last` iteration, those of pi_{i-1} (Algorithm 1), or of
    `all`. `dagger` always aggregates all of them, and the demonstrations.
    """

    kind: str = "monte_carlo"
    iterations: str = "last"
    options: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """Held-out games for evaluating Q: AUC, calibration, ranking of actions at one state."""

    games: int
    branches: Branches
    split: str = "valid_seen"


@dataclass(frozen=True)
class Evaluation:
    """Success of pi_n, and of BoN(pi_n, Q_{n-1}) for each entry of `best_of`, on `games` of `split`. In the file
    `best_of` may also be a single entry, such as {n: 16, weight: 1, among: admissible}, or an integer n for {n: n}; 1
    means none.
    """

    games: int
    split: str = "valid_unseen"
    temperature: float = 0.3
    best_of: list[BestOf] = field(default_factory=list)
    best_of_temperature: float = 0.7
    seed: int = 0


@dataclass(frozen=True)
class RejectionSampling:
    """Of a Stage 3 by `rejection_sampling`: `n` responses of pi_{i-1} at each state, sampled at `temperature`."""

    n: int = 16
    temperature: float = 0.7


@dataclass(frozen=True)
class Stages:
    """The host's YAML files, beside recipe.yaml. Stage 2 is `prm`. Stage 3 is one of `online_dpo`, `policy_gradient`
    (Eq. 3 with Q as the reward) and `rejection_sampling` (SFT on the best responses by Q). With `dagger`, SFT on labels
    of that kind, there is no Q.

    The host trains in `processes` processes, each with `per_device_train_batch_size` rows of a batch, on each of
    `nodes` machines. `launcher` comes before the host's command, with environment variables filled in: `srun`,
    `torchrun --no-python`, or anything else that starts it, for several nodes once on each.
    """

    prm: str | None = None
    online_dpo: str | None = None
    policy_gradient: str | None = None
    rejection_sampling: str | None = None
    dagger: str | None = None
    processes: int = 1
    nodes: int = 1
    launcher: str = ""

    @property
    def machines(self) -> Machines:
        return Machines(self.processes, self.nodes, self.launcher)

    @property
    def of_policy(self) -> dict[str, str]:
        """The stages that train pi_i, and their files. A valid recipe has one."""
        found = {name: getattr(self, name) for name in POLICY_STAGES}
        return {name: file for name, file in found.items() if file is not None}


@dataclass(frozen=True)
class Recipe:
    """All of recipe.yaml. `gamma` is the discount of Eq. 1, `prompt` a name or path for `prm_gym.prompts.load`. What is
    played is `games` of ALFWorld, or the environment `env`.
    """

    host: str
    prompt: str
    start: Start
    sampling: Sampling
    rollouts: Rollouts
    stages: Stages
    evaluation: Evaluation
    games: Games | None = None
    env: NamedEnvironment | None = None
    gamma: float = 0.95
    max_episode_steps: int = 30
    branches: Branches | None = None
    labels: Labels = field(default_factory=Labels)
    quality: Quality | None = None
    rejection_sampling: RejectionSampling = field(default_factory=RejectionSampling)


def load(folder: str | PathLike[str]) -> Recipe:
    """The recipe in `folder`. Raises `UserError` for the first key, value or file that is wrong."""
    path = Path(folder) / "recipe.yaml"
    recipe = build(Recipe, _best_of_listed(read_yaml(path)), path)
    _check_ranges(recipe, path)
    if recipe.host not in ("trl", "open-instruct"):
        raise UserError(path, f"unknown host '{recipe.host}'", "say trl or open-instruct", field="host")
    _check_env(recipe, path)
    _check_serve(recipe.sampling, path)
    start = recipe.start
    if (start.model is None or start.sft is not None) and (start.demonstrations is None or start.sft is None):
        problem = "neither a model nor demonstrations with an sft file"
        raise UserError(path, problem, "give `model`, or `demonstrations` and `sft`, or all three", field="start")
    if start.model is not None and start.scratch is not None:
        raise UserError(path, "a model and one from scratch", "give `model` or `scratch`", field="start.scratch")
    if start.cut_vocabulary and (start.model is None or start.sft is None):
        problem = "no model, or no demonstrations to cut it to"
        raise UserError(path, problem, "give `model`, `demonstrations` and `sft`", field="start.cut_vocabulary")
    if recipe.labels.iterations not in ("last", "all"):
        problem = f"unknown iterations '{recipe.labels.iterations}'"
        raise UserError(path, problem, "say last or all", field="labels.iterations")
    if recipe.stages.nodes > 1 and not recipe.stages.launcher:
        problem = f"{recipe.stages.nodes} nodes, and nothing that starts a command on them"
        raise UserError(path, problem, "say e.g. srun --ntasks-per-node=1", field="stages.launcher")
    _check_stages(recipe, path)
    for i, choice in enumerate(recipe.evaluation.best_of):
        choice.check(path, f"evaluation.best_of[{i}].")
        if choice in recipe.evaluation.best_of[:i]:
            problem = f"{choice.mode} stands there twice"
            raise UserError(path, problem, "remove one", field="evaluation.best_of")
    for name, kind, options in (
        ("labels.options", recipe.labels.kind, recipe.labels.options),
        ("labels.prompts", "prompts", recipe.labels.prompts),
    ):
        if kind not in KINDS:
            raise UserError(path, f"no label '{kind}'", f"choose one of {', '.join(KINDS)}", field="labels.kind")
        valid = [
            p.name for p in inspect.signature(label_function(kind)).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
        check_keys(
            options, [key for key in valid if key not in ("prompt", "gamma", "policy", "scorer")], path, f"{name}."
        )
    named = {
        "start.sft": start.sft,
        "stages.prm": recipe.stages.prm,
        **{f"stages.{name}": file for name, file in recipe.stages.of_policy.items()},
    }
    for name, file in named.items():
        if file is not None and not (Path(folder) / file).is_file():
            raise UserError(path, f"no file '{file}' beside it", "add it or correct the name", field=name)
    return recipe


def _check_stages(recipe: Recipe, path: Path) -> None:
    """Raise `UserError` unless one stage trains the policy, and it has the Q or the labels that it needs."""
    given = list(recipe.stages.of_policy)
    if len(given) != 1:
        problem = f"{', '.join(given) or 'nothing'} trains the policy"
        raise UserError(path, problem, f"give one of {', '.join(POLICY_STAGES)}", field="stages")
    if (given == ["dagger"]) is not (recipe.labels.kind == "dagger"):
        problem = f"is {recipe.labels.kind}, and the stage that trains the policy is {given[0]}"
        raise UserError(path, problem, "labels and stage are both dagger, or none is", field="labels.kind")
    if given != ["dagger"] and recipe.stages.prm is None:
        raise UserError(path, "missing", "name the host's file that trains Q", field="stages.prm")
    if given != ["rejection_sampling"] and recipe.rejection_sampling != RejectionSampling():
        remedy = "add `stages.rejection_sampling`, or remove it"
        raise UserError(path, "is for a stage that is not there", remedy, field="rejection_sampling")
    needless = {
        "stages.prm": recipe.stages.prm,
        "branches": recipe.branches,
        "quality": recipe.quality,
        "evaluation.best_of": recipe.evaluation.best_of,
    }
    for field_name, value in needless.items():
        if given == ["dagger"] and value:
            raise UserError(path, "is for a Q, and dagger trains none", "remove it", field=field_name)


def _check_env(recipe: Recipe, path: Path) -> None:
    """Raise `UserError` for games beside an environment, or demonstrations of an expert that it has not."""
    if (recipe.games is None) is (recipe.env is None):
        problem = "missing" if recipe.games is None else "there are `games` and an `env`"
        raise UserError(path, problem, "give `games` of ALFWorld, or the `env` to play", field="games")
    if recipe.env is None:
        return
    recipe.env.check(path, "env.")
    start = recipe.start
    shown = {"start.demonstrations": start.demonstrations, "start.exploring": start.exploring}
    for name, wanted in shown.items():
        if wanted is not None and name.endswith("exploring"):
            raise UserError(path, "no expert explores here", "remove it: ALFWorld alone has one", field=name)
        for key in ("mistakes", "search"):
            if wanted is not None and getattr(wanted, key) != getattr(Demonstrations, key):
                problem = "is of ALFWorld's expert alone"
                remedy = "remove it; random_actions and dawdling are there"
                raise UserError(path, problem, remedy, field=f"{name}.{key}")


def _check_serve(sampling: Sampling, path: Path) -> None:
    """Raise `UserError` for servers named twice, or a command that does not say what to serve and where."""
    if sampling.server and sampling.serve:
        problem = "`server` names servers that are there"
        raise UserError(path, problem, "remove one of the two", field="sampling.serve")
    for name, serve in (("serve", sampling.serve), ("serve_prm", sampling.serve_prm)):
        for place in ("{model}", "{port}"):
            if serve is not None and place not in serve.command:
                problem = f"{place} is missing"
                raise UserError(path, problem, "say where it stands", field=f"sampling.{name}.command")
        if serve is not None and serve.replicas is not None and serve.replicas < len(serve.devices):
            problem = f"{len(serve.devices)} entries for {serve.replicas} replicas"
            raise UserError(path, problem, "remove the rest", field=f"sampling.{name}.devices")


def _best_of_listed(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe, with `evaluation.best_of` expanded to a list."""
    evaluation = values.get("evaluation")
    if not isinstance(evaluation, dict) or "best_of" not in evaluation:
        return values
    given = evaluation["best_of"]
    ways = [{"n": way} if type(way) is int else way for way in (given if isinstance(given, list) else [given])]
    return {**values, "evaluation": {**evaluation, "best_of": [] if type(given) is int and given == 1 else ways}}


def _check_ranges(section: Any, path: Path, prefix: str = "") -> None:
    """Raise `UserError` for the first number of recipe.yaml that is out of range, in any section."""
    for entry in fields(section):
        value = getattr(section, entry.name)
        if is_dataclass(value):
            _check_ranges(value, path, f"{prefix}{entry.name}.")
        elif value is not None and entry.name in _RANGES:
            try:
                check_range(entry.name, value, **_RANGES[entry.name])
            except UserError as error:
                raise UserError(path, error.problem, error.remedy, field=prefix + entry.name) from None


def label_function(kind: str) -> Callable[..., Any]:
    """`prm_gym.labels.<kind>.label`."""
    label: Callable[..., Any] = import_module(f"prm_gym.labels.{kind}").label
    return label


def fill(text: str, run: str | PathLike[str], iteration: int, where: str | PathLike[str]) -> str:
    """`text` with `{run}`, `{iter}` and `{iter-1}` filled in."""
    values = {"run": str(run), "iter": str(iteration), "iter-1": str(iteration - 1)}
    filled = _PLACE.sub(lambda match: values[match[1]], text)
    if left := re.search(r"\{[a-z][a-z0-9_+-]*\}", filled):
        raise UserError(where, f"unknown placeholder {left[0]}", "use {run}, {iter} or {iter-1}")
    return filled
