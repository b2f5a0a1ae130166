"""Strict YAML: every mistake is named with its file, its field and the remedy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prm_gym.config import build, read_yaml
from prm_gym.errors import UserError


@dataclass(frozen=True)
class Inner:
    size: int
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    more: Inner | None = None
    numbers: dict[str, int] = field(default_factory=dict)


def test_builds_nested_values_and_defaults() -> None:
    built = build(Outer, {"name": "x", "inner": {"size": 3}, "numbers": {"a": 1}}, "f.yaml")
    assert built == Outer("x", Inner(3, 0.5), None, {"a": 1})


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001"])
def test_reads_every_way_yaml_has_of_writing_a_float(text: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(f"size: 1\nrate: {text}\n")
    assert build(Inner, read_yaml(tmp_path / "f.yaml"), "f.yaml").rate == 0.001


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "x", "inner": {"size": 1}}, r"f.yaml: nam: unknown key; did you mean 'name'\?"),
        ({"name": "x", "inner": {"sizes": 1}}, r"f.yaml: inner.sizes: unknown key; did you mean 'size'\?"),
        ({"name": "x"}, "f.yaml: inner: missing"),
        ({"name": "x", "inner": 3}, "f.yaml: inner: must be a mapping"),
        ({"name": "x", "inner": {"size": "3"}}, "f.yaml: inner.size: must be of type int, not '3'"),
        ({"name": "x", "inner": {"size": True}}, "f.yaml: inner.size: must be of type int, not True"),
        ({"name": "x", "inner": {"size": 1, "rate": "fast"}}, "f.yaml: inner.rate: must be of type float"),
        ({"name": "x", "inner": {"size": 1}, "numbers": {"a": "b"}}, "f.yaml: numbers.a: must be of type int"),
    ],
)
def test_names_file_field_and_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(Outer, values, "f.yaml")


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- a", "not a mapping"), ("", "not a mapping")]
)
def test_refuses_what_is_no_mapping(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(tmp_path / "f.yaml")
    assert "\n" not in str(caught.value)


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_a_date_is_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "prm.yaml").write_text("run_name: 2026-11-26\nlearning_rate: 1.0e-3\n")
    assert read_yaml(tmp_path / "prm.yaml") == {"run_name": "2026-11-26", "learning_rate": 1e-3}
