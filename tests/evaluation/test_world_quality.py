"""A learned world and its measure: a model that knows the corridor, with mistakes put in on purpose."""

from __future__ import annotations

import asyncio
import re

import pytest
from rollout_world import Corridor, Walker, make_games

from prm_gym.errors import UserError
from prm_gym.evaluation.world_quality import kind, measure
from prm_gym.policies.learned_world import LearnedWorld
from prm_gym.prompts import load
from prm_gym.prompts.world import Answer, read, world_state, write
from prm_gym.rollout import rollout
from prm_gym.store import read_episodes
from prm_gym.types import PromptTooLong, Response, State

GAMES = make_games(4)


class Simulator:
    """Replays the actions of the chat in a corridor; `wrong` actions are answered with nonsense."""

    policy_id = "simulator"

    def __init__(self, wrong=(), longest=99):
        self.wrong, self.longest = wrong, longest

    async def settings(self):
        return {"kind": "simulator"}

    async def reply(self, messages, *, n=1, seed=0):
        if len(messages) > self.longest:
            raise PromptTooLong
        users = [message["content"] for message in messages if message["role"] == "user"]
        first, _, action = users[0].partition("\n\n")
        actions = [action, *users[1:]]
        env = Corridor()
        number = int(re.search(r"corridor (\d+)", first)[1])
        env.reset(options=GAMES[number].reset_arguments()["options"])
        for action in actions:
            text, _, won, *_ = env.step(action)
        said = "Nonsense." if actions[-1] in self.wrong else write(Answer(text, won, won))
        return [Response(said, "", said)]

    async def close(self): ...


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walks")
    rollout(GAMES, Walker(), folder, rollouts_per_game=25, make_env=Corridor, progress=False)
    return list(read_episodes(folder))


def quality(episodes, depth=3, **options):
    return measure(episodes, world=LearnedWorld(Simulator(**options), load("world")), depth=depth)


def test_a_perfect_world_foretells_everything(episodes):
    found = quality(episodes)
    for depth in (1, 2, 3):
        right, asked = found.share(depth=depth)
        assert right == asked > 20
    wins = found.as_dict()["wins"]
    assert wins["imagined alone"] == wins["true alone"] == 0 < wins["imagined and true"]


def test_mistakes_are_counted_at_their_kind_and_depth(episodes):
    found = quality(episodes, wrong=("go left",))
    asked = sum(n for (name, _), n in found.asked.items() if name.startswith("go"))
    right = sum(n for (name, _), n in found.right.items() if name.startswith("go"))
    assert 0 < right < asked
    for name in ("open", "inadmissible"):
        right, asked = found.share(name)
        assert right == asked > 0


def test_every_episode_gives_at_most_depth_steps_from_one_turn(episodes):
    found = quality(episodes, depth=2)
    assert found.share(depth=1)[1] == len(episodes)
    assert 0 < found.share(depth=2)[1] <= len(episodes)
    assert found.share(depth=3) == (0, 0)


def test_a_history_over_the_context_is_counted_apart(episodes):
    found = quality(episodes, longest=4)
    assert found.too_long > 0
    assert found.share() == found.share()[1:] * 2  # what was asked was right


def test_kinds(episodes):
    kinds = {kind(episode, t) for episode in episodes for t in range(episode.actions)}
    assert {"go", "go again", "open", "open again", "inadmissible"} == kinds
    for episode in episodes:
        for t in range(episode.actions):
            repeated = episode.turns[t].action in [turn.action for turn in episode.turns[:t]]
            assert kind(episode, t).endswith(" again") == (repeated and bool(episode.turns[t].action_valid))


def test_nothing_to_compare_is_an_error():
    with pytest.raises(UserError, match="none with an action"):
        quality([])


def test_an_imagined_state_is_the_true_one_without_its_commands():
    state = State("g", "t", ("You stand in corridor 2.",), (), ("go left",))
    world = LearnedWorld(Simulator(), load("world_compact"))
    imagined = asyncio.run(world.step(state, Response("go right", "why", "go right")))
    assert imagined.state.observations == ("You stand in corridor 2.", "You are at 1.")
    assert imagined.state.actions == ("go right",)
    assert imagined.state.admissible_commands is None
    assert (imagined.won, imagined.over) == (False, False)


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer("You put it.", True, True), Answer("Dead.", False, True), Answer("Hm.", False, False)),
        *(Answer("", True, True), Answer("", False, True), Answer("", False, False)),
    ],
)
def test_reading_inverts_writing(answer):
    assert read(write(answer)) == answer
    assert read(f"\n {write(answer)}\n") == answer


def test_the_worlds_prompt_grows_by_what_was_said():
    state = State("g", "t", ("o0", "o1"), ("a0",), None)
    prompt = load("world_compact")
    before = prompt.messages(world_state(State("g", "t", ("o0",), (), None), "a0"))
    after = prompt.messages(world_state(state, "a1"))
    assert after == [*before, {"role": "assistant", "content": "o1"}, {"role": "user", "content": "a1"}]
