"""A policy along Stage 3: success, best-of-N, inadmissible actions, and a rule to stop that needs no success.

    python -m experiments.along_stage3 --recipe RECIPE --run RUN [--iteration 1] [--games 200] [--steps 0 10 20 30 40]

The recipe keeps the checkpoints of those steps (`save_steps`, `save_total_limit`). J of a checkpoint is the mean value
of its actions at the states of the recipe's held-out branches of pi_{n-1} (`quality`): an action that was tried there
has the mean discounted return of its rollouts, any other the lowest at that state. The rule stops at the largest J.
J is the first-order change of pi_{n-1}'s return (Kakade and Langford 2002), from rollouts that Q was not trained on.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from pathlib import Path

import numpy as np

from experiments.variants import complete
from prm_gym.evaluation import intervals
from prm_gym.policies.best_of_n import BestOf
from prm_gym.runs.iteration import Run
from prm_gym.store import read_episodes
from prm_gym.types import Policy, State

Values = list[tuple[State, dict[str, float]]]  # of the actions tried at a state
SAMPLES = 16


def values_of(branches: Path, gamma: float) -> Values:
    """The mean discounted return of each action that was tried at the states of `branches`."""
    returns: dict[bytes, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    states: dict[bytes, State] = {}
    for episode in read_episodes(branches):
        turn = episode.turns[episode.branch_turn]
        value = gamma ** (episode.actions - 1 - episode.branch_turn) if episode.won else 0.0
        returns[turn.state_key][turn.action].append(value)
        states.setdefault(turn.state_key, episode.state_at(episode.branch_turn))
    return [(states[key], {action: float(np.mean(g)) for action, g in of.items()}) for key, of in returns.items()]


async def judge(policy: Policy, values: Values) -> tuple[float, float]:
    """J of the policy, and the share of inadmissible actions among its samples, if known. Closes the policy."""
    try:
        drawn = await asyncio.gather(*(policy.act(state, n=SAMPLES, seed=7) for state, _ in values))
    finally:
        await policy.close()
    worth, refused = [], []
    for (state, known), responses in zip(values, drawn, strict=True):
        lowest = min(known.values())
        worth += [known.get(response.action, lowest) for response in responses]
        if (commands := state.admissible_commands) is not None:
            refused += [response.action not in commands for response in responses]
    return float(np.mean(worth)), float(np.mean(refused))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--iteration", type=int, default=1)
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 10, 20, 30, 40])
    options = parser.parse_args()
    run = Run(options.recipe, options.run, options.iteration)
    complete([run.held_out()], run.root)
    values = values_of(run.held_out().out / "branches", run.recipe.gamma)
    for step in options.steps:
        n, at = (run.n, step) if step else (run.n - 1, None)
        value, refused = asyncio.run(judge(run.sampler(n, checkpoint=run.policy(n, at))(), values))
        print(f"step {step}: J {value:.4f}, inadmissible {refused:.3f} at {len(values)} held-out states", flush=True)
        alone = None
        for best_of in (None, BestOf(16), BestOf(16, weight=1.0)):
            stage = run.evaluation(n, best_of=best_of, step=at, games=options.games)
            complete([stage], run.root)
            found = intervals.outcome(stage.out / "episodes")
            alone = alone or found
            success, gain = intervals.success([found]), intervals.gain([found], [alone])
            over = (
                f", {100 * gain.mean:+.1f} ({100 * gain.ci95[0]:+.1f} to {100 * gain.ci95[1]:+.1f})" if best_of else ""
            )
            print(f"  {best_of.mode if best_of else 'policy'}: {100 * success.mean:.1f}%{over}", flush=True)


if __name__ == "__main__":
    main()
