"""Best-of-N: the argmax of logit Q, or of logit Q + W log pi(a|s), among different actions."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter

import pytest

from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import BestOf, BestOfN, action_logprobs
from prm_gym.types import Response, State

STATE = State("g", "task", ("o",), (), ("a", "b", "c"))


class Says:
    """Gives these actions, or responses, in turn; an action gets its place as the reason."""

    policy_id = "pi_1"

    def __init__(self, *actions):
        self.actions, self.asked, self.closed = actions, [], False

    async def act(self, state, *, n=1, seed=0):
        self.asked.append((n, seed))
        said = enumerate(self.actions[:n])
        return [a if isinstance(a, Response) else Response(f"{i}:{a}", str(i), a, 3, 4) for i, a in said]

    async def close(self):
        self.closed = True


class Likes:
    def __init__(self, **q):
        self.q, self.scored, self.closed = q, [], False

    async def logits(self, pairs):
        self.scored.append([response.action for _, response in pairs])
        assert all(state is STATE for state, _ in pairs)
        return [self.q[response.action] for _, response in pairs]

    async def close(self):
        self.closed = True


def choose(policy, scorer, *, n=4, draws=1, seed=0, **options):
    return asyncio.run(BestOfN(policy, scorer, n, **options).act(STATE, n=draws, seed=seed))


def said(action, probability, text=None, ids=None):
    """A response that is its action alone, sampled with a known probability at temperature 1."""
    return Response(text or action, "", action, token_ids=ids, logprob=math.log(probability), sampling_logprob=-0.1)


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
    with pytest.raises(UserError, match="n: must be at least 1, got 0"):
        BestOfN(Says(), Likes(), 0)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 4.0])
def test_the_choice_is_the_mode_of_pi_times_exp_q_over_the_weight(weight):
    """Eq. 3 at one state, its optimum by brute force: pi(a) exp(logit Q / weight)."""
    rng = random.Random(5)
    chosen = set()
    for _ in range(50):
        pi = {action: rng.uniform(0.01, 0.33) for action in "abc"}
        logit = {action: rng.gauss(0, 2) for action in "abc"}
        [response] = choose(Says(*(said(a, pi[a]) for a in "abc")), Likes(**logit), n=3, weight=weight)
        optimum = {a: pi[a] * math.exp(logit[a] / weight) for a in "abc"} if weight else logit
        assert response.action == max(optimum, key=optimum.__getitem__)
        chosen.add(response.action == max(logit, key=logit.__getitem__))
    assert chosen == ({True, False} if weight else {True})


def test_the_probability_of_an_action_is_that_of_all_its_different_texts():
    responses = [
        said("a", 0.2),
        said("a", 0.1, "a."),
        said("a", 0.2),
        said("b", 0.25),
        said("c", 0.01, "c", (1, 2)),
        said("c", 0.02, "c", (3,)),
    ]
    expected = {"a": math.log(0.3), "b": math.log(0.25), "c": math.log(0.03)}
    assert action_logprobs(responses) == pytest.approx(expected)
    [response] = choose(Says(*responses), Likes(a=0.0, b=0.1, c=0.0), n=6, weight=1.0)
    assert response.text == "a"


@pytest.mark.parametrize("odd", [Response("a", "", "a"), Response("x", "I think", "a", logprob=-1.0)])
def test_the_share_of_samples_where_a_probability_is_unknown_or_of_one_reasoning_among_many(odd):
    responses = [odd, said("b", 0.9), said("b", 0.9), said("c", 1e-9)]
    expected = {action: math.log(count / 4) for action, count in Counter("abbc").items()}
    assert action_logprobs(responses) == pytest.approx(expected)


def test_only_admissible_actions_compete_where_there_are_any():
    likes = {"a": 0.1, "b": 0.2, "sing": 3.0, "dance": 2.0}
    [response] = choose(Says("sing", "a", "dance", "b"), scorer := Likes(**likes), among="admissible")
    assert response.action == "b"
    assert scorer.scored == [["a", "b"]]
    [response] = choose(Says("dance", "sing"), Likes(**likes), n=2, among="admissible")
    assert response.action == "sing"
    [response] = choose(Says("sing", "dance", "a"), scorer := Likes(), n=3, among="admissible")
    assert response.action == "a"
    assert scorer.scored == []


def test_a_weighted_choice_scores_an_action_once():
    choose(Says("a", "b", "b", "a"), scorer := Likes(a=0.1, b=0.9), weight=2.0)
    assert scorer.scored == [["a", "b"]]


MODES = {
    "best_of_16": BestOf(16),
    "best_of_16_weight1": BestOf(16, 1.0),
    "best_of_16_admissible": BestOf(16, among="admissible"),
    "best_of_16_weight1_admissible": BestOf(16, 1.0, "admissible"),
    "best_of_4_weight0.25": BestOf(4, 0.25),
    "best_of_4_weight1e-05": BestOf(4, 1e-5),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_says_all_that_defines_it(mode):
    assert MODES[mode].mode == mode
    assert BestOf.of_mode(mode) == MODES[mode]
    policy = BestOfN(Says(), Likes(), MODES[mode].n, weight=MODES[mode].weight, among=MODES[mode].among)
    assert policy.policy_id == f"{mode}(pi_1)"


@pytest.mark.parametrize(
    "mode", ["policy", "best_of_", "best_of_x", "best_of_4_weight", "best_of_4_admissible_weight1"]
)
def test_other_modes_are_no_best_of_n(mode):
    assert BestOf.of_mode(mode) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight: must be a number from 0 on, got -1.0"),
        ({"weight": math.nan}, "weight: must be a number from 0 on, got nan"),
        ({"weight": math.inf}, "weight: must be"),
        ({"among": "valid"}, "among: must be all or admissible, got 'valid'"),
    ],
)
def test_a_choice_out_of_range_is_named(options, message):
    with pytest.raises(UserError, match=message):
        BestOfN(Says(), Likes(), **options)
