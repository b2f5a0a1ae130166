"""How often Q orders two actions at one state as their true returns do, from finitely many rollouts of each.

The order by rollouts is sometimes wrong, so the raw share of pairs is too low: a perfect Q would not reach 1. The
corrected share estimates how many of the same pairs Q orders as their true returns, with one half for a true tie.

Model. The returns of an action are independent, and their distribution at mean mu is p_mu(x) ~ p(x) exp(theta(mu) x),
the exponential family through the pooled returns p of all actions at the state. (For returns of 0 or 1 it is the
binomial.) Then n returns with mean m have the likelihood exp(n (theta m - log E_p exp(theta x))). Of each pair the true
returns (of the action that Q prefers, of the other), as shares of the largest return seen at the state, are drawn from
an unknown G on a grid. G is fitted to all pairs by maximum likelihood (Kiefer and Wolfowitz 1956; by EM, Laird 1978).
The corrected share is the mean over the pairs of the posterior P(preferred > other | returns), cells with equal returns
counting one half. Since the preferred action comes first, G describes both how good Q is and how hard the pairs are,
without assuming that the two are independent.

A simpler formula is biased. Let r be the probability that rollouts order a pair correctly, and a = 1 if Q does, else 0.
The raw share gives E[(2a-1)(2r-1)], half against half E[(2r-1)^2]. They determine E[2a-1] only if r is the same for all
pairs. It is not: (raw - (1-r)) / (2r-1) with r = half against half is 0.03 to 0.67 too high in the simulation below.

Bias. Without a model, finitely many rollouts do not determine the share, so no estimate is unbiased. In the simulation
of tests/evaluation/test_ranking.py (2,400 pairs, 4 or 8 rollouts, Qs whose true share is 0.51 to 0.88; mean of 10
samples) the corrected share is off by -0.014 to +0.009 where the raw one is off by -0.18 to 0.00, and the corrected
gap-weighted one by -0.006 to +0.009 where the raw one is by -0.18 to -0.01. On other states the corrected share is at
worst 0.07 too low, for a nearly perfect Q on pairs that are all close, and 0.05 too high, where all actions win and
differ in length alone; the gap-weighted one is up to 0.16 too high there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
import numpy.typing as npt

from prm_gym.evaluation.intervals import wilson

Floats = npt.NDArray[np.float64]

KINDS = ("go", "take", "put", "open", "close", "use", "clean", "heat", "cool", "look", "examine")
"""Kinds of actions, by their first word; `move` counts as `put`, any other word as `other`."""
VALIDITY = {2: "both admissible", 1: "one admissible", 0: "neither admissible"}

_CELLS = 12  # of the grid for each action's true return
_STEPS = 200  # of EM
_RESAMPLES = 100
_THETA = np.linspace(-40, 40, 641)
_GRID = (np.arange(_CELLS) + 0.5) / _CELLS
_GAP = np.subtract.outer(_GRID, _GRID).ravel()  # preferred - other, of each cell of G
_RIGHT = (1 + np.sign(np.round(_GAP, 9))) / 2


@dataclass(frozen=True, slots=True)
class Fork:
    """A state where several actions were tried: `q` [actions], and the returns in [0, 1] of each action's rollouts.

    `admissible` is None if the environment does not tell.
    """

    game_id: str
    actions: Sequence[str]
    admissible: Sequence[bool | None]
    q: Sequence[float]
    returns: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranking of a set of pairs of actions by Q.

    pairs: number of pairs whose mean returns differ, on `games` games; only these count.
    accuracy: share of them that Q orders as the mean returns; a tie of Q counts one half.
    corrected: share of them that Q orders as the true returns (see the module).
    ci95, corrected_ci95: over games. The standard deviation s of 100 bootstrap resamples of games (Efron 1979; each is
        fitted anew) gives the effective number of pairs, share (1 - share) / s^2, of a Wilson interval.
    gap_weighted: accuracy, with each pair weighted by the difference of its mean returns.
    gap_weighted_corrected: corrected, with each pair weighted by the difference D of its true returns: the sum of D
        where Q is right over the sum of |D|. It depends least on the number of rollouts.

    Without a pair that counts, a share is None and its interval (0, 1).
    """

    pairs: int
    games: int
    accuracy: float | None
    ci95: tuple[float, float]
    corrected: float | None
    corrected_ci95: tuple[float, float]
    gap_weighted: float | None
    gap_weighted_corrected: float | None


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of actions at one state, one per row."""

    game: npt.NDArray[np.str_]
    gap: Floats  # mean return of the action that Q prefers less that of the other
    agree: Floats  # of the orders by Q and by mean returns: 1 or 0, 0.5 for a tie of Q
    top: Floats  # the largest return at the state
    likelihood: Floats  # [pairs, cells of G] of the returns, up to a factor of each row
    labels: list[frozenset[str]]  # kinds of the two actions, and a value of VALIDITY

    def having(self, label: str) -> Pairs:
        """The pairs with this label."""
        kept = np.array([label in of for of in self.labels], dtype=bool)
        labels = [of for of in self.labels if label in of]
        return Pairs(self.game[kept], self.gap[kept], self.agree[kept], self.top[kept], self.likelihood[kept], labels)


def kind(action: str) -> str:
    """
    >>> [kind(action) for action in ("go to desk 1", "move mug 1 to desk 1", "inventory", "")]
    ['go', 'put', 'other', 'other']
    """
    verb = action.partition(" ")[0]
    return "put" if verb == "move" else verb if verb in KINDS else "other"


def pairs_of(forks: Sequence[Fork]) -> Pairs:
    """All pairs of actions at one state, except at states where all returns are equal, which carry no information."""
    rows = [row for fork in forks for row in _rows(fork)]
    games, gaps, agree, tops, likelihoods, labels = zip(*rows, strict=True) if rows else ((),) * 6
    table = np.array(likelihoods).reshape(len(rows), _CELLS**2)
    return Pairs(np.array(games, dtype=str), np.array(gaps), np.array(agree), np.array(tops), table, list(labels))


def rank(pairs: Pairs, *, seed: int = 0) -> Ranking:
    """The ranking of `pairs` by Q, with a seeded bootstrap over games."""
    counted = pairs.gap != 0
    games, game = np.unique(pairs.game, return_inverse=True)
    number, of = int(counted.sum()), len(set(pairs.game[counted]))
    if not number:
        return Ranking(0, 0, None, (0.0, 1.0), None, (0.0, 1.0), None, None)
    draws = np.random.default_rng(seed).multinomial(len(games), np.full(len(games), 1 / len(games)), _RESAMPLES)
    weights = np.vstack([np.ones(len(game)), draws[:, game]])  # the sample itself, then the resamples
    weights = weights[(weights @ counted) > 0]
    accuracy = (weights @ (counted * pairs.agree)) / (weights @ counted)
    mixtures = _fit(pairs.likelihood, weights)
    # [resamples, pairs]; a pair that a resample leaves out may have none
    evidence = np.maximum(mixtures @ pairs.likelihood.T, np.finfo(float).tiny)

    def expected(value: Floats) -> Floats:
        """Posterior mean of a function of the cell, [resamples, pairs]."""
        return (mixtures * value) @ pairs.likelihood.T / evidence

    corrected = (weights * counted * expected(_RIGHT)).sum(1) / (weights @ counted)
    won, all_ = (float(np.sum(pairs.top * expected(gap)[0])) for gap in (np.maximum(_GAP, 0), np.abs(_GAP)))
    size = np.abs(pairs.gap)
    return Ranking(
        number,
        of,
        float(accuracy[0]),
        _interval(accuracy, number, of),
        float(corrected[0]),
        _interval(corrected, number, of),
        float(pairs.agree @ size / size.sum()),
        won / all_,
    )


def _rows(fork: Fork) -> Iterator[tuple[str, float, float, float, Floats, frozenset[str]]]:
    pooled = np.concatenate([np.asarray(of, dtype=float) for of in fork.returns])
    if pooled.max() == pooled.min():
        return
    means, top = [fmean(of) for of in fork.returns], float(pooled.max())
    likelihoods = _likelihoods(fork.returns, pooled / top, top)
    for a, b in combinations(range(len(fork.actions)), 2):
        first, second = (a, b) if fork.q[a] >= fork.q[b] else (b, a)
        likelihood, gap = np.outer(likelihoods[first], likelihoods[second]), means[first] - means[second]
        tied = fork.q[a] == fork.q[b]
        if tied:  # no action is preferred: either order, half each
            likelihood = (likelihood + likelihood.T) / 2
        labels = {kind(fork.actions[a]), kind(fork.actions[b])}
        valid = (fork.admissible[a], fork.admissible[b])
        if None not in valid:
            labels.add(VALIDITY[sum(map(bool, valid))])
        yield fork.game_id, gap, 0.5 if tied else float(gap > 0), top, likelihood.ravel(), frozenset(labels)


def _likelihoods(returns: Sequence[Sequence[float]], pooled: Floats, top: float) -> Floats:
    """Likelihoods [actions, cells] of the returns at each mean on the grid, scaled to a maximum of 1 per action.

    `pooled` returns are in [0, 1]. Half an observation at 0 and at 1 is added, so every mean in between can be reached.
    """
    values = np.append(pooled, [0.0, 1.0])
    weights = np.append(np.ones(len(pooled)), [0.5, 0.5]) / (len(pooled) + 1)
    tilted = weights * np.exp(np.outer(_THETA, values))  # at most e^40
    total = tilted.sum(1)
    theta = np.interp(_GRID, tilted @ values / total, _THETA)
    log_total = np.interp(theta, _THETA, np.log(total))
    logs = np.array([len(of) * (fmean(of) / top * theta - log_total) for of in returns])
    likelihoods: Floats = np.exp(logs - logs.max(axis=1, keepdims=True))
    return likelihoods


def _fit(likelihood: Floats, weights: Floats) -> Floats:
    """The maximum-likelihood G [resamples, cells] for each row of `weights` [resamples, pairs], by EM."""
    mixtures = np.full((len(weights), likelihood.shape[1]), 1 / likelihood.shape[1])
    shares = weights / weights.sum(1, keepdims=True)
    for _ in range(_STEPS):
        mixtures *= (shares / np.maximum(mixtures @ likelihood.T, np.finfo(float).tiny)) @ likelihood
    return mixtures


def _interval(shares: Floats, pairs: int, games: int) -> tuple[float, float]:
    """The interval of `shares[0]` from the resamples `shares[1:]`; if these do not vary, games count as cases."""
    variance, binomial = float(shares[1:].var(ddof=1)), float(shares[0] * (1 - shares[0]))
    effective = min(float(pairs), binomial / variance) if variance and binomial else float(games)
    return wilson(float(shares[0]) * effective, effective)
