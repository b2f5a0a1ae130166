"""From a recipe and a command line to the host's own argument objects.

The host's ArgumentParserPlus reads the YAML. Before that, `--field value` is merged into it (the parser's own overrides
leave optional numbers as strings and ignore unknown names), and names and types are checked; a misspelt field is an
error with the nearest valid one. Additional fields (`OWN_FIELDS`) are added to the host's dataclass by inheritance.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import tempfile
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import yaml

from prm_gym.config import check_keys, read_yaml
from prm_gym.errors import UserError

STAGES = ("sft", "reward_modeling", "online_dpo", "policy_gradient")

_ACCELERATE: list[tuple[str, Any, Any]] = [
    ("accelerate_config", Optional[str], None),  # noqa: UP045 - a file for `accelerate launch`
    ("accelerate_arguments", Optional[str], None),  # noqa: UP045 - its further arguments, for several machines
]

# Additional fields, and fields of the host with another default: (name, type, default).
OWN_FIELDS: dict[str, list[tuple[str, Any, Any]]] = {
    "sft": [
        *_ACCELERATE,
        ("torch_dtype", str, "bfloat16"),
        ("completion_only_loss", bool, True),  # False: on the prompt too, for a model made from scratch
        ("push_to_hub", bool, False),
        ("try_launch_beaker_eval_jobs", bool, False),
    ],
    "reward_modeling": [
        *_ACCELERATE,
        ("loss", Literal["soft_bce", "bradley_terry", "inverse", "value"], "soft_bce"),
        ("gamma", float, 0.95),  # of the inverse loss
        ("push_to_hub", bool, False),
    ],
    "online_dpo": [
        *_ACCELERATE,
        ("exploration_probability", float, 0.0),  # of sampling from a row's exploration_prompt
        ("vllm_command", Optional[str], None),  # noqa: UP045 - "vllm serve", to be started and stopped with the run
        ("vllm_server", Optional[str], None),  # noqa: UP045 - or the address of one that is there
        ("vllm_devices", Optional[str], None),  # noqa: UP045 - CUDA_VISIBLE_DEVICES of vllm_command
        ("vllm_weights_dir", str, "/dev/shm"),  # where the server reads new weights; both must see it
        ("checkpoint_every", int, 0),  # training steps; 0 for no checkpoints
        ("push_to_hub", bool, False),
        ("try_launch_beaker_eval_jobs", bool, False),
    ],
}
OWN_FIELDS["policy_gradient"] = OWN_FIELDS["online_dpo"]


# Where the host defines the arguments of each stage: (file below open_instruct/, dataclass).
_DEFINED: dict[str, tuple[tuple[str, str], ...]] = {
    "sft": (("finetune", "FlatArguments"), ("dataset_transformation", "TokenizerConfig")),
    "reward_modeling": (
        ("reward_modeling", "Args"),
        ("dataset_transformation", "TokenizerConfig"),
        ("model_utils", "ModelConfig"),
    ),
    "online_dpo": (
        ("online_dpo_vllm_thread", "Args"),
        ("dataset_processor", "DatasetConfig"),
        ("model_utils", "ModelConfig"),
    ),
}
_DEFINED["policy_gradient"] = _DEFINED["online_dpo"]


def check(stage: str, file: Path, checkout: Path) -> None:
    """Raise `UserError` for the first unknown key in the YAML `file` of `stage`, or a missing accelerate_config.

    Reads the host's sources without importing them, so it works without the host's environment.
    """
    values = read_yaml(file)
    check_keys(values, known_fields(stage, checkout), file)
    check_accelerate_config(values.get("accelerate_config"), file)


def check_accelerate_config(config: str | None, recipe: Path) -> None:
    """Raise `UserError` if there is no such file."""
    if config is not None and not Path(config).is_file():
        raise UserError(recipe, f"no file {config}", "name it from where the command runs", field="accelerate_config")


def known_fields(stage: str, checkout: Path) -> list[str]:
    """The names of the host's fields and of ours."""
    found = {name for name, _, _ in OWN_FIELDS[stage]}
    for module, name in _DEFINED[stage]:
        source = ast.parse((checkout / "open_instruct" / f"{module}.py").read_text("utf-8"))
        [defined] = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name == name]
        for node in defined.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not _set_later(node.value):
                found.add(node.target.id)
    return sorted(found)


def _set_later(default: ast.expr | None) -> bool:
    """Whether a default is `field(init=False, ...)`."""
    given = default.keywords if isinstance(default, ast.Call) else []
    return any(each.arg == "init" and ast.unparse(each.value) == "False" for each in given)


def parse_command_line(arguments: Sequence[str]) -> tuple[str, Path, dict[str, Any]]:
    """`STAGE RECIPE.yaml [--field value | --field=value]...` as (stage, recipe, overrides read as YAML scalars)."""
    usage = f"python -m prm_gym.hosts.open_instruct {{{'|'.join(STAGES)}}} RECIPE.yaml [--field value]"
    if len(arguments) < 2 or arguments[0] not in STAGES:
        raise UserError("command line", "needs a stage and a recipe", usage)
    overrides: dict[str, Any] = {}
    rest = list(arguments[2:])
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError("command line", f"unexpected '{word}'", usage)
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise UserError("command line", "no value", f"write --{name} VALUE", field=name)
            value = rest.pop(0)
        overrides[name] = yaml.safe_load(value)
    return arguments[0], Path(arguments[1]), overrides


def extend(cls: type, stage: str) -> type:
    """The host's dataclass `Args` with the fields of `OWN_FIELDS[stage]`."""
    fields = [(name, kind, dataclasses.field(default=default)) for name, kind, default in OWN_FIELDS[stage]]
    return dataclasses.make_dataclass("Args", fields, bases=(cls,))


def parse(recipe: Path, overrides: Mapping[str, Any], classes: Sequence[type]) -> list[Any]:
    """One object of each dataclass in `classes`, by the host's parser. Raises `UserError` for a bad name or type."""
    from open_instruct.utils import ArgumentParserPlus

    hints = {name: hint for cls in classes for name, hint in field_hints(cls).items()}
    values = read_yaml(recipe)
    check_keys(values, hints, recipe)
    check_keys(overrides, hints, "command line", "--")
    merged = {
        **{name: as_type(value, hints[name], recipe, name) for name, value in values.items()},
        **{name: as_type(value, hints[name], "command line", f"--{name}") for name, value in overrides.items()},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(merged, file, allow_unicode=True)
        file.flush()
        return list(ArgumentParserPlus(tuple(classes)).parse_yaml_file(file.name))


def field_hints(cls: type) -> dict[str, Any]:
    """{field: type} of a dataclass; annotations that are strings are resolved."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def as_type(value: Any, hint: Any, where: Any, field: str) -> Any:
    """`value` converted to a field of type `hint`. YAML reads 1e-5 as a string, and integers are valid floats; the
    host's data set mixers have the type str, and are mappings in YAML.
    """
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        base = typing.get_origin(option) or option
        if base is Literal:
            if value in typing.get_args(option):
                return value
        elif base is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            with contextlib.suppress(ValueError):
                return float(value)
        elif isinstance(value, (str, dict) if base is str else base) and isinstance(value, bool) == (base is bool):
            return value
    raise UserError(where, f"{value!r} is not {_describe(hint)}", "correct the value", field=field)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return "of type " + str(getattr(hint, "__name__", hint)).replace("typing.", "")
