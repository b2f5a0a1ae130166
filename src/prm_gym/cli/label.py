"""`prm-gym label KIND`: make a dataset of collected episodes. The flags are the arguments of the label function."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import PROMPTS, count, integer, name, number, path, seed, share
from prm_gym.cli.parser import Commands, Parser, add_command, flags_alone, refuse_idle
from prm_gym.cli.policy_flags import (
    MAX_NEW_TOKENS,
    OF_SERVERS,
    REACT,
    SCRIPTED,
    add_sampling,
    add_server,
    make_model,
    make_served,
)
from prm_gym.cli.prm_flag import make_prm
from prm_gym.errors import UserError

if TYPE_CHECKING:
    from prm_gym.prompts import Prompt


@dataclass(frozen=True)
class _Kind:
    title: str
    text: str
    example: str  # what follows `prm-gym label KIND --rollouts r --out d`


KINDS = {
    "monte_carlo": _Kind(
        "Q(s, a) of every action that was tried, to train a PRM with a regression loss (Eq. 1)",
        "A row for every action tried at a state: its target is the mean discounted return of all episodes that "
        "took it there, between 0 (never won) and 1 (won at once).",
        "--gamma 0.95",
    ),
    "preferences": _Kind(
        "pairs of a better and a worse action at one state, to train a PRM with the Bradley-Terry loss",
        "A row for every two actions tried at one state whose Q (see monte_carlo) differ by --delta or more. "
        "Episodes that branch from each other (`prm-gym rollout --branch-from`) give many of them.",
        "--delta 0.03",
    ),
    "inverse": _Kind(
        "the expert's transitions against the policy's, to train a PRM without rewards (InversePRM, Algorithm 2)",
        "A row for every step of demonstrations (--expert) and of all earlier policies (--rollouts), as many of "
        "the one as of the other, each with a next action that the current policy (--policy) chooses now.",
        "--expert demonstrations --policy pi_1",
    ),
    "value": _Kind(
        "V(s) of every state that was visited, to train a value model for `shaping`",
        "A row for every state: its target is the mean discounted return of the policy from there on.",
        "--gamma 0.95",
    ),
    "shaping": _Kind(
        "Q mixed with the advantage under a reference policy, for a PRM of few episodes (Eq. 13)",
        "As monte_carlo, but the target also counts how much the action improves the value of the state under a "
        "reference policy: (1 - alpha) Q + alpha A, mapped to [0, 1]. The values come from a `label value` dataset "
        "(--values) or from a model trained on one (--value-model).",
        "--values reference --alpha 0.5",
    ),
    "prompts": _Kind(
        "states to start from when the policy is improved by online DPO or policy gradient (Stage 3)",
        "A row for every state that was visited, as a prompt. With --expert a share of them are states of "
        "demonstrations (Reset-50-50).",
        "--expert demonstrations --size 3000",
    ),
    "rejection_sampling": _Kind(
        "the best of N responses by a PRM at every state, to improve the policy by fine-tuning (Stage 3)",
        "A row for every state that was visited: the policy (--policy) samples --n responses, and the row has the one "
        "that the PRM (--prm) scores highest.",
        "--policy pi_0 --prm q --n 16 --size 3000",
    ),
    "sft": _Kind(
        "successful episodes as conversations, to train pi_0 by supervised fine-tuning",
        "A row for every episode that was won, identical ones once; a row for every turn if the prompt shows one "
        "turn at a time.",
        "--valid-only",
    ),
    "dagger": _Kind(
        "the expert's action at every state that was visited, to train a policy by fine-tuning (DAgger)",
        "A row for every state, with what ALFWorld's scripted expert does there. Name the demonstrations among "
        "--rollouts to aggregate them.",
        "--search as_listed",
    ),
    "world": _Kind(
        "what follows each action, as conversations, to train a world model by supervised fine-tuning",
        "A row for every episode, won or not, with the roles exchanged: the user writes actions and the assistant the "
        "observations that follow, with [won] after the one that wins (section 4.3).",
        "--prompt world",
    ),
    "plans": _Kind(
        "the next actions of successful episodes as reasoning, to train a policy that plans, by supervised fine-tuning",
        "A row for every turn of every episode that was won: the reason is a plan of the next --horizon actions, of "
        "which the action is the first (section 4.3).",
        "--horizon 5",
    ),
    "posterior": _Kind(
        "successful episodes with reasons written again in hindsight, to train a policy by supervised fine-tuning",
        "A row for every turn of every episode that was won. A model (--policy, here or at --server) reads how the "
        "episode went on and writes the reason of the action again, as if it did not know; reasons that lead to "
        "another action or tell of the future are refused (PosteriorExplorer, section 4.1).",
        "--policy MODEL --samples 4",
    ),
}

# Type and help of each argument of a label function; defaults are read from its signature.
_ARGUMENTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "prompt": (name, f"{PROMPTS}; default: the one that the episodes were played with"),
    "gamma": (share, "discount of a reward per step, from 0 to 1"),
    "delta": (number(above=0, most=1), "least difference in Q of a pair"),
    "alpha": (share, "weight of the advantage, from 0 to 1"),
    "min_visits": (count, "leave out actions that fewer episodes took"),
    "valid_only": (name, "leave out actions that were not admissible"),
    "inadmissible": (integer(0, 500), "untried inadmissible commands in pairs at each state; 0: none"),
    "task_types": (name, "task types to use, such as pick_and_place_simple; default: all"),
    "weights": (number(above=0, most=1), "share of each folder of --rollouts to use; default: all of them"),
    "train_share": (number(above=0, most=1), "share of the games in the split train; the other games are test"),
    "samples": (count, "reasons sampled for a turn, of which the first good one is kept"),
    "hindsight": (name, "let the exploration prompt of a won state show how it was won (PosteriorExplorer)"),
    "horizon": (count, "most actions of a plan"),
    "seed": (seed, "of the split and of every other draw"),
    "concurrency": (integer(1, 2**20), "requests to the policy at once"),
    "expert": (path, "folders of expert episodes; default: none"),
    "expert_fraction": (number(above=0, most=1), "share of the rows that are the expert's"),
    "size": (count, "most rows, over both splits; default: all states"),
    "n": (count, "responses sampled at each state"),
    "search": (name, "the expert's order of search: rare_first, as_listed or anywhere"),
    "values": (path, "V of the reference policy: a dataset of `prm-gym label value`; or give --value-model"),
    "exploring": (path, "folders of episodes that show what the exploration prompt asks for; default: none"),
}


def add(commands: Commands) -> None:
    text = "Make a dataset of collected episodes. `prm-gym label KIND -h` has an example of each kind."
    label = add_command(commands, "label", text)
    kinds = label.add_subparsers(required=True, metavar="KIND")
    for kind, its in KINDS.items():
        text = fill(f"{kind}: {its.title}.", 80) + "\n\n" + fill(its.text, 80)
        example = f"example:\n  prm-gym label {kind} --rollouts runs/a/rollouts --out {kind} {its.example}"
        flags = partial(_add_flags, kind)  # imports the label and DuckDB, only if this kind is used
        add_command(kinds, kind, its.title, description=text, epilog=example, fill=flags)


def _add_flags(kind: str, command: Parser) -> None:
    from prm_gym.labels import label_function

    function = label_function(kind)
    text = "folders of episodes that `prm-gym rollout` wrote"
    command.add_argument("--rollouts", type=path, nargs="+", required=True, metavar="DIR", help=text)
    text = "folder of the dataset; one of the same settings in it is replaced"
    command.add_argument("--out", type=path, required=True, metavar="DIR", help=text)
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name in _ARGUMENTS:
            names.append(parameter.name)
            _add_parameter(command, parameter)
    if kind in ("inverse", "rejection_sampling"):
        text = "the current policy pi_{i-1}: a model's folder, or its name on the Hub"
        command.add_argument("--policy", type=name, required=True, metavar="DIR", help=text)
        add_sampling(command)
    if kind == "inverse":
        text = "sample on this Ray cluster: auto for the one of this machine, or HOST:PORT; default: in this process"
        command.add_argument("--ray", type=name, metavar="ADDRESS", help=text)
    if kind == "rejection_sampling":
        text = "the PRM that chooses among the responses"
        command.add_argument("--prm", type=path, required=True, metavar="DIR", help=text)
    if kind == "posterior":
        text = "the model that writes the reasons: a folder, or its name on the Hub or at --server"
        command.add_argument("--policy", type=name, required=True, metavar="NAME", help=text)
        add_server(command)
        add_sampling(command)
    if kind == "shaping":
        text = "V of the reference policy: a model trained with the loss `value`; or give --values"
        command.add_argument("--value-model", type=path, metavar="DIR", help=text)
        command.flags |= {"values": "--values, --value-model", "value_fn": "--value-model"}

    def run(options: argparse.Namespace) -> None:
        for flag, needs in _NEEDS.items():
            if flag in names and not getattr(options, needs):
                refuse_idle(options, (flag,), f"without --{needs}")
        chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
        if kind == "shaping" and options.value_model:
            chosen["value_fn"] = _value_model(options.value_model)
        if kind in ("inverse", "rejection_sampling"):
            chosen["policy"], prompt = _policy(options)
            if kind == "rejection_sampling":
                chosen["scorer"] = make_prm(options, prompt)
        if kind == "posterior":
            chosen["policy"] = _writer(options)
        report = function(options.rollouts, options.out, **chosen)
        for line in [*report.lines(), *([report.note] if report.note else [])]:
            say(line)

    command.set_defaults(run=run)


def _policy(options: argparse.Namespace) -> tuple[Any, Prompt]:
    """The model of --policy, sampled as in training unless flags say otherwise, and its prompt."""
    from prm_gym.inference.model_location import check_model
    from prm_gym.provenance import checkpoint_settings
    from prm_gym.store import parts

    if options.policy in (*SCRIPTED, REACT) and not Path(options.policy).is_dir():
        raise UserError("policy", f"{options.policy} is no model to sample from", "name a model's folder or Hub name")
    for folder in [*options.rollouts, *options.expert]:
        parts(folder)
    check_model(options.policy, "policy")
    asked = {"prompt": options.prompt, "temperature": options.temperature, "force": options.force}
    played = checkpoint_settings.settle(options.policy, max_episode_steps=None, **asked)
    options.temperature = played.temperature
    options.max_new_tokens = options.max_new_tokens or MAX_NEW_TOKENS
    if getattr(options, "prm", None):
        check_model(options.prm, "prm")
        checkpoint_settings.check_prm(options.prm, played.prompt, force=options.force)
    make = partial(make_model, flags_alone(options), options.policy, played.prompt)
    if getattr(options, "ray", None) is None:
        return make(), played.prompt
    from prm_gym.policies.on_ray import RayPolicy
    from prm_gym.ray_cluster import Cluster

    return RayPolicy(make, str(options.policy), Cluster(options.ray), options.concurrency), played.prompt


def _writer(options: argparse.Namespace) -> Any:
    """The model of --policy, at --server or in this process."""
    from prm_gym.labels.sql_views import prompt_of
    from prm_gym.prompts import load

    if not options.server:
        refuse_idle(options, OF_SERVERS, "without --server")
        return _policy(argparse.Namespace(**{**vars(options), "expert": []}))[0]
    refuse_idle(options, ("force",), "with --server")
    options.temperature = 0.7 if options.temperature is None else options.temperature
    options.max_new_tokens = options.max_new_tokens or MAX_NEW_TOKENS
    prompt = load(prompt_of(options.rollouts, options.prompt))
    return make_served(argparse.Namespace(**{**vars(options), "prompt": prompt}))


def _value_model(folder: Path) -> Any:
    """The value function of a model; its errors name the flag instead of the key of a recipe."""
    from prm_gym.hosts.open_instruct.value_model import value_function

    try:
        return value_function(folder)
    except UserError as error:
        raise UserError("value_fn", f"{error.where}: {error.problem}", error.remedy) from error


def _add_parameter(command: Parser, parameter: inspect.Parameter) -> None:
    flag, default = f"--{parameter.name.replace('_', '-')}", parameter.default
    convert, text = _ARGUMENTS[parameter.name]
    if parameter.annotation == "bool":
        command.add_argument(flag, action="store_true", help=text)
        return
    if parameter.name in _NEEDS:
        text, default = f"{text}, with --{_NEEDS[parameter.name]}; default: {default}", None
    required = default is parameter.empty
    command.add_argument(
        flag, type=convert, nargs="+" if "Sequence" in str(parameter.annotation) else None,
        default=None if required else default, required=required, metavar=_METAVAR.get(convert),
        help=text if default in (None, ()) else text.partition("; default:")[0],
    )  # fmt: skip


_NEEDS = {"expert_fraction": "expert"}  # flags that have no effect without another
_METAVAR = {path: "DIR", count: "N", name: "NAME", share: "SHARE", seed: "SEED"}
