"""Read a YAML mapping into a dataclass, strictly, so that errors come before work starts.

For a misspelt key the error names file, key and the nearest valid key; for a value of the wrong type, the type.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import yaml

from prm_gym.errors import UserError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Reads a date as a string, since values are stored as JSON, and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in of if tag != "tag:yaml.org,2002:timestamp"]
    for first, of in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: str | PathLike[str]) -> dict[str, Any]:
    """The mapping in the YAML file `path`. Raises `UserError` if it is missing, not YAML or not a mapping."""
    path = Path(path)
    try:
        loaded = yaml.load(path.read_text("utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(path, "no such file", "check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(path, f"not valid YAML ({' '.join(str(error).split())})", "correct the file") from error
    if not isinstance(loaded, dict):
        raise UserError(path, "not a mapping of keys to values", "see recipes/embedded for an example")
    return loaded


def check_keys(keys: Iterable[object], valid: Iterable[str], where: str | PathLike[str], prefix: str = "") -> None:
    """Raise `UserError` for the first of `keys` that is not in `valid`, with the nearest valid one as the remedy."""
    valid = list(valid)
    for key in keys:
        if key not in valid:
            near = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"valid keys are {', '.join(sorted(valid))}"
            raise UserError(where, "unknown key", remedy, field=f"{prefix}{key}")


def build(cls: type[T], values: Mapping[str, Any], where: str | PathLike[str], prefix: str = "") -> T:
    """An instance of the dataclass `cls` from `values`, checked key by key; nested dataclasses are built the same way.

    Raises `UserError` naming `where`, the dotted field and the remedy.
    """
    assert dataclasses.is_dataclass(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    check_keys(values, fields, where, prefix)
    hints = typing.get_type_hints(cls)
    arguments = {name: build_value(hints[name], value, where, prefix + name) for name, value in values.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in arguments:
            raise UserError(where, "missing", "add it", field=prefix + name)
    return cls(**arguments)


def build_value(hint: Any, value: Any, where: str | PathLike[str], field: str) -> Any:
    """`value` as the type `hint`: a dataclass, a scalar, `X | None`, `list[X]` or `dict[str, X]`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return build_value(next(a for a in arguments if a is not type(None)), value, where, field)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise UserError(where, "must be a mapping", "indent its keys below it", field=field)
        return build(hint, value, where, field + ".")
    if origin is list and isinstance(value, list):
        return [build_value(arguments[0], entry, where, f"{field}[{i}]") for i, entry in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {str(k): build_value(arguments[1], v, where, f"{field}.{k}") for k, v in value.items()}
    if hint is Any or (isinstance(value, origin or hint) and not (hint is int and isinstance(value, bool))):
        return value
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except ValueError:
            pass
    name = getattr(origin or hint, "__name__", str(hint))
    raise UserError(where, f"must be of type {name}, not {value!r}", "correct the value", field=field)
