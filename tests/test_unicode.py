"""Lone surrogates are replaced at the boundary: no store, key, prompt or file receives one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rollout_world import Corridor, Walker, make_games

from prm_gym import atomic, prompts, provenance
from prm_gym.rollout import rollout, rollout_branches
from prm_gym.store import EpisodeWriter, read_episodes
from prm_gym.store.parquet import to_table
from prm_gym.types import Response, State, state_key
from prm_gym.unicode import well_formed

LONE = "\ud83d"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a mug", "a mug"),
        ("Æ “quoted” 😀 \ufeff", "Æ “quoted” 😀 \ufeff"),
        ("a\ud83d mug", "a\ufffd mug"),
        ("\udc80", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_pairs_are_joined_and_lone_halves_replaced(text: str, expected: str) -> None:
    assert well_formed(text) == expected
    assert json.loads(json.dumps(expected)) == expected


class Broken(Corridor):
    """A corridor whose texts hold lone surrogates, as a damaged JSON gives them."""

    def reset(self, **options: object) -> tuple[str, dict[str, object]]:
        observation, info = super().reset(**options)
        return observation + LONE, {**info, "task": f"open {LONE}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        observation, *rest, info = super().step(action)
        return (
            observation + LONE,
            *rest,
            {**info, "admissible_commands": [f"go {LONE}", *info["admissible_commands"]]},
        )


def test_an_environment_that_shows_one_is_played_stored_and_branched(tmp_path: Path) -> None:
    options = {"make_env": Broken, "progress": False}
    assert rollout(make_games(3), Walker(), tmp_path / "a", **options).episodes == 3
    assert rollout_branches(tmp_path / "a", make_games(3), Walker(), tmp_path / "b", **options).episodes > 0
    for episode in [*read_episodes(tmp_path / "a"), *read_episodes(tmp_path / "b")]:
        assert episode.task == "open \ufffd"
        observations = [turn.observation for turn in episode.turns]
        assert all(observation.endswith("\ufffd") for observation in observations)
        actions = [turn.action for turn in episode.turns[:-1]]
        assert episode.turns[-1].state_key == state_key(episode.game_id, observations, actions)


def test_a_response_that_holds_one_is_executed_without_it(tmp_path: Path) -> None:
    assert rollout(make_games(1), Walker(commands=[f"go{LONE}"]), tmp_path, make_env=Corridor, progress=False).episodes
    [episode] = read_episodes(tmp_path)
    assert {turn.action for turn in episode.turns[:-1]} == {"go\ufffd"}
    assert Response(LONE, LONE, LONE).text == "\ufffd"


def test_the_key_is_that_of_the_text_in_the_store() -> None:
    assert state_key("g", [f"a{LONE}", "b"], ["\ud83d\ude00"]) == state_key("g", ["a\ufffd", "b"], ["😀"])


def test_an_episode_made_by_hand_is_stored(tmp_path: Path) -> None:
    rollout(make_games(1), Walker(), tmp_path / "a", make_env=Corridor, progress=False)
    [episode] = read_episodes(tmp_path / "a")
    turns = [replace(turn, observation=LONE, reason=LONE, admissible_commands=[LONE]) for turn in episode.turns]
    with EpisodeWriter(tmp_path / "b") as writer:
        writer.add(replace(episode, policy_id=f"pi{LONE}", turns=turns))
    [stored] = read_episodes(tmp_path / "b")
    assert (stored.policy_id, stored.turns[0].observation) == ("pi\ufffd", "\ufffd")
    assert to_table([stored])["admissible_commands"][0].as_py() == ["\ufffd"]


@pytest.mark.parametrize("name", ["compact", "full"])
def test_a_prompt_is_well_formed(name: str) -> None:
    state = State("g", f"task {LONE}", (f"see {LONE}", f"then {LONE}"), (f"go {LONE}",), (f"take {LONE}",))
    prompt = prompts.load(name)
    said = [*prompt.messages(state), *prompt.exploration_messages(state)]
    assert all(message["content"].encode() for message in said)
    assert prompt.response(LONE, LONE).encode()


def test_files_are_well_formed(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "page.html", f"<p>{LONE}</p>")
    assert (tmp_path / "page.html").read_text("utf-8") == "<p>\ufffd</p>"
    provenance.write(tmp_path, {"policy_id": LONE})
    assert provenance.digest(provenance.read(tmp_path)["settings"])
