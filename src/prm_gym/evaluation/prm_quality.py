"""The quality of a PRM on held-out games: AUC, calibration, and how well it ranks two actions at one state.

Stage 3 and best-of-N use the ranking alone. A Q that only separates good states from bad ones has a high AUC and is
calibrated, and ranks nothing.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from prm_gym.errors import UserError
from prm_gym.evaluation.ranking import KINDS, VALIDITY, Fork, Ranking, pairs_of, rank
from prm_gym.prm.metrics import Bin, Floats, auc, calibration_bins, calibration_error
from prm_gym.prm.scorer import Scorer
from prm_gym.types import Episode, PromptTooLong, Response, State

Pair = tuple[bytes, str]  # (state_key, action)
_FLAT = {
    "pairs": "pairs",
    "gap_weighted": "gap_weighted_accuracy",
    "gap_weighted_corrected": "gap_weighted_corrected",
}


@dataclass(frozen=True, slots=True)
class Quality:
    """How good Q is on `visits` executed actions.

    auc: probability that Q of a visit that ended in a win exceeds Q of one that did not; 0.5 is chance.
    calibration_error: mean |Q - mean return| over ten bins of Q, weighted by visits.
    correlation: of Q with the discounted return, over visits.
    ranking: of all pairs of actions at one state.
    ranking_ceiling: how often one half of the rollouts orders a pair as the other half does. A Q as good as half of the
        rollouts reaches it.
    ranking_by_validity: the ranking of the pairs with both, one or neither action admissible, by `ranking.VALIDITY`;
        empty if the environment does not say what is admissible.
    ranking_by_kind: the ranking of the pairs that hold an action of a kind, by `ranking.KINDS` and "other". A pair of
        two kinds counts for both.
    bins: (mean Q, mean return, visits) of the ten bins that have a visit.
    too_long: actions over Q's context, which all other figures leave out.

    A figure that the episodes do not determine (no win, no pair) is None. A Q trained on preference pairs has no
    meaningful scale: auc, calibration_error and correlation are None and bins is empty.
    """

    visits: int
    auc: float | None
    calibration_error: float | None
    correlation: float | None
    ranking: Ranking
    ranking_ceiling: float | None
    ranking_by_validity: dict[str, Ranking]
    ranking_by_kind: dict[str, Ranking]
    bins: list[Bin]
    too_long: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The fields for quality.json, where those of `ranking` are flat: "pairs", "ranking_accuracy", ..."""
        values = asdict(self)
        ranking = {field: value for field, value in values.pop("ranking").items() if field != "games"}
        return {**values, **{_FLAT.get(field, f"ranking_{field}"): value for field, value in ranking.items()}}

    def summary(self) -> str:
        """Two lines for the terminal."""
        every, split = self.ranking, {**self.ranking_by_validity, **self.ranking_by_kind}
        of = [f"{name} {_show(found.corrected)} of {found.pairs}" for name, found in split.items()]
        left_out = f"; {self.too_long} actions over its context left out" if self.too_long else ""
        return (
            f"Q on {self.visits} visits of held-out games: AUC {_show(self.auc)}, calibration error "
            f"{_show(self.calibration_error)}; of {every.pairs} pairs of actions at one state in the order of their "
            f"rollouts {_share(every.accuracy, every.ci95)}, half of them against half "
            f"{_show(self.ranking_ceiling)}{left_out}\n"
            f"Pairs in their true order, noise of the rollouts taken out: "
            f"{_share(every.corrected, every.corrected_ci95)}, weighted by the gap "
            f"{_show(every.gap_weighted_corrected)}{'; ' if of else ''}{', '.join(of)}"
        )


