"""Ranking of actions by Q, against simulated states whose true returns, and so true orders, are known."""

from __future__ import annotations

import itertools
import warnings
from statistics import fmean

import numpy as np
import pytest

from prm_gym.evaluation import ranking
from prm_gym.evaluation.ranking import Fork, Ranking, kind, pairs_of, rank

GAMMA = 0.95
State = tuple[Fork, np.ndarray]  # with the true returns of its actions


def world(rng: np.random.Generator, games: int, *, rollouts: int, noise: float, actions: int = 4) -> list[State]:
    """Two states a game, hard and easy ones, dead ends, and actions that change nothing and so are true ties.

    An action wins with probability p after a number of steps that is its own plus a geometric one, so it returns
    gamma^steps or 0. Q is the true return and normal noise, a deviation of `noise` for a win at once.
    """
    made = []
    for game in [f"g{i}" for i in range(games) for _ in range(2)]:
        far, base = int(rng.integers(0, 25)), rng.beta(0.6, 1.0)
        effect = np.where(rng.random(actions) < 0.35, 0.0, rng.normal(0, 0.8, actions))
        p = 1 / (1 + np.exp(-np.log((base + 1e-6) / (1 - base + 1e-6)) - effect))
        p = np.where(rng.random(actions) < 0.1, 0.0, p)
        steps = far + rng.integers(0, 3, actions)
        later = rng.geometric(0.3, (actions, rollouts)) - 1
        returns = (rng.random((actions, rollouts)) < p[:, None]) * GAMMA ** (steps[:, None] + later)
        true = p * GAMMA**steps * 0.3 / (1 - 0.7 * GAMMA)  # E gamma^later = 0.3 / (1 - 0.7 gamma)
        q = true + rng.normal(0, noise * GAMMA**far, actions)
        made.append((Fork(game, ["go to desk 1"] * actions, [True] * actions, q.tolist(), returns.tolist()), true))
    return made


def right(states: list[State]) -> tuple[float, float]:
    """By brute force: the share of pairs with different mean returns in their true order, a true tie one half; and the
    share of the true gaps of all pairs."""
    counted, won, gaps = [], 0.0, 0.0
    for fork, true in states:
        for a, b in itertools.combinations(range(len(true)), 2):
            gap, agrees = abs(true[a] - true[b]), (true[a] > true[b]) == (fork.q[a] > fork.q[b])
            won, gaps = won + gap * agrees, gaps + gap
            if fmean(fork.returns[a]) != fmean(fork.returns[b]):
                counted.append(0.5 if true[a] == true[b] else float(agrees))
    return fmean(counted), won / gaps


def ranked(states: list[State], seed: int = 0) -> Ranking:
    return rank(pairs_of([fork for fork, _ in states]), seed=seed)


@pytest.mark.parametrize(("rollouts", "noise"), [(4, 0.03), (4, 0.1), (8, 0.1), (8, 0.3), (8, 3.0)])
def test_the_corrected_shares_are_those_by_the_true_order(monkeypatch, rollouts: int, noise: float) -> None:
    """Mean over 4 samples of 200 games, without intervals."""
    monkeypatch.setattr(ranking, "_RESAMPLES", 2)
    samples = [world(np.random.default_rng(i), 200, rollouts=rollouts, noise=noise) for i in range(4)]
    true, found = [right(states) for states in samples], [ranked(states) for states in samples]
    share, of_gaps = (fmean(of) for of in zip(*true, strict=True))
    assert fmean(of.corrected for of in found) == pytest.approx(share, abs=0.04)
    assert fmean(of.gap_weighted_corrected for of in found) == pytest.approx(of_gaps, abs=0.05)
    if noise <= 0.1:  # there the noise of the rollouts matters
        raw, weighted = fmean(of.accuracy for of in found), fmean(of.gap_weighted for of in found)
        assert share - raw > 0.05
        assert of_gaps - weighted > 0.08


def test_the_interval_covers_the_true_share() -> None:
    """40 samples of 40 games. At 95%, 34 covered or fewer is as likely as 1.4%; the seed is fixed."""
    setting = {"rollouts": 4, "noise": 0.1, "actions": 3}
    true = fmean(right(world(np.random.default_rng(i), 500, **setting))[0] for i in range(10))
    intervals = [ranked(world(np.random.default_rng((1, i)), 40, **setting)).corrected_ci95 for i in range(40)]
    assert sum(low <= true <= high for low, high in intervals) >= 35
    assert fmean(high - low for low, high in intervals) < 0.5


