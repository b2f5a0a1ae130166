"""The 120 floor plans, as alfworld ships them and as the games use them."""

from __future__ import annotations

from collections import Counter

import pytest

from prm_gym.envs.households.catalog import catalog
from prm_gym.envs.households.floorplans import FloorPlan, floor_plan


@pytest.fixture(scope="module")
def plans() -> list[FloorPlan]:
    return [floor_plan(number) for numbers in catalog().scenes.values() for number in numbers]


def test_every_room_has_as_many_receptacles_as_real_games(plans: list[FloorPlan]) -> None:
    assert len(plans) == 120
    assert all(15 <= len(plan.receptacles) <= 35 for plan in plans)


def test_every_room_has_receptacles_that_share_a_location(plans: list[FloorPlan]) -> None:
    for plan in plans:
        assert max(Counter(place.location for place in plan.receptacles).values()) >= 2


def test_an_agent_can_start_out_of_reach_of_everything(plans: list[FloorPlan]) -> None:
    for plan in plans:
        assert plan.free
        assert not set(plan.free) & {place.location for place in plan.receptacles}


def test_positions_are_those_alfworld_computed(plans: list[FloorPlan]) -> None:
    """FloorPlan1-openable.json: the fridge is used from (-1.0, 1.0) metres, facing 270 degrees, looking ahead."""
    kitchen = {place.id: place for place in plans[0].receptacles}
    assert kitchen["Fridge|-02.10|+00.00|+01.09"].location == (-4, 4, 3, 0)
    assert kitchen["Sink|-01.90|+00.97|-01.50|SinkBasin"].kind == "SinkBasin"


def test_kitchens_have_what_their_tasks_need(plans: list[FloorPlan]) -> None:
    for plan in plans:
        if plan.room == "Kitchen":
            assert {"SinkBasin", "Microwave", "Fridge"} <= {place.kind for place in plan.receptacles}


def test_ids_are_unique(plans: list[FloorPlan]) -> None:
    for plan in plans:
        assert len({place.id for place in plan.receptacles}) == len(plan.receptacles)
