"""The arguments of a stage, from its YAML file and its command line, by TRL's parser.

`check` finds what is wrong in a file without parsing it, which on another machine than the training's may fail, as for
bf16 where there is no GPU.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from prm_gym.config import build_value, check_keys, read_yaml
from prm_gym.errors import UserError, first_line

_NEEDED = {"online_dpo": ("reward_model_path",), "policy_gradient": ("reward_model_path",)}
_NUMBERS = (int, float, int | None, float | None)


def check(stage: str, file: Path) -> None:
    """Raise `UserError` for the first key in the YAML `file` that `stage` does not know or would ignore, or number that
    is none.
    """
    classes = import_module(f"prm_gym.hosts.trl.{stage}").argument_classes()
    values = read_yaml(file)
    hints = {of.name: typing.get_type_hints(cls).get(of.name) for cls in classes for of in fields(cls) if of.init}
    check_keys(values, {*hints, "env"}, file)  # `env` is the parser's own
    for key, value in values.items():
        if value is not None and hints.get(key) in _NUMBERS:
            build_value(hints[key], value, file, key)
    for key in ("weight_decay", "optim"):
        if values.get("muon_learning_rate") and values.get(key):
            raise UserError(file, "has no effect beside muon_learning_rate", "remove it", field=key)


def check_inputs(stage: str, file: Path) -> None:
    """Raise `UserError` for the first model or dataset that `stage` needs and the YAML `file` does not name."""
    values = read_yaml(file)
    for key in ("model_name_or_path", "dataset_name", *_NEEDED.get(stage, ())):
        if not values.get(key) and not (key == "dataset_name" and values.get("datasets")):
            raise UserError(file, "missing", "add it", field=key)


def parse(arguments: Sequence[str], classes: Sequence[type]) -> tuple[Any, ...]:
    """An instance of each of `classes`. Raises `UserError` for arguments that TRL's parser refuses."""
    from trl import TrlParser

    try:
        return tuple(TrlParser(classes).parse_args_and_config(list(arguments), fail_with_unknown_args=True))
    except ValueError as error:
        remedy = "correct it; `--help` after the stage shows all fields"
        raise UserError("prm_gym.hosts.trl", first_line(error), remedy) from None
