"""Branching leaves expectations unchanged: on a fully enumerable tree, targets equal Q and V exactly.

Each outcome of the collection is written as many times as its probability says. Then the mean over visits is the
ratio of the expected sum of returns to the expected number of visits, which an unbiased rule makes Q (or V).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import pytest
from label_worlds import key_of, rows, template, text, write

from prm_gym.labels import monte_carlo, value
from prm_gym.types import Episode, StopReason, Turn

HORIZON = 3
POLICY = {"left": Fraction(1, 4), "right": Fraction(3, 4)}
OBSERVE = {"dark": Fraction(1, 2), "light": Fraction(1, 2)}
Step = tuple[str, str]  # action, observation


def wins(history: tuple[Step, ...]) -> bool:
    return history[-1] in {("left", "light"), ("right", "dark")} and history.count(history[-1]) == 2


def ends(history: tuple[Step, ...]) -> bool:
    return len(history) == HORIZON or (bool(history) and wins(history))


def outcomes(history: tuple[Step, ...]) -> Iterator[tuple[Fraction, tuple[Step, ...]]]:
    """Every way to go on from `history` under the policy, with its probability."""
    if ends(history):
        yield Fraction(1), history
        return
    for action, p in POLICY.items():
        for observation, o in OBSERVE.items():
            for rest, whole in outcomes((*history, (action, observation))):
                yield p * o * rest, whole


def branches(turn: int) -> Iterator[tuple[Fraction, tuple[Step, ...]]]:
    """A branch at `turn` of an independent episode that gets there: an action at random, then the policy."""
    reached: dict[tuple[Step, ...], Fraction] = {}
    for p, whole in outcomes(()):
        if len(whole) > turn:
            reached[whole[:turn]] = reached.get(whole[:turn], Fraction(0)) + p
    for history, p in reached.items():
        for action in POLICY:
            for observation, o in OBSERVE.items():
                for rest, whole in outcomes((*history, (action, observation))):
                    yield p * Fraction(1, len(POLICY)) * o * rest, whole


def returns(history: tuple[Step, ...], gamma: float) -> float:
    """V of the policy at `history`, by recursion."""
    if ends(history):
        return 0.0
    return sum(float(p) * q(history, action, gamma) for action, p in POLICY.items())


def q(history: tuple[Step, ...], action: str, gamma: float) -> float:
    after = [((*history, (action, observation)), float(o)) for observation, o in OBSERVE.items()]
    return sum(o * (wins(new) + gamma * returns(new, gamma)) for new, o in after)


def written(history: tuple[Step, ...]) -> str:
    return "|".join(["t", "start", *(word for step in history for word in step)])


def collection() -> Iterator[Episode]:
    numbers = count()
    plans = [(None, 0, outcomes(()))] + [("0", turn, branches(turn)) for turn in range(HORIZON)]
    for parent, turn, ways in plans:
        for p, history in ways:
            copies = p * 8**HORIZON * 2
            assert copies.denominator == 1
            for _ in range(int(copies)):
                yield episode(str(next(numbers)), history, parent, turn)


def episode(name: str, history: tuple[Step, ...], parent: str | None, branch_turn: int) -> Episode:
    seen = ["start", *(observation for _, observation in history)]
    turns = [
        Turn(turn, seen[turn], [], f"r#{action}", "r", action, True, reward=float(wins(history[: turn + 1])))
        for turn, (action, _) in enumerate(history)
    ]
    turns.append(Turn(len(history), seen[-1], []))
    stop = StopReason.WON if wins(history) else StopReason.STEP_LIMIT
    return Episode(name, "game", "train", "t", "type", "pi_0", 0, 0, stop, turns, parent, branch_turn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("branching") / "in", collection())


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_targets_are_the_true_action_values(folder: Path, tmp_path: Path, gamma: float) -> None:
    monte_carlo.label([folder], tmp_path / "out", gamma=gamma, prompt=template(tmp_path))
    found = {key_of(row): row["target"] for row in rows(tmp_path / "out")}
    states = {history[:turn] for _, history in outcomes(()) for turn in range(len(history))}
    assert found == pytest.approx({(written(s), a): q(s, a, gamma) for s in states for a in POLICY})


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_values_are_the_true_state_values(folder: Path, tmp_path: Path, gamma: float) -> None:
    value.label([folder], tmp_path / "out", gamma=gamma, prompt=template(tmp_path))
    found = {text(row["prompt"]): row["target"] for row in rows(tmp_path / "out")}
    states = {history[:turn] for _, history in outcomes(()) for turn in range(len(history))}
    assert found == pytest.approx({written(s): returns(s, gamma) for s in states})
