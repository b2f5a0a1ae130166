"""How good a PRM is on held-out games: AUC, calibration, and whether it ranks two actions at one state as rollouts do.

Stage 3 and best-of-N use nothing but that ranking. A Q that only tells good states from bad ones passes the first two.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prm_gym.errors import UserError
from prm_gym.evaluate import wilson
from prm_gym.types import Episode, Response, State

Floats = npt.NDArray[np.float64]
Pair = tuple[bytes, str]  # (state_key, action)


class Scorer(Protocol):
    """What gives Q(s, a): `prm_gym.policies.prm.PRMScorer` and its like."""

    async def score(self, pairs: list[tuple[State, Response]]) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured, on how much.

    auc: probability that Q of a visit that ended in a win exceeds Q of one that did not; 0.5 is chance.
    calibration_error: mean |Q - observed mean return| over ten bins of Q, weighted by visits.
    correlation: of Q with the discounted return, over visits.
    ranking_accuracy: share of pairs of actions at one state that Q orders as the mean returns of their rollouts do;
        `ranking_ci95` its Wilson interval (pairs taken as independent, so somewhat narrow).
    ranking_ceiling: the same for one half of the rollouts against the other: what noise lets half the data agree on.
    gap_weighted_accuracy: as ranking_accuracy, each pair weighted by the difference of its mean returns.
    bins: (mean Q, mean return, visits) for each bin that has any.

    A figure that the episodes do not determine (no win among them, no pair) is None. Of a Q whose level means nothing,
    as of one trained on pairs alone, auc, calibration_error and correlation are None, and there are no bins.
    """

    visits: int
    auc: float | None
    calibration_error: float | None
    correlation: float | None
    pairs: int
    ranking_accuracy: float | None
    ranking_ci95: tuple[float, float]
    ranking_ceiling: float | None
    gap_weighted_accuracy: float | None
    bins: list[tuple[float, float, int]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        """One line for the terminal."""
        low, high = self.ranking_ci95
        return (
            f"Q on {self.visits} visits of held-out games: AUC {_show(self.auc)}, calibration error "
            f"{_show(self.calibration_error)}; ranks {self.pairs} pairs of actions at one state as their rollouts do: "
            f"{_show(self.ranking_accuracy)} ({low:.3f}-{high:.3f}; half against half {_show(self.ranking_ceiling)}, "
            f"weighted by the gap {_show(self.gap_weighted_accuracy)})"
        )


def auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: the Mann-Whitney statistic, ties counting one half; None if one class is empty."""
    order = np.argsort(scores, kind="stable")
    _, inverse, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = np.empty(len(scores))
    ranks[order] = (last - (counts - 1) / 2)[inverse]  # 1-based, tied scores share the mean rank
    wins = int(positive.sum())
    losses = len(scores) - wins
    if not wins or not losses:
        return None
    return float((ranks[positive].sum() - wins * (wins + 1) / 2) / (wins * losses))


async def measure(
    episodes: Iterable[Episode], scorer: Scorer, *, gamma: float = 0.95, seed: int = 0, levels: bool = True
) -> Quality:
    """Compare Q with what happened in `episodes`: independent ones and branches of the policy that Q stands for.

    AUC and calibration are over the executed turns of the independent episodes, which visit states as the policy does.
    The ranking is over the branches: the returns that followed each action at a state, and the pairs of actions whose
    mean returns differ. Without `levels` it is all that is measured: Q only ranks actions at one state. Raises
    `UserError` if there is no independent episode.
    """
    states: dict[Pair, tuple[State, Response]] = {}
    visits: list[tuple[Pair, float, bool]] = []
    forks: dict[Pair, list[float]] = defaultdict(list)
    for episode in episodes:
        executed = episode.actions
        branched = episode.parent_id is not None
        for t in [episode.branch_turn] if branched else range(executed):
            turn = episode.turns[t]
            pair = (turn.state_key, turn.action)
            # Eq. 1 with a reward of 1 on the winning step T-1: gamma^(T-1-t), and 0 without a win
            value = gamma ** (executed - 1 - t) if episode.won else 0.0
            if branched:
                forks[pair].append(value)
            else:
                visits.append((pair, value, episode.won))
            if pair not in states:
                states[pair] = (episode.state_at(t), Response(turn.response, turn.reason, turn.action))
    if not visits:
        raise UserError("episodes", "there is none to measure the PRM on", "collect rollouts on held-out games")
    keys = list(states)
    q = dict(zip(keys, await scorer.score([states[key] for key in keys]), strict=True))
    scores = np.array([q[pair] for pair, _, _ in visits])
    returns = np.array([value for _, value, _ in visits])
    bins = _bins(scores, returns) if levels else []
    agree, gaps, halves = _compare(forks, q, random.Random(seed))
    return Quality(
        visits=len(visits),
        auc=auc(scores, np.array([won for _, _, won in visits])) if levels else None,
        calibration_error=sum(abs(s - r) * n for s, r, n in bins) / len(visits) if levels else None,
        correlation=_correlation(scores, returns) if levels else None,
        pairs=len(agree),
        ranking_accuracy=float(np.mean(agree)) if agree else None,
        ranking_ci95=wilson(round(sum(agree)), len(agree)),
        ranking_ceiling=float(np.mean(halves)) if halves else None,
        gap_weighted_accuracy=float(np.average(agree, weights=gaps)) if agree else None,
        bins=bins,
    )


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _correlation(scores: Floats, returns: Floats) -> float | None:
    return float(np.corrcoef(scores, returns)[0, 1]) if scores.std() > 0 and returns.std() > 0 else None


def _bins(scores: Floats, returns: Floats) -> list[tuple[float, float, int]]:
    index = np.minimum((scores * 10).astype(int), 9)
    chosen = [index == b for b in range(10)]
    return [(float(scores[m].mean()), float(returns[m].mean()), int(m.sum())) for m in chosen if m.any()]


def _compare(
    forks: dict[Pair, list[float]], q: dict[Pair, float], rng: random.Random
) -> tuple[list[float], list[float], list[float]]:
    """Per pair of actions at one state whose mean returns differ: agreement of Q (a tie counts one half), the gap,
    and, where both actions have two rollouts or more, the agreement of a random half of the rollouts with the rest.
    """
    by_state: dict[bytes, list[str]] = defaultdict(list)
    for state, action in forks:
        by_state[state].append(action)
    agree: list[float] = []
    gaps: list[float] = []
    halves: list[float] = []
    for state, actions in by_state.items():
        for a, b in combinations(actions, 2):
            first, second = forks[state, a], forks[state, b]
            gap = float(np.mean(first) - np.mean(second))
            if gap != 0:
                agree.append(_agreement(q[state, a] - q[state, b], gap))
                gaps.append(abs(gap))
            if len(first) >= 2 and len(second) >= 2:
                (a1, a2), (b1, b2) = _split(first, rng), _split(second, rng)
                rest = float(np.mean(a2) - np.mean(b2))
                if rest != 0:
                    halves.append(_agreement(float(np.mean(a1) - np.mean(b1)), rest))
    return agree, gaps, halves


def _agreement(one: float, other: float) -> float:
    return 0.5 if one == 0 else float((one > 0) == (other > 0))


def _split(values: Sequence[float], rng: random.Random) -> tuple[list[float], list[float]]:
    shuffled = rng.sample(list(values), len(values))
    return shuffled[: len(values) // 2], shuffled[len(values) // 2 :]