def test_many_rollouts_leave_the_interval_as_wide_as_the_games_make_it() -> None:
    """Six games, of which a resample may leave out the one that Q orders wrongly."""

    def width(rollouts: int) -> float:
        right, wrong = [[1.0] * rollouts, [0.0] * rollouts], [[0.0] * rollouts, [1.0] * rollouts]
        forks = [
            Fork(f"g{i}", ["a", "b"], [True] * 2, [0.9, 0.1], right if i else wrong) for i in range(6) for _ in range(4)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            low, high = rank(pairs_of(forks)).corrected_ci95
        return high - low

    assert width(256) == pytest.approx(width(64), rel=0.1)


def test_the_interval_is_over_games() -> None:
    """Each game ten times: ten times the pairs, but no more games, so an interval over pairs would be a third of it."""
    states = world(np.random.default_rng(0), 30, rollouts=4, noise=0.1)
    once, ten = ranked(states), ranked(states * 10)
    assert (ten.pairs, ten.games) == (10 * once.pairs, once.games)
    assert np.diff(ten.ci95) > 0.8 * np.diff(once.ci95)
    assert np.diff(ten.corrected_ci95) > 0.8 * np.diff(once.corrected_ci95)


def fork(q: list[float], wins: list[int], actions: list[str], valid: list[bool | None] | None = None) -> Fork:
    returns = [[1.0] * n + [0.0] * (4 - n) for n in wins]
    return Fork("g", actions, valid or [True] * len(q), q, returns)


def test_the_raw_share_counts_pairs_that_the_rollouts_tell_apart() -> None:
    """Wins 4, 2, 2, 0: five pairs. Q is right on (a, b) and (a, d), ties on (c, d) and is wrong on (a, c), (b, d)."""
    found = rank(pairs_of([fork([0.5, 0.4, 0.6, 0.6], [4, 2, 2, 0], ["go"] * 4)]))
    by_hand = [(1, 2), (0, 2), (0, 4), (0, 2), (0.5, 2)]  # (a, b), (a, c), (a, d), (b, d), (c, d): agreement, gap
    assert (found.pairs, found.games) == (5, 1)
    assert found.accuracy == pytest.approx(fmean(agree for agree, _ in by_hand))
    assert found.gap_weighted == pytest.approx(sum(agree * gap for agree, gap in by_hand) / 12)


def test_a_q_that_always_ties_is_right_half_of_the_time() -> None:
    states = world(np.random.default_rng(0), 20, rollouts=4, noise=0.1)
    flat = [Fork(f.game_id, f.actions, f.admissible, [0.5] * 4, f.returns) for f, _ in states]
    found = rank(pairs_of(flat))
    assert found.accuracy == 0.5
    assert found.corrected == pytest.approx(0.5)
    assert found.gap_weighted_corrected == pytest.approx(0.5)


def test_states_that_tell_nothing_count_nowhere() -> None:
    found = rank(pairs_of([fork([0.1, 0.9], [0, 0], ["go", "go"]), fork([0.1, 0.9], [4, 4], ["go", "go"])]))
    assert (found.pairs, found.accuracy, found.corrected, found.corrected_ci95) == (0, None, None, (0.0, 1.0))
    assert rank(pairs_of([])).pairs == 0


def test_a_pair_counts_for_each_kind_that_it_holds() -> None:
    actions = ["go to desk 1", "move mug 1 to desk 1", "put mug 1 in/on desk 1", "inventory"]
    pairs = pairs_of([fork([0.4, 0.3, 0.2, 0.1], [4, 3, 2, 1], actions)])
    assert {name: rank(pairs.having(name)).pairs for name in ("go", "put", "other", "take")} == {
        "go": 3, "put": 5, "other": 3, "take": 0,
    }  # fmt: skip
    assert [kind(action) for action in ("take a 1 from b 1", "examine b 1", "gone", "")] == [
        "take", "examine", "other", "other",
    ]  # fmt: skip


def test_pairs_are_split_by_what_is_admissible() -> None:
    pairs = pairs_of([fork([0.4, 0.3, 0.2, 0.1], [4, 3, 2, 1], ["go"] * 4, [True, True, False, None])])
    names = ("both admissible", "one admissible", "neither admissible")
    assert [rank(pairs.having(name)).pairs for name in names] == [1, 2, 0]


def test_the_same_seed_gives_the_same_interval() -> None:
    states = world(np.random.default_rng(0), 20, rollouts=4, noise=0.1)
    assert ranked(states) == ranked(states)
    assert ranked(states).corrected_ci95 != ranked(states, seed=1).corrected_ci95
