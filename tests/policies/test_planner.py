"""The planner against brute force in a corridor, and the environment as a world against a fresh environment."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from dataclasses import replace
from hashlib import blake2b

import pytest
from rollout_world import COMMANDS, Corridor, make_games

from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import BestOf, BestOfN
from prm_gym.policies.planner import Planner
from prm_gym.policies.worlds import EngineWorld
from prm_gym.types import PromptTooLong, Response, State

GAMES = make_games(4)  # the door of game i is i + 1 steps to the right


class Saved(Corridor):
    """The corridor with snapshots."""

    def snapshot(self):
        return self.door, self.place, self.steps

    def restore(self, snapshot):
        self.door, self.place, self.steps = snapshot


class Everything:
    """Offers every command, with the probabilities 1/2, 1/4, 1/4."""

    policy_id = "pi"

    def __init__(self, longest=math.inf):
        self.longest, self.states = longest, []

    async def settings(self):
        return {"kind": "everything"}

    async def act(self, state, *, n=1, seed=0):
        self.states.append(state)
        if state.turn > self.longest:
            raise PromptTooLong
        shares = dict(zip(COMMANDS, (0.5, 0.25, 0.25), strict=True))
        return [Response(a, "", a, token_ids=(i,), logprob=math.log(p)) for i, (a, p) in enumerate(shares.items())]

    async def close(self): ...


class Table:
    """logit Q drawn from a hash of the history and the action."""

    async def settings(self):
        return {"kind": "table"}

    async def logits(self, pairs):
        return [q(state.actions, response.action) for state, response in pairs]

    async def close(self): ...


def q(history, action):
    digest = blake2b(repr((tuple(history), action)).encode(), digest_size=8).digest()
    return 4 * int.from_bytes(digest, "big") / 2**64 - 2


def start(number=3):
    env = Corridor()
    observation, info = env.reset(options=GAMES[number].reset_arguments()["options"])
    return State(GAMES[number].game_id, info["task"], (observation,), (), tuple(info["admissible_commands"]))


def world(limit=20):
    return EngineWorld(lambda: Saved(limit), GAMES, limit)


def plan(state=None, *, depth=2, width=99, policy=None, choice=None, limit=20):
    planner = Planner(policy or Everything(), Table(), world(limit), choice or BestOf(3), depth=depth, width=width)
    [response] = asyncio.run(planner.act(state or start()))
    return response.action


def after(state, actions, number=3):
    env = Corridor(20)
    env.reset(options=GAMES[number].reset_arguments()["options"])
    for action in actions:
        observation, *_ = env.step(action)
        state = replace(state, observations=(*state.observations, observation), actions=(*state.actions, action))
    return state


@pytest.mark.parametrize("history", [(), ("go left",), ("go right", "go left"), ("open door", "go left", "go left")])
@pytest.mark.parametrize("depth", [1, 2])
def test_with_every_plan_kept_it_takes_the_first_action_of_the_best_sequence(history, depth):
    """Brute force over all sequences; the door is too far to be reached."""
    sequences = itertools.product(COMMANDS, repeat=depth + 1)
    best = max(sequences, key=lambda actions: q((*history, *actions[:-1]), actions[-1]))
    assert plan(after(start(), history), depth=depth) == best[0]


def test_advantages_do_not_depend_on_a_constant_of_the_state():
    """Brute force of sum_i (q(s_i, a_i) - mean q(s_i, .)), under a Q with an arbitrary offset for each state."""

    class Shifted(Table):
        async def logits(self, pairs):
            return [100 * q(state.actions, "offset") + q(state.actions, response.action) for state, response in pairs]

    def value(actions):
        pasts = [actions[:i] for i in range(len(actions))]
        return sum(q(past, a) - sum(q(past, b) for b in COMMANDS) / 3 for past, a in zip(pasts, actions, strict=True))

    sequences = list(itertools.product(COMMANDS, repeat=3))
    best = max(sequences, key=value)
    assert best[0] != max(sequences, key=lambda actions: q(actions[:-1], actions[-1]))[0], "the two values differ here"
    for scorer in (Table(), Shifted()):
        planner = Planner(Everything(), scorer, world(), BestOf(3), depth=2, width=99, value="advantages")
        assert asyncio.run(planner.act(start()))[0].action == best[0]


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_a_weight_adds_the_likelihood_of_the_whole_plan(weight):
    log_pi = dict(zip(COMMANDS, map(math.log, (0.5, 0.25, 0.25)), strict=True))

    def value(actions):
        return q(actions[:-1], actions[-1]) + weight * sum(log_pi[action] for action in actions)

    best = max(itertools.product(COMMANDS, repeat=3), key=value)
    assert plan(depth=2, choice=BestOf(3, weight)) == best[0]


def test_depth_0_is_best_of_n():
    best_of = asyncio.run(BestOfN(Everything(), Table(), 3).act(start()))
    assert plan(depth=0) == best_of[0].action


@pytest.mark.parametrize("width", [1, 2])
def test_a_beam_keeps_the_best_plans_of_each_length(width):
    plans = [(a,) for a in COMMANDS]
    for _ in range(2):
        kept = sorted(plans, key=lambda actions: -q(actions[:-1], actions[-1]))[:width]
        plans = [(*actions, a) for actions in kept for a in COMMANDS]
    assert plan(depth=2, width=width) == max(plans, key=lambda actions: q(actions[:-1], actions[-1]))[0]


def test_a_win_in_sight_is_taken_whatever_q_says():
    """One step to the door of game 0: right, then open."""
    assert plan(start(0), depth=2) == "go right"
    assert plan(after(start(0), ("go right",), 0), depth=1) == "open door"


def test_beyond_the_step_limit_nothing_is_imagined():
    """With the limit of one step no plan goes on, and the choice is best-of-N's."""
    assert plan(depth=2, limit=1) == max(COMMANDS, key=lambda action: q((), action))


