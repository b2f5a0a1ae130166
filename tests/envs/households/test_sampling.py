"""Properties of every generated game, over many games. alfworld's player is not needed here."""

from __future__ import annotations

from collections import Counter

import pytest

from prm_gym.envs.games import SPLITS, TASK_TYPES
from prm_gym.envs.households import writer
from prm_gym.envs.households.catalog import APPLIANCES, catalog
from prm_gym.envs.households.household import Game
from prm_gym.envs.households.writer import games
from prm_gym.errors import UserError

COUNTS = {"small": 240, "full": 60}


@pytest.fixture(scope="module", params=sorted(COUNTS))
def drawn(request: pytest.FixtureRequest) -> dict[str, list[Game]]:
    preset = request.param
    return {split: draw(preset, split, COUNTS[preset], seed=1) for split in SPLITS} | {"preset": preset}


def draw(preset: str, split: str, count: int, *, seed: int) -> list[Game]:
    return [game for _, game in games(preset, {split: count}, seed)]


def every(drawn: dict[str, list[Game]]) -> list[Game]:
    return [game for split in SPLITS for game in drawn[split]]


def test_sizes_are_those_of_the_preset(drawn: dict[str, list[Game]]) -> None:
    places, things = ((6, 8), (4, 6)) if drawn["preset"] == "small" else ((15, 35), (25, 55))
    for game in every(drawn):
        assert places[0] <= len(game.receptacles) <= places[1]
        assert things[0] <= len(game.things) <= things[1]


def test_task_types_are_balanced(drawn: dict[str, list[Game]]) -> None:
    for split in SPLITS:
        counts = Counter(game.task.type for game in drawn[split])
        assert set(counts) == set(TASK_TYPES)
        assert max(counts.values()) == min(counts.values())


def test_tasks_are_set_in_alfworlds_rooms(drawn: dict[str, list[Game]]) -> None:
    tables = catalog()
    for game in every(drawn):
        room = next(room for room, numbers in tables.scenes.items() if game.floor_plan in numbers)
        assert room in tables.rooms[game.task.type]


def test_what_the_task_needs_is_there(drawn: dict[str, list[Game]]) -> None:
    tables = catalog()
    for game in every(drawn):
        kinds = {place.kind for place in game.receptacles}
        assert sum(thing.kind == game.task.target for thing in game.things) >= game.task.copies
        if game.task.type in APPLIANCES:
            appliance, ability = APPLIANCES[game.task.type]
            assert appliance in kinds
            assert game.task.target in tables.abilities[ability]
        if game.task.type == "look_at_obj_in_light":
            assert any(thing.kind == "DeskLamp" and thing.home for thing in game.things)
        else:
            assert game.task.goal in kinds
            assert game.task.target in tables.can_contain[game.task.goal]


def test_no_target_starts_where_it_belongs_or_in_view(drawn: dict[str, list[Game]]) -> None:
    for game in every(drawn):
        kinds = {place.id: place.kind for place in game.receptacles}
        assert all(kinds[thing.home] != game.task.goal for thing in game.things if thing.kind == game.task.target)
        assert game.start not in {place.location for place in game.receptacles}


def test_objects_lie_where_their_type_can(drawn: dict[str, list[Game]]) -> None:
    tables = catalog()
    for game in every(drawn):
        places = {place.id: place for place in game.receptacles}
        for thing in game.things:
            if thing.kind in tables.portable:
                assert thing.kind in tables.can_contain[places[thing.home].kind]
                assert thing.location == places[thing.home].location


def test_ids_are_unique(drawn: dict[str, list[Game]]) -> None:
    for game in every(drawn):
        ids = [place.id for place in game.receptacles] + [thing.id for thing in game.things]
        assert len(set(ids)) == len(ids)
        assert len(set(game.names.values())) == len(ids)


def test_no_two_games_of_a_split_are_alike(drawn: dict[str, list[Game]]) -> None:
    for split in SPLITS:
        assert len({game.text_key for game in drawn[split]}) == len(drawn[split])
        assert len({game.folder for game in drawn[split]}) == len(drawn[split])


def test_a_game_like_an_earlier_one_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also across splits, and not for ever."""

    def alike(preset: str, split: str, index: int, seed: int, attempt: int) -> Game:
        return draw_one(preset, "train", index if attempt else 0, seed, attempt)

    draw_one = writer._draw
    monkeypatch.setattr(writer, "_draw", alike)
    keys = [game.text_key for _, game in games("small", {"train": 6, "valid_seen": 6}, 1)]
    assert len(set(keys)) == 12
    monkeypatch.setattr(writer, "_draw", lambda *where: draw_one("small", "train", 0, 1, 0))
    with pytest.raises(UserError, match="splits: train: preset small has only 1 different games; ask for fewer"):
        list(games("small", {"train": 2}, 1))


def test_unseen_games_share_no_layout_and_no_pair_with_train(drawn: dict[str, list[Game]]) -> None:
    train, unseen = drawn["train"], drawn["valid_unseen"]
    assert not {game.floor_plan for game in train} & {game.floor_plan for game in unseen}
    assert not {pair(game) for game in train} & {pair(game) for game in unseen}


def test_seen_games_are_other_tasks_in_the_layouts_of_train(drawn: dict[str, list[Game]]) -> None:
    unseen = catalog().unseen_scenes
    train, seen = ({(game.floor_plan, game.task) for game in drawn[split]} for split in ("train", "valid_seen"))
    assert not train & seen
    assert not {plan for plan, _ in seen} & unseen


def test_a_task_stays_in_its_split_whatever_the_seed() -> None:
    train = {(game.floor_plan, game.task) for seed in (1, 2, 3) for game in draw("small", "train", 120, seed=seed)}
    held_out = {(game.floor_plan, game.task) for game in draw("small", "valid_seen", 240, seed=4)}
    assert not train & held_out


def test_full_rooms_are_like_alfworlds() -> None:
    """Receptacles that share a location, closed ones, and several objects of a type, in every room."""
    tables = catalog()
    for game in draw("full", "train", 60, seed=2):
        assert max(Counter(place.location for place in game.receptacles).values()) >= 2
        assert any(place.kind in tables.openable for place in game.receptacles)
        assert max(Counter(thing.kind for thing in game.things if thing.home).values()) >= 2


def pair(game: Game) -> tuple[str, str]:
    return game.task.target, game.task.goal
