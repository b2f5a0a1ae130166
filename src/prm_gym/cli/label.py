"""`prm-gym label KIND`: a dataset of collected episodes. The flags are the arguments of the label's function."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, Parser, add_command
from prm_gym.cli.playing import add_sampling, make_model


def add(commands: Commands) -> None:
    label = add_command(commands, "label", "Make a dataset of collected episodes.")
    kinds = label.add_subparsers(required=True, metavar="KIND")
    from prm_gym.labels import KINDS

    for kind in KINDS:
        _add_kind(kinds, kind)


def _add_kind(kinds: Commands, kind: str) -> None:
    from prm_gym.recipe import label_function

    function = label_function(kind)
    text = (inspect.getdoc(function) or "").partition("\n")[0]
    command = add_command(
        kinds,
        kind,
        text,
        description=inspect.getdoc(sys.modules[function.__module__]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--rollouts", type=Path, nargs="+", required=True, metavar="DIR")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in ("value_fn", "policy"):
            continue
        names.append(parameter.name)
        _add_parameter(command, parameter)
    if kind == "inverse":
        command.add_argument("--policy", type=Path, required=True, metavar="DIR", help="pi_{i-1}, a model's folder")
        add_sampling(command)
    if kind == "shaping":
        command.add_argument("--value-model", type=Path, metavar="DIR", help="V_mu, trained with the loss `value`")
        command.flags["values"] = "--values, --value-model"

    def run(options: argparse.Namespace) -> None:
        chosen = {name: getattr(options, name) for name in names}
        if kind == "shaping" and options.value_model:
            from prm_gym.hosts.open_instruct.values import value_function

            chosen["value_fn"] = value_function(options.value_model)
        if kind == "inverse":
            from prm_gym import trained

            asked = {"prompt": options.prompt, "temperature": options.temperature, "force": options.force}
            played = trained.settle(options.policy, max_episode_steps=None, **asked)
            options.temperature = played.temperature
            chosen["policy"] = make_model(options, options.policy, played.prompt)
        for line in function(options.rollouts, options.out, **chosen).lines():
            console.print(line, highlight=False)

    command.set_defaults(run=run)


def _add_parameter(command: Parser, parameter: inspect.Parameter) -> None:
    flag, default = f"--{parameter.name.replace('_', '-')}", parameter.default
    text = str(parameter.annotation)
    if text == "bool":
        command.add_argument(flag, action="store_true")
        return
    kinds: dict[str, Callable[[str], Any]] = {"Path": Path, "float": float, "int": int}
    convert = next((kind for name, kind in kinds.items() if name in text), str)
    required = default is parameter.empty
    help_text = None if required or default in (None, ()) else f"default: {default}"
    command.add_argument(
        flag, type=convert, nargs="+" if "Sequence" in text else None, default=None if required else default,
        required=required, help=help_text,
    )  # fmt: skip
