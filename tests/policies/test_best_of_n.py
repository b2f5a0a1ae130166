"""Best-of-N: the argmax of Q among different actions."""

from __future__ import annotations

import asyncio

import pytest

from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import BestOfN
from prm_gym.types import Response, State

STATE = State("g", "task", ("o",), (), ("a", "b", "c"))


class Says:
    """Gives these actions in turn, each with its place as the reason."""

    policy_id = "pi_1"

    def __init__(self, *actions):
        self.actions, self.asked, self.closed = actions, [], False

    async def act(self, state, *, n=1, seed=0):
        self.asked.append((n, seed))
        return [Response(f"{i}:{a}", str(i), a, 3, 4) for i, a in enumerate(self.actions[:n])]

    async def close(self):
        self.closed = True


class Likes:
    def __init__(self, **q):
        self.q, self.scored, self.closed = q, [], False

    async def score(self, pairs):
        self.scored.append([response.action for _, response in pairs])
        assert all(state is STATE for state, _ in pairs)
        return [self.q[response.action] for _, response in pairs]

    async def close(self):
        self.closed = True


def choose(policy, scorer, *, n=4, draws=1, seed=0):
    return asyncio.run(BestOfN(policy, scorer, n).act(STATE, n=draws, seed=seed))


@pytest.mark.parametrize("best", ["a", "b", "c"])
def test_the_highest_q_is_chosen(best):
    scorer = Likes(**{**dict.fromkeys("abc", 0.2), best: 0.9})
    [response] = choose(Says("a", "b", "c", "a"), scorer)
    assert response.action == best


def test_an_action_is_scored_once_by_its_first_sample():
    scorer = Likes(a=0.1, b=0.9)
    [response] = choose(Says("a", "b", "b", "a"), scorer)
    assert scorer.scored == [["a", "b"]]
    assert response.reason == "1"


def test_ties_go_to_the_first_sampled():
    [response] = choose(Says("c", "a", "b"), Likes(a=0.5, b=0.5, c=0.5), n=3)
    assert response.action == "c"


def test_one_action_needs_no_score():
    scorer = Likes()
    [response] = choose(Says("a", "a", "a", "a"), scorer)
    assert response.reason == "0"
    assert scorer.scored == []


def test_several_choices_are_draws_of_their_own():
    policy = Says("a", "b")
    assert len(choose(policy, Likes(a=0, b=1), n=2, draws=3, seed=5)) == 3
    assert policy.asked == [(2, 5), (2, 7), (2, 9)]


def test_closing_closes_both():
    policy, scorer = Says("a"), Likes()
    asyncio.run(BestOfN(policy, scorer, 2).close())
    assert policy.closed
    assert scorer.closed


def test_bad_n_and_the_name():
    assert BestOfN(Says(), Likes(), 16).policy_id == "best_of_16(pi_1)"
    with pytest.raises(UserError, match="n: 0"):
        BestOfN(Says(), Likes(), 0)