async def measure(
    episodes: Iterable[Episode], scorer: Scorer, *, gamma: float = 0.95, seed: int = 0, levels: bool = True
) -> Quality:
    """Compare Q with the outcomes of `episodes`: independent ones and branches of the policy that Q was trained on.

    AUC and calibration are over the executed turns of the independent episodes, which visit states as the policy does.
    The ranking is over the branches: the returns that followed each action at a state (see `ranking`). `levels=False`
    measures the ranking alone, for a Q that only ranks actions at one state. Does not close `scorer`.

    Raises `UserError` if there is no independent episode, or no action of one that fits into Q's context.
    """
    states: dict[Pair, tuple[State, Response]] = {}
    visits: list[tuple[Pair, float, bool]] = []
    returns_of: dict[Pair, list[float]] = defaultdict(list)
    admissible: dict[Pair, bool | None] = {}
    for episode in episodes:
        executed = episode.actions
        rewards = [(of.turn, of.reward) for of in episode.turns if of.reward]
        branched = episode.parent_id is not None
        for t in [episode.branch_turn] if branched else range(executed):
            turn = episode.turns[t]
            pair = (turn.state_key, turn.action)
            # Eq. 1: G_t = sum_{k >= t} gamma^(k-t) r_k
            value = sum(gamma ** (k - t) * r for k, r in rewards if k >= t)
            if branched:
                returns_of[pair].append(value)
                admissible[pair] = turn.action_valid
            else:
                visits.append((pair, value, episode.won))
            if pair not in states:
                states[pair] = (episode.state_at(t), Response(turn.response, turn.reason, turn.action))
    if not visits:
        raise UserError("episodes", "there is none to measure the PRM on", "collect rollouts on held-out games")
    keys = list(states)
    scored = zip(keys, await _scores(scorer, [states[key] for key in keys]), strict=True)
    q = {pair: score for pair, score in scored if score is not None}
    visits = [visit for visit in visits if visit[0] in q]
    if not visits:
        raise UserError("episodes", "every action is over the PRM's context", "take a PRM with a longer one")
    scores = np.array([q[pair] for pair, _, _ in visits])
    returns = np.array([value for _, value, _ in visits])
    bins = calibration_bins(scores, returns) if levels else []
    by_state: dict[bytes, list[Pair]] = defaultdict(list)
    for pair in returns_of:
        if pair in q:
            by_state[pair[0]].append(pair)
    forks = [
        Fork(
            states[of[0]][0].game_id,
            [action for _, action in of],
            [admissible[pair] for pair in of],
            [q[pair] for pair in of],
            [returns_of[pair] for pair in of],
        )
        for of in by_state.values()
    ]
    pairs = pairs_of(forks)

    def split(labels: Iterable[str]) -> dict[str, Ranking]:
        return {label: found for label in labels if (found := rank(pairs.having(label), seed=seed)).pairs}

    return Quality(
        visits=len(visits),
        auc=auc(scores, np.array([won for _, _, won in visits])) if levels else None,
        calibration_error=calibration_error(bins) if levels else None,
        correlation=_correlation(scores, returns) if levels else None,
        ranking=rank(pairs, seed=seed),
        ranking_ceiling=_ceiling(forks, random.Random(seed)),
        ranking_by_validity=split(VALIDITY.values()),
        ranking_by_kind=split((*KINDS, "other")),
        bins=bins,
        too_long=len(keys) - len(q),
    )


async def _scores(scorer: Scorer, pairs: Sequence[tuple[State, Response]]) -> list[float | None]:
    """Q of each pair, None for one over the PRM's context."""
    try:
        return [*await scorer.score(pairs)]
    except PromptTooLong:
        half = len(pairs) // 2
        return [*await _scores(scorer, pairs[:half]), *await _scores(scorer, pairs[half:])] if half else [None]


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None, ci95: tuple[float, float]) -> str:
    return f"{_show(value)} ({ci95[0]:.3f}-{ci95[1]:.3f})"


def _correlation(scores: Floats, returns: Floats) -> float | None:
    return float(np.corrcoef(scores, returns)[0, 1]) if scores.std() > 0 and returns.std() > 0 else None


def _ceiling(forks: Sequence[Fork], rng: random.Random) -> float | None:
    """How often a random half of the rollouts orders two actions as the other half, in which they differ."""
    halves: list[float] = []
    for fork in forks:
        for first, second in combinations(fork.returns, 2):
            if len(first) >= 2 and len(second) >= 2:
                (a1, a2), (b1, b2) = _split(first, rng), _split(second, rng)
                rest = float(np.mean(a2) - np.mean(b2))
                if rest != 0:
                    halves.append(_agreement(float(np.mean(a1) - np.mean(b1)), rest))
    return float(np.mean(halves)) if halves else None


def _agreement(one: float, other: float) -> float:
    return 0.5 if one == 0 else float((one > 0) == (other > 0))


def _split(values: Sequence[float], rng: random.Random) -> tuple[list[float], list[float]]:
    shuffled = rng.sample(list(values), len(values))
    return shuffled[: len(values) // 2], shuffled[len(values) // 2 :]