def test_a_prompt_over_the_context_ends_a_plan_but_not_the_episode():
    best = max(itertools.product(COMMANDS, repeat=2), key=lambda actions: q(actions[:-1], actions[-1]))
    assert plan(depth=3, policy=Everything(longest=1)) == best[0]
    with pytest.raises(PromptTooLong):
        plan(after(start(), ("go left", "go left")), depth=3, policy=Everything(longest=1))


def test_the_mode_and_the_settings_name_every_number():
    planners = [
        Planner(Everything(), Table(), world(), BestOf(n, weight, among), depth=depth, width=width, value=value)
        for n, weight, among, depth, width, value in itertools.product(
            (4, 8), (0, 1), ("all", "admissible"), (1, 2), (3, 4), ("last", "advantages")
        )
    ]
    assert planners[0].mode == "best_of_4_depth1_width3_last_in_engine"
    assert len({planner.mode for planner in planners}) == len(planners)
    assert len({repr(asyncio.run(planner.settings())) for planner in planners}) == len(planners)


def test_the_environment_as_a_world_is_the_environment():
    """Random walks of all games in turn, from states met in any order, against a fresh environment for each."""
    rng, engine = random.Random(0), world(limit=6)
    known = [(number, start(number)) for number in range(4)]
    for _ in range(300):
        number, state = rng.choice(known)
        action = rng.choice([*COMMANDS, "sing"])
        imagined = asyncio.run(engine.step(state, Response(action, "why", action)))
        fresh = Corridor(6)
        fresh.reset(options=GAMES[number].reset_arguments()["options"])
        for past in state.actions:
            fresh.step(past)
        observation, reward, ended, cut_off, info = fresh.step(action)
        assert imagined.state.observations == (*state.observations, observation)
        assert imagined.state.actions == (*state.actions, action)
        assert list(imagined.state.admissible_commands) == info["admissible_commands"]
        assert (imagined.won, imagined.over) == (reward == 1.0, ended or cut_off)
        if not imagined.over:
            known.append((number, imagined.state))


def test_an_environment_without_a_limit_of_its_own_ends_at_the_limit_of_the_rollout():
    """As one of gymnasium does, which the rollout cuts off."""
    engine, state = EngineWorld(lambda: Saved(10**6), GAMES, 3), start()
    over = []
    for _ in range(3):
        imagined = asyncio.run(engine.step(state, Response("go left", "", "go left")))
        state, over = imagined.state, [*over, imagined.over]
    assert over == [False, False, True]


def test_an_environment_without_snapshots_is_no_world():
    with pytest.raises(UserError, match="no snapshot and restore"):
        EngineWorld(Corridor, GAMES, 20)


def test_a_state_of_another_world_is_refused():
    other = replace(start(), observations=("You stand elsewhere.",))
    with pytest.raises(UserError, match="another observation at turn 0"):
        asyncio.run(world().step(other, Response("go left", "", "go left")))
