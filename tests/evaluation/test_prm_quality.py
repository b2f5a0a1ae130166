"""AUC, calibration and ranking, with scorers whose answers are known."""

import asyncio
import math

import pytest

from prm_gym.errors import UserError
from prm_gym.evaluation.prm_quality import measure
from prm_gym.types import Episode, PromptTooLong, Response, State, Turn, state_key

OBSERVATION = "o"


def episode(number: int, actions: list[str], won: bool, parent: str | None = None, branch_turn: int = 0) -> Episode:
    """A game whose observation never changes, so that a state is its actions."""
    turns = [
        Turn(t, OBSERVATION, ["a", "b"], response=a, action=a, reward=float(won and t == len(actions) - 1),
             state_key=state_key("g", [OBSERVATION] * (t + 1), actions[:t]))
        for t, a in enumerate(actions)
    ]  # fmt: skip
    turns.append(
        Turn(len(actions), OBSERVATION, [], state_key=state_key("g", [OBSERVATION] * (len(actions) + 1), actions))
    )
    stop = "won" if won else "step_limit"
    return Episode(f"e{number}", "g", "valid_seen", "t", "k", "pi_0", 0, 0, stop, turns, parent, branch_turn)


class Table:
    """Scores by (turn, action)."""

    def __init__(self, scores: dict[tuple[int, str], float]) -> None:
        self.scores = scores
        self.read: list[Response] = []

    async def score(self, pairs: list[tuple[State, Response]]) -> list[float]:
        self.read += [response for _, response in pairs]
        return [self.scores[state.turn, response.action] for state, response in pairs]


def branches(a: str = "1110", b: str = "0001") -> list[Episode]:
    """At turn 1 of a parent, `a` wins three of four times at once, `b` one of four."""
    outcomes = [("a", won == "1") for won in a] + [("b", won == "1") for won in b]
    return [episode(i, ["a", action], won, parent="p", branch_turn=1) for i, (action, won) in enumerate(outcomes)]


@pytest.mark.parametrize(("a", "b", "accuracy"), [(0.9, 0.1, 1.0), (0.1, 0.9, 0.0), (0.5, 0.5, 0.5)])
def test_ranking_follows_the_rollouts(a: float, b: float, accuracy: float) -> None:
    parent = episode(99, ["a"], True)
    quality = asyncio.run(measure([parent, *branches()], Table({(0, "a"): 0.5, (1, "a"): a, (1, "b"): b})))
    assert quality.ranking.pairs == 1
    assert quality.ranking.accuracy == quality.ranking.gap_weighted == accuracy
    stored = quality.as_dict()
    assert (stored["pairs"], stored["ranking_accuracy"], stored["gap_weighted_accuracy"]) == (1, accuracy, accuracy)
    assert {"ranking_ci95", "ranking_corrected", "ranking_corrected_ci95", "gap_weighted_corrected"} <= stored.keys()


@pytest.mark.parametrize(
    ("a", "b", "ceilings"),
    [
        ("11", "00", {1.0}),
        ("1110", "0001", {None, 0.5, 1.0}),  # a tie in the second halves, in the first, or in none
        ("1", "0", {None}),  # which have no halves
    ],
)
def test_the_ceiling_is_how_often_half_of_the_rollouts_orders_as_the_other(
    a: str, b: str, ceilings: set[float | None]
) -> None:
    episodes, table = [episode(99, ["a"], True), *branches(a, b)], Table({(0, "a"): 0.5, (1, "a"): 0.9, (1, "b"): 0.1})
    found = {asyncio.run(measure(episodes, table, seed=seed)).ranking_ceiling for seed in range(3)}
    assert found == ceilings


def test_a_q_of_the_state_alone_ranks_nothing_though_its_auc_is_perfect() -> None:
    """Every win is decided by the first turn: a Q that knows the turn alone separates all visits, and no action."""
    episodes = [episode(0, ["a"], True), episode(1, ["b"], True), *branches()]
    losing = episode(2, ["c", "a"], False)
    table = Table({(0, "a"): 1.0, (0, "b"): 1.0, (0, "c"): 0.0, (1, "a"): 0.0, (1, "b"): 0.0})
    quality = asyncio.run(measure([*episodes, losing], table))
    assert quality.auc == 1.0
    assert quality.ranking.accuracy == 0.5


def test_auc_leaves_branches_out() -> None:
    table = Table({(0, "a"): 0.5, (1, "a"): 0.5, (1, "b"): 0.5})
    assert asyncio.run(measure([episode(9, ["a"], True), *branches()], table)).visits == 1


