"""What one choice of best-of-N by Q gains over the policy's own, at states that the policy visits.

    python -m experiments.one_choice --policy CHECKPOINT --games FOLDER --out FOLDER --prm Q [Q ...]

At states of the policy's episodes on `valid_seen`, `--samples` responses are drawn at T 0.5, and each different action
is followed by six rollouts at T 0.3. Their mean discounted return is the value of the action. The gain is the value of
the action that maximises logit Q + w log pi, less the mean value of the policy's own actions (weighted by pi over the
actions drawn). States at which all samples agree are left out. `--out` keeps the rollouts, so a second Q costs only its
scores. It needs far fewer games than the success of best-of-N for the same precision.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.branch_values import Tried, tried_at
from prm_gym.envs.games import find_games
from prm_gym.errors import run_program
from prm_gym.policies.transformers import TransformersPolicy
from prm_gym.prm.in_process import PRMScorer
from prm_gym.rollout.branch import branch
from prm_gym.rollout.collect import collect
from prm_gym.types import Response, State

GAMMA, STEPS = 0.95, 16
WEIGHTS = (0.0, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Choice:
    """The actions drawn at a state: log pi(a|s) and value [actions] of each."""

    state: State
    responses: list[Response]
    log_probability: np.ndarray
    value: np.ndarray

    def gain(self, logit: np.ndarray, weight: float) -> tuple[float, bool]:
        """The gain of the action that maximises logit + weight log pi, and whether it is admissible."""
        best = int(np.argmax(logit + weight * self.log_probability))
        share = np.exp(self.log_probability)
        own = float(share @ self.value / share.sum())
        return float(self.value[best]) - own, self.responses[best].action in (self.state.admissible_commands or ())


async def draw(policy: str, games: Path, count: int, samples: int, out: Path) -> None:
    """Episodes and branches of the policy into `out`; what is there is not drawn again."""

    def player(temperature: float) -> TransformersPolicy:
        return TransformersPolicy(policy, temperature=temperature, max_new_tokens=16, max_batch=64, policy_id="policy")

    found = find_games(games, "valid_seen")[:count]
    await collect(found, player(0.5), out / "rollouts", max_episode_steps=STEPS)
    await branch(
        out / "rollouts",
        found,
        player(0.3),
        out / "branches",
        proposals=player(0.5),
        states_per_episode=4,
        actions_per_state=samples,
        samples=samples,
        continuations=6,
        max_episode_steps=STEPS,
    )


def choices(branches: Path) -> list[Choice]:
    """The states with more than one action."""

    def choice(tried: Tried) -> Choice:
        turns = tried.turns.values()
        assert all(turn.logprob is not None for turn in turns)
        return Choice(
            tried.state,
            [Response(turn.response, turn.reason, turn.action) for turn in turns],
            np.array([turn.logprob for turn in turns], dtype=float),
            np.array(list(tried.values.values())),
        )

    return [choice(tried) for tried in tried_at(branches, GAMMA) if len(tried.turns) > 1]


async def gains(found: Sequence[Choice], prm: str) -> dict[float, tuple[float, float, float]]:
    """For each weight: mean gain, half its 95% interval, share of inadmissible choices."""
    scorer = PRMScorer(prm)
    pairs = [(choice.state, response) for choice in found for response in choice.responses]
    logits = np.array(await scorer.logits(pairs))
    await scorer.close()
    ends = np.cumsum([len(choice.responses) for choice in found])[:-1]
    split = np.split(logits, ends)
    measured = {}
    for weight in WEIGHTS:
        made = [choice.gain(logit, weight) for choice, logit in zip(found, split, strict=True)]
        values = np.array([gain for gain, _ in made])
        half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
        measured[weight] = float(values.mean()), half, 1 - float(np.mean([valid for _, valid in made]))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--games", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prm", nargs="+", required=True)
    parser.add_argument("--count", type=int, default=100, help="games")
    parser.add_argument("--samples", type=int, default=16)
    options = parser.parse_args()
    asyncio.run(draw(options.policy, options.games, options.count, options.samples, options.out))
    found = choices(options.out / "branches")
    print(f"{len(found)} states with more than one action")
    for prm in options.prm:
        for weight, (gain, half, inadmissible) in asyncio.run(gains(found, prm)).items():
            print(f"{prm}: logit Q + {weight:g} log pi: {gain:+.4f} +- {half:.4f}, inadmissible {inadmissible:.3f}")


if __name__ == "__main__":
    run_program(main)
