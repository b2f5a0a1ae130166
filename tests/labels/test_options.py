"""The options that kinds of label share, in every kind that has them: a dataset of each is made under all at once."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_worlds import counts, prompt_of, rows, template, text, tree, write
from test_inverse import Stub
from test_posterior import Author
from test_rejection_sampling import N, Samples, Scores

from prm_gym.labels import KINDS, label_function
from prm_gym.types import Episode

OPTIONS = {
    "weights": [1.0, 1e-9],
    "task_types": ["type-1", "type-2", "type-3"],
    "train_share": 0.5,
    "seed": 2,
    "min_visits": 2,
    "valid_only": True,
}
OTHERS: dict[str, dict[str, Any]] = {
    "preferences": {"delta": 0.001},
    "shaping": {"value_fn": lambda prompts: [0.5] * len(prompts)},
    "rejection_sampling": {"policy": Samples(), "scorer": Scores(), "n": N},
    "posterior": {"policy": Author("a guess"), "samples": 1},
}


def known(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that the kind has."""
    return {name: options[name] for name in options if name in inspect.signature(label_function(kind)).parameters}


def having(option: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("made", [kind for kind in KINDS if known(kind, {option: 0})], indirect=True)


def episodes(policy: str) -> list[Episode]:
    return [replace(episode, task="put a mug in desk.") for episode in tree(policy=policy)]  # dagger's expert reads it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    for policy in ("pi_0", "pi_1", "expert"):
        write(folder / policy, episodes(policy))
    template(folder)
    return folder


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest, folder: Path) -> list[dict[str, Any]]:
    kind, out = request.param, folder / "out" / request.param
    others = {"inverse": {"policy": Stub(), "expert": folder / "expert"}, **OTHERS}.get(kind, {})
    options = {**known(kind, OPTIONS), **others, "prompt": str(folder / "plain.jinja")}
    if not out.exists():
        label_function(kind)([folder / "pi_0", folder / "pi_1"], out, **options)
    return rows(out)


@having("weights")
def test_a_folder_without_weight_gives_no_row(made: list[dict[str, Any]]) -> None:
    assert {row["policy_id"] for row in made} - {"expert"} == {"pi_0"}


@having("task_types")
def test_rows_are_of_the_task_types_asked_for(made: list[dict[str, Any]]) -> None:
    assert {row["game_id"] for row in made} == {"game-1", "game-2", "game-3"}


@having("train_share")
def test_games_are_split_by_share_and_seed(made: list[dict[str, Any]]) -> None:
    """With seed 0, or a share of 0.85, other games are in `test`."""
    assert {row["game_id"] for row in made if row["split"] == "test"} == {"game-2", "game-3"}


def actions(row: dict[str, Any]) -> list[str]:
    """The actions of the row's completion, or of its pair."""
    return [text(row[name]).split("#")[1] for name in ("completion", "chosen", "rejected") if name in row]


@having("valid_only")
def test_actions_are_admissible_where_others_are_left_out(made: list[dict[str, Any]]) -> None:
    assert {action for row in made for action in actions(row)} == {"go", "take"}


@having("min_visits")
def test_actions_of_one_visit_are_left_out(made: list[dict[str, Any]]) -> None:
    visits = Counter(
        (prompt_of(e, t), e.turns[t].action)
        for e in filter(counts, episodes("pi_0"))
        for t in range(e.branch_turn, e.actions)
    )
    assert min(visits[text(row["prompt"]), action] for row in made for action in actions(row)) == 2