def test_calibration_is_measured_against_the_discounted_return() -> None:
    episodes = [episode(0, ["a", "b"], True), episode(1, ["b", "b"], False)]
    scores = {(0, "a"): 0.9, (1, "b"): 0.5, (0, "b"): 0.0}
    quality = asyncio.run(measure(episodes, Table(scores), gamma=0.9))
    # returns: 0.9 at turn 0 and 1 at turn 1 of the win, 0 and 0 of the loss; both visits of turn 1 share a bin
    assert math.isclose(quality.calibration_error, (abs(0.9 - 0.9) + abs(0.0 - 0.0) + 2 * abs(0.5 - 0.5)) / 4)
    shifted = asyncio.run(measure(episodes, Table({key: q / 2 for key, q in scores.items()}), gamma=0.9))
    assert math.isclose(shifted.calibration_error, (0.45 + 0.0 + 2 * 0.25) / 4)


@pytest.mark.parametrize(
    ("q", "correlation"),
    [((0.9, 0.5, 0.1), math.sqrt(3) / 2), ((0.1, 0.5, 0.9), -math.sqrt(3) / 2), ((0.5, 0.5, 0.5), None)],
)
def test_the_correlation_is_that_with_the_return(q: tuple[float, ...], correlation: float | None) -> None:
    """Of returns 1, 0 and 0."""
    episodes = [episode(i, [action], action == "a") for i, action in enumerate("abc")]
    quality = asyncio.run(measure(episodes, Table({(0, action): of for action, of in zip("abc", q, strict=True)})))
    assert quality.correlation == pytest.approx(correlation)


def test_q_reads_the_response_as_the_policy_gave_it() -> None:
    played, table = episode(0, ["a"], True), Table({(0, "a"): 0.5})
    played.turns[0].response, played.turns[0].reason = "REASON: so\nACTION: a", "so"
    asyncio.run(measure([played], table))
    assert table.read == [Response("REASON: so\nACTION: a", "so", "a")]


def test_a_q_without_levels_is_measured_by_its_ranking_alone() -> None:
    table = Table({(0, "a"): 0.1, (1, "a"): 0.3, (1, "b"): 0.2})
    episodes = [episode(9, ["a"], True), *branches()]
    full, ranked = (asyncio.run(measure(episodes, table, levels=levels)) for levels in (True, False))
    assert (ranked.auc, ranked.calibration_error, ranked.correlation, ranked.bins) == (None, None, None, [])
    assert ranked.ranking == full.ranking
    assert "AUC -, calibration error -" in ranked.summary()


def test_the_ranking_is_split_by_what_was_admissible_and_by_kind() -> None:
    """`a` was admissible, `b` was not; neither is a verb of the game."""
    episodes = [episode(9, ["a"], True), *branches()]
    for branch in episodes[1:]:
        branch.turns[1].action_valid = branch.turns[1].action == "a"
    quality = asyncio.run(measure(episodes, Table({(0, "a"): 0.1, (1, "a"): 0.3, (1, "b"): 0.2})))
    assert {label: of.pairs for label, of in quality.ranking_by_validity.items()} == {"one admissible": 1}
    assert {label: of.pairs for label, of in quality.ranking_by_kind.items()} == {"other": 1}
    assert quality.as_dict()["ranking_by_kind"]["other"]["accuracy"] == 1.0
    assert len(quality.summary().splitlines()) == 2
    assert "one admissible" in quality.summary()


class Short(Table):
    """Turns from 2 on and the action `long` are over its context."""

    async def score(self, pairs: list[tuple[State, Response]]) -> list[float]:
        if any(response.action == "long" or state.turn > 1 for state, response in pairs):
            raise PromptTooLong
        return await super().score(pairs)


def test_actions_over_the_context_of_q_are_left_out_and_counted() -> None:
    table = {(0, "a"): 0.5, (1, "a"): 0.9, (1, "b"): 0.1}
    beyond = episode(98, ["a", "a", "a"], False)
    also = episode(97, ["a", "long"], True, parent="p", branch_turn=1)
    found = asyncio.run(measure([episode(99, ["a"], True), beyond, *branches(), also], Short(table)))
    assert (found.too_long, found.visits, found.ranking.pairs) == (2, 3, 1)
    assert found.as_dict()["too_long"] == 2
    assert "; 2 actions over its context left out" in found.summary()


def test_a_q_that_reads_no_action_is_an_error() -> None:
    with pytest.raises(UserError, match="every action is over the PRM's context"):
        asyncio.run(measure([episode(99, ["long"], True)], Short({})))


def test_no_episode_is_an_error() -> None:
    with pytest.raises(UserError, match="none to measure"):
        asyncio.run(measure([], Table({})))
