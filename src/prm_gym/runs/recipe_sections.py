"""The sections of recipe.yaml and what each key means; `runs.recipe` reads and checks them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prm_gym.envs.named import NamedEnvironment
from prm_gym.hosts import Machines
from prm_gym.policies.best_of_n import BestOf
from prm_gym.ray_cluster import Cluster

POLICY_STAGES = {
    "online_dpo": "online DPO",
    "policy_gradient": "policy gradient",
    "rejection_sampling": "rejection sampling",
    "dagger": "DAgger",
}  # that train pi_i, of which a recipe has one


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
class Scratch:
    """The sizes of a randomly initialised Llama, and the seed of its weights."""

    hidden_size: int = 128  # an even multiple of `heads`
    layers: int = 3
    heads: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """pi_0: an existing checkpoint (`model`), or SFT on `demonstrations` and on `exploring`, which are rendered with
    the exploration prompt.

    SFT starts from {run}/base, which is `model` if both are given, or from {run}/scratch, a model of the sizes
    `scratch`. With `cut_vocabulary`, {run}/base is `model` (anything that `prm-gym model` takes) reduced to the tokens
    of the demonstrations. Without `sft`, demonstrations are collected for labels that name {run}/demonstrations.
    """

    model: str | None = None
    cut_vocabulary: bool = False
    demonstrations: Demonstrations | None = None
    exploring: Demonstrations | None = None
    scratch: Scratch | None = None
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

    The host trains in `processes` processes, each with `per_device_train_batch_size` rows (Stage 2 on TRL: groups of
    rows) of a batch, on each of `nodes` machines. `launcher` comes before the host's command, with environment
    variables filled in: `srun`, `torchrun --no-python`, or anything else that starts it, for several nodes once on
    each.
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
