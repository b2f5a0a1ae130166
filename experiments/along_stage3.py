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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import as_program
from experiments.branch_values import Tried, tried_at
from experiments.gain import percent
from experiments.variants import complete
from prm_gym.evaluation import intervals
from prm_gym.policies.best_of_n import BestOf
from prm_gym.runs.iteration import Run
from prm_gym.types import Policy

SAMPLES = 16


async def judge(policy: Policy, held_out: Sequence[Tried]) -> tuple[float, float]:
    """J of the policy, and the share of inadmissible actions among its samples, if known. Closes the policy."""
    try:
        drawn = await asyncio.gather(*(policy.act(state, n=SAMPLES, seed=7) for state, *_ in held_out))
    finally:
        await policy.close()
    worth, refused = [], []
    for (state, _, known), responses in zip(held_out, drawn, strict=True):
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
    held_out = tried_at(run.held_out().out / "branches", run.recipe.gamma)
    for step in options.steps:
        n, at = (run.n, step) if step else (run.n - 1, None)
        value, refused = asyncio.run(judge(run.sampler(n, checkpoint=run.policy(n, at))(), held_out))
        print(f"step {step}: J {value:.4f}, inadmissible {refused:.3f} at {len(held_out)} held-out states", flush=True)
        alone = None
        for best_of in (None, BestOf(16), BestOf(16, weight=1.0)):
            stage = run.evaluation(n, best_of=best_of, step=at, games=options.games)
            complete([stage], run.root)
            found = intervals.outcome(stage.out / "episodes")
            alone = alone or found
            success, *_ = percent(intervals.success([found]))
            gain, interval, _ = percent(intervals.gain([found], [alone]), "+")
            over = f", {gain} ({interval})" if best_of else ""
            print(f"  {best_of.mode if best_of else 'policy'}: {success}%{over}", flush=True)


if __name__ == "__main__":
    as_program.run(main)
