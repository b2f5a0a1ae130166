"""The belief state that the reader extracts from alfworld's texts."""

from __future__ import annotations

import pytest

from prm_gym.errors import UserError
from prm_gym.policies.household_belief import Goal, read_history, read_task
from prm_gym.types import State

ROOM = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
    "a drawer 2, a drawer 1, a microwave 1, and a shelf 1.\n\nYour task is to: put a mug in shelf."
)


def memory_of(*observations: str):  # type: ignore[no-untyped-def]
    """The memory after some observations; what the actions were does not matter to it."""
    return read_history(State("game", "put a mug in shelf", (ROOM, *observations), ("?",) * len(observations), ()))


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("put a mug in shelf", Goal("mug", "shelf")),
        ("put some mug on shelf", Goal("mug", "shelf")),
        ("put a clean mug in shelf", Goal("mug", "shelf", treat="clean")),
        ("clean some mug and put it in shelf", Goal("mug", "shelf", treat="clean")),
        ("put a hot mug in shelf", Goal("mug", "shelf", treat="heat")),
        ("heat some mug and put it in shelf", Goal("mug", "shelf", treat="heat")),
        ("put a cool mug in shelf", Goal("mug", "shelf", treat="cool")),
        ("cool some mug and put it in shelf", Goal("mug", "shelf", treat="cool")),
        ("put two mug in shelf", Goal("mug", "shelf", copies=2)),
        ("find two mug and put them in shelf", Goal("mug", "shelf", copies=2)),
        ("look at mug under the desklamp", Goal("mug", lamp="desklamp")),
        ("examine the mug with the desklamp", Goal("mug", lamp="desklamp")),
    ],
)
def test_every_sentence_of_alfworld_is_understood(sentence: str, goal: Goal) -> None:
    assert read_task(sentence) == goal


def test_the_sentences_are_all_that_the_installed_alfworld_has() -> None:
    pytest.importorskip("alfworld")
    from prm_gym.envs.households.catalog import catalog

    for task_type, templates in catalog().sentences.items():
        for template in templates:
            goal = read_task(template.format(obj="mug", recep="shelf", toggle="desklamp"))
            assert goal.target == "mug"
            assert (goal.lamp == "desklamp") == (task_type == "look_at_obj_in_light")
            assert (goal.copies == 2) == (task_type == "pick_two_obj_and_place")
            assert goal.treat == {"clean": "clean", "heat": "heat", "cool": "cool"}.get(task_type.split("_")[1], "")


def test_another_sentence_is_an_error_that_quotes_it() -> None:
    with pytest.raises(UserError, match="'Place a warm cup on the table'"):
        read_task("Place a warm cup on the table")


def test_the_first_observation_lists_the_receptacles() -> None:
    assert memory_of().receptacles == ["drawer 2", "drawer 1", "microwave 1", "shelf 1"]


def test_the_later_look_counts() -> None:
    memory = memory_of(
        "You arrive at shelf 1. On the shelf 1, you see a mug 2, a mug 1, and a vase 1.",
        "You pick up the vase 1 from the shelf 1.",
        "On the shelf 1, you see a mug 2, and a mug 1.",
    )
    assert memory.where("mug") == [("mug 1", "shelf 1"), ("mug 2", "shelf 1")]
    assert memory.seen == {"shelf 1": 3}
    assert memory.held == "vase 1"
    assert memory.home == {"vase 1": "shelf 1"}


def test_what_was_taken_is_no_longer_there() -> None:
    look = "You arrive at shelf 1. On the shelf 1, you see a mug 2, and a mug 1."
    memory = memory_of(look, "You pick up the mug 1 from the shelf 1.")
    assert memory.where("mug") == [("mug 2", "shelf 1")]


def test_a_closed_receptacle_is_not_seen_until_it_is_opened() -> None:
    closed = "You arrive at drawer 1. The drawer 1 is closed."
    assert "drawer 1" not in memory_of(closed).seen
    opened = memory_of(closed, "You open the drawer 1. The drawer 1 is open. In it, you see nothing.")
    assert opened.contents["drawer 1"] == set()
    assert opened.seen == {"drawer 1": 2}


@pytest.mark.parametrize("placed", ["You move the mug 1 to the shelf 1.", "You put the mug 1 in/on the shelf 1."])
def test_placing_is_read_in_the_grammar_of_now_and_before(placed: str) -> None:
    memory = memory_of("You pick up the mug 1 from the drawer 1.", placed)
    assert memory.held == ""
    assert memory.where("mug") == [("mug 1", "shelf 1")]


def test_heating_undoes_cooling_and_not_cleaning() -> None:
    memory = memory_of(
        "You clean the mug 1 using the sinkbasin 1.",
        "You cool the mug 1 using the fridge 1.",
        "You heat the mug 1 using the microwave 1.",
    )
    assert memory.treated == {("clean", "mug 1"), ("heat", "mug 1")}


def test_other_texts_teach_nothing() -> None:
    silent = memory_of(
        "Nothing happens.",
        "You are carrying: a mug 1.",
        "This is a normal mug 1. In it, you see nothing.",
        "You are facing the shelf 1. Next to it, you see nothing.",
        "\nAvailable commands:\n  look:                             look around your current location",
    )
    assert silent == memory_of()
