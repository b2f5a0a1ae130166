"""The definition of each finding, as cells of a figure: a series, an x, and an outcome or a number.

Findings use the policies and Qs of the recipe, and variants that differ in the property under study. Each finding has
the paper's claim, and the gain that would reproduce it here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import correlation
from typing import Any

from experiments.branch_values import tried_at
from experiments.changes import (
    ABSOLUTE,
    CURVE,
    DEMONSTRATIONS,
    EXPERT,
    FEWER_STATES,
    INDEPENDENT,
    JUDGE,
    LONG,
    LONG_CURVE,
    STEERED,
    UNTRAINED,
    beside,
    dagger_from,
    fewer,
    inverse_of,
    other_q,
    policy_gradient,
    rejection_sampling,
    reset_to_the_expert,
    sampled_by_online_dpo,
    sft_from_pi_0,
    shaped,
)
from experiments.held_out_value import held_out_value
from experiments.process_reward import lower_bound, process_rewards, states_of
from experiments.stopping_rules import stopping_rules
from experiments.variants import Variants, merged
from prm_gym.evaluation.intervals import Outcome
from prm_gym.policies.best_of_n import BestOf
from prm_gym.runs.iteration import Run

BEST_OF = (1, 2, 4, 8, 16, 32)
WEIGHED = "best of 16, logit Q + log pi"
NO_Q = "no Q"  # the baseline
POLICY = "pi_1"
REJECTION_OF, GRADIENT_OF = (4, 16), (2, 8)  # responses to a prompt
RANKED_GAMES = 200  # held out, with branches: comparing Qs takes more pairs than a recipe's `quality` has


Place = float | str  # x, or a name if there is no number
Rows = list[dict[str, Any]]  # {"series", "x", "mean", ...} per cell, seeds pooled


@dataclass(frozen=True)
class Cell:
    """One point: success by `outcome`, or a `value`, which may be a share of `pairs` of actions."""

    series: str
    x: Place
    outcome: Outcome | None = None
    value: float | None = None
    pairs: int | None = None


@dataclass(frozen=True)
class Finding:
    """`measure` yields the cells of one seed. `gains` are (better cell, worse cell, goal), with cells as (series, x)
    and the least gain that would reproduce the paper (None: no goal).
    """

    name: str
    claim: str  # of the paper
    x: str
    measure: Callable[[Variants], Iterator[Cell]]
    gains: tuple[tuple[tuple[str, Place], tuple[str, Place], float | None], ...] = ()
    numbers: str = field(default="", kw_only=True)  # the name of the cells with a `value`
    log: bool = field(default=False, kw_only=True)  # the x axis
    remark: Callable[[Rows], dict[str, float]] | None = field(default=None, kw_only=True)  # further figures


def iterations(variants: Variants) -> Iterator[Cell]:
    runs = variants.run(iterations=3)
    for n, run in [(0, runs[0]), *enumerate(runs, 1)]:
        yield Cell("policy", n, variants.evaluated(run, n))
        yield Cell("best of 16", n, variants.evaluated(run, n, best_of=16))
        yield Cell(WEIGHED, n, variants.evaluated(run, n, best_of=BestOf(16, weight=1)))


def best_of_n(variants: Variants) -> Iterator[Cell]:
    runs = variants.run(iterations=2)
    for n, run in [(0, runs[0]), *enumerate(runs, 1)]:
        for best_of in BEST_OF:
            yield Cell(f"pi_{n}", best_of, variants.evaluated(run, n, best_of=best_of))


def inverse(variants: Variants) -> Iterator[Cell]:
    """SFT and InversePRM from the same pi_0 on the same demonstrations of the expert, without the habit and the
    mistakes of those for pi_0; AgentPRM from it on as many rollouts as InversePRM. The first x is no demonstration.
    """
    [base] = variants.run()
    yield Cell("SFT", 0, variants.evaluated(base, 0))  # pi_0
    [independent] = variants.run("independent", INDEPENDENT)
    yield Cell("AgentPRM, as many rollouts", 0, variants.evaluated(independent, 1))
    yield Cell("AgentPRM, with branches", 0, variants.evaluated(base, 1))
    for games in DEMONSTRATIONS:
        yield Cell("SFT", games, variants.evaluated(sft_from_pi_0(variants, games), 0))
        runs = variants.run(f"inverse-{games}", inverse_of(variants, games), iterations=2)
        for n, run in enumerate(runs, 1):
            yield Cell(f"InversePRM, pi_{n}", games, variants.evaluated(run, n))


def exploration(variants: Variants) -> Iterator[Cell]:
    """Resets to states of the expert, whose demonstrations the variant `expert` collects. The recipe's model has read
    demonstrations that search anywhere, under the exploration prompt that steers here.
    """
    [plain] = variants.run("long", LONG_CURVE)
    [reset] = variants.run("reset", merged(CURVE, reset_to_the_expert(variants)))
    [steered] = variants.run("steered", merged(CURVE, STEERED))
    for name, run in (("plain", plain), ("Reset-50-50", reset), ("Steered", steered)):
        yield from _curve(variants, run, name, [0, 10, 20, 30, 40])


def shaping(variants: Variants) -> Iterator[Cell]:
    for alpha in (0.0, 0.5, 1.0):
        [run] = variants.run(f"shaped-{alpha:g}", shaped(variants, alpha), like="shaped-0" if alpha else "")
        yield from _curve(variants, run, f"alpha {alpha:g}", [0, 20, 40])


def loss(variants: Variants) -> Iterator[Cell]:
    variants.run("absolute", ABSOLUTE)
    [absolute] = variants.run("absolute-curve", merged(ABSOLUTE, CURVE), like="absolute")
    [relative] = variants.run("long", LONG_CURVE)
    for name, run in (("absolute (soft BCE)", absolute), ("relative (Bradley-Terry)", relative)):
        yield from _curve(variants, run, name, [0, 20, 40])


def hacking(variants: Variants) -> Iterator[Cell]:
    """Success over a long Stage 3, on one Q and on the mean of three, with measures that could tell when to stop.

    Process rewards are normalised by the mean and standard deviation over pi_0's actions: those of the Q of the
    training, of a judge (a Q from rollouts on other games), and the lower bound of three Qs with different seeds. The
    value on held-out branches (`held_out_value`) is from the rollouts by which the recipe measures Q.
    """
    [run], judge = variants.run("long", LONG_CURVE), variants.q("judge", JUDGE)
    others = [variants.q(f"q-{seed}", other_q(variants, seed)) for seed in (1, 2)]
    ensemble = merged(LONG_CURVE, {"online_dpo.yaml": {"reward_ensemble": [beside(other) for other in others]}})
    steps = list(range(0, LONG + 1, 20))
    yield from _curve(variants, run, "success", steps)
    yield from _curve(variants, variants.run("ensemble", ensemble)[0], "success with an ensemble", steps)
    scorers = [each.scorer() for each in (run, judge, *others)]
    held_out = run.held_out().out
    states, tried = states_of(held_out / "rollouts", 1000), tried_at(held_out / "branches", run.recipe.gamma)
    rewards = {
        step: process_rewards(run.sampler(0, checkpoint=run.policy(1, step))(), scorers, states) for step in steps
    }
    mean, deviation = (of(axis=1, keepdims=True) for of in (rewards[0].mean, rewards[0].std))
    for step, found in rewards.items():
        found = (found - mean) / deviation
        yield Cell("process reward", step, value=float(found[0].mean()))
        yield Cell("process reward by the judge", step, value=float(found[1].mean()))
        yield Cell("lower bound of three Qs", step, value=lower_bound(found[[0, 2, 3]]))
        yield Cell("KL from pi_0", step, value=_kl(run, step))
        value, inadmissible = held_out_value(run.sampler(0, checkpoint=run.policy(1, step))(), tried)
        yield Cell("value on held-out branches", step, value=value)
        yield Cell("inadmissible actions", step, value=inadmissible)


def ranking(variants: Variants) -> Iterator[Cell]:
    """The accuracy of Qs on held-out branches, the same for all Q_0s, and the success from pi_0 with each Q_0: after
    Stage 3 and by best of 16, with pi_0 and a single response as baselines.
    """
    [base] = variants.run()
    held_out = variants.held_out(base, RANKED_GAMES)
    full = base.recipe.rollouts.games
    recipes = {
        "pairs, half of the games": (f"games-{full // 2}", fewer(full // 2)),
        "pairs, a quarter of the games": (f"games-{full // 4}", fewer(full // 4)),
        "pairs, a fifth of the states": ("often", FEWER_STATES),
        "soft BCE": ("absolute", ABSOLUTE),
        "soft BCE, no branches": ("independent", INDEPENDENT),
        "inverse": (f"inverse-{max(DEMONSTRATIONS)}", inverse_of(variants, max(DEMONSTRATIONS))),
        "nothing: a random head": ("untrained", UNTRAINED),
    }
    qs = {"pairs": base, **{name: variants.run(*variant)[0] for name, variant in recipes.items()}}
    for name, run in qs.items():
        quality = run.quality(held_out)
        yield Cell("ranking accuracy", name, value=quality.ranking.accuracy, pairs=quality.ranking.pairs)
        yield Cell("pi_1", name, variants.evaluated(run, 1))
        yield Cell("best of 16", name, variants.evaluated(run, 0, best_of=16))
    yield Cell("pi_1", NO_Q, variants.evaluated(base, 0))
    yield Cell("best of 16", NO_Q, variants.evaluated(base, 0, best_of=1))


def prediction(rows: Rows) -> dict[str, float]:
    """Pearson's correlation between the ranking accuracy of the Q_0s and the success with them."""
    found: dict[str, dict[Place, float]] = {}
    for row in rows:
        found.setdefault(row["series"], {})[row["x"]] = row["mean"]
    accuracy = found.pop("ranking accuracy")
    return {
        f"correlation of ranking accuracy with {what}": correlation(*zip(*pairs, strict=True))
        for what, of in found.items()
        if (pairs := [(accuracy[q], success) for q, success in of.items() if q in accuracy])
    }


def stage3(variants: Variants) -> Iterator[Cell]:
    """Ways to solve Eq. 3 from the same pi_0 and Q_0, with as many sampled responses as the recipe's online DPO."""
    [run] = variants.run()
    yield Cell(POLICY, "pi_0", variants.evaluated(run, 0))
    yield Cell(POLICY, "online DPO", variants.evaluated(run, 1))
    responses = sampled_by_online_dpo(run)
    for n in REJECTION_OF:
        [best] = variants.run(f"rejection-{n}", rejection_sampling(run, variants.seed, responses, n))
        yield Cell(POLICY, f"rejection sampling, best of {n}", variants.evaluated(best, 1))
    for n in GRADIENT_OF:
        [gradient] = variants.run(f"gradient-{n}", policy_gradient(run, variants.seed, responses, n))
        yield Cell(POLICY, f"policy gradient, {n} a prompt", variants.evaluated(gradient, 1))


def dagger(variants: Variants) -> Iterator[Cell]:
    """SFT on the expert's own episodes, and on its actions at the states of pi_0 and pi_1 as well, from the same model.

    Each iteration trains on all states so far, from the model that SFT starts from, for as many steps.
    """
    expert = variants.start("expert", EXPERT)
    yield Cell("SFT", 0, variants.evaluated(expert, 0))
    changes = merged(EXPERT, dagger_from(expert, variants.seed))
    for n, run in enumerate(variants.run("dagger", changes, iterations=2), 1):
        yield Cell("DAgger", n, variants.evaluated(run, n))


def _curve(variants: Variants, run: Run, name: str, steps: list[int]) -> Iterator[Cell]:
    """Success of the checkpoints at `steps` of Stage 3; step 0 is pi_0."""
    for step in steps:
        yield Cell(name, step, variants.evaluated(run, 1, step=step) if step else variants.evaluated(run, 0))


def _kl(run: Run, step: int) -> float:
    """KL(pi || pi_0) of a response in nats, the last value logged before `step`."""
    if not step:
        return 0.0
    history = json.loads((run.policy(1, step) / "trainer_state.json").read_text("utf-8"))["log_history"]
    return float([entry["objective/kl"] for entry in history if "objective/kl" in entry][-1])


FINDINGS = {
    finding.name: finding
    for finding in (
        Finding(
            "iterations",
            "Success rises each iteration, 64.9, 73.9, 85.8, 88.1 %; best of 16 is 67.9, 84.3, 88.8, 91.0 % (Table 1).",
            "iteration",
            iterations,
            (
                (("policy", 1), ("policy", 0), 0.0),
                (("policy", 2), ("policy", 1), 0.0),
                (("policy", 3), ("policy", 2), 0.0),
                (("policy", 3), ("policy", 0), 0.20),
                *(((name, n), ("policy", n), None) for name in ("best of 16", WEIGHED) for n in range(4)),
            ),
        ),
        Finding(
            "best_of_n",
            "Success rises with N, most for pi_0 and pi_1 (Figure 2b).",
            "N",
            best_of_n,
            tuple(
                ((f"pi_{n}", best_of), (f"pi_{n}", 1), 0.05 if (n, best_of) == (0, 16) else None)
                for n in range(3)
                for best_of in BEST_OF[1:]
            ),
            log=True,
        ),
        Finding(
            "inverse",
            "From the same demonstrations SFT reaches 63.4 %, InversePRM 82.8 and 86.6 % (Table 2).",
            "demonstrations",
            inverse,
            tuple(
                (better, worse, goal)
                for games in DEMONSTRATIONS
                for better, worse, goal in (
                    *(((f"InversePRM, pi_{n}", games), ("SFT", games), 0.15) for n in (1, 2)),
                    (("InversePRM, pi_1", games), ("SFT", 0), None),
                    (("InversePRM, pi_1", games), ("AgentPRM, as many rollouts", 0), None),
                    (("SFT", games), ("SFT", 0), None),
                )
            ),
        ),
        Finding(
            "exploration",
            "Resets and steering learn faster: pi_1 reaches 82 and 84 % against 73.9 % (Figure 6).",
            "step of online DPO",
            exploration,
            tuple(((name, step), ("plain", step), 0.0) for name in ("Reset-50-50", "Steered") for step in (10, 20, 40)),
        ),
        Finding(
            "shaping",
            "On few rollouts the shaped reward is stable and reaches 82 %, the plain one falls to 32 % (Figure 7).",
            "step of online DPO",
            shaping,
            (
                (("alpha 0.5", 40), ("alpha 0", 40), 0.0),
                (("alpha 1", 40), ("alpha 0", 40), None),
                *(((name, 40), (name, 0), None) for name in ("alpha 0", "alpha 0.5", "alpha 1")),
            ),
        ),
        Finding(
            "loss",
            "Absolute and relative losses end up alike (Figure 4).",
            "step of online DPO",
            loss,
            (
                (("relative (Bradley-Terry)", 40), ("absolute (soft BCE)", 40), None),
                (("absolute (soft BCE)", 40), ("absolute (soft BCE)", 0), None),
            ),
        ),
        Finding(
            "stage3",
            "Eq. 3 can be solved by PPO, online DPO or rejection sampling; the paper takes online DPO (section 2.2).",
            "Stage 3",
            stage3,
            tuple(
                ((POLICY, way), (POLICY, other), None)
                for way in (
                    *(f"rejection sampling, best of {n}" for n in REJECTION_OF),
                    *(f"policy gradient, {n} a prompt" for n in GRADIENT_OF),
                )
                for other in ("pi_0", "online DPO")
            ),
        ),
        Finding(
            "dagger",
            "Not in the paper: DAgger, the usual baseline beside InversePRM; its expert answers at any state.",
            "iteration",
            dagger,
            tuple((("DAgger", n), ("SFT", 0), None) for n in (1, 2)),
        ),
        Finding(
            "hacking",
            "Success peaks at 82 % and falls to 70 % while the process reward goes on rising (Figure 3).",
            "step of online DPO",
            hacking,
            tuple(((name, 80), (name, LONG), None) for name in ("success", "success with an ensemble")),  # the fall
            numbers="rewards (deviations), KL (nats), shares",
            remark=stopping_rules,
        ),
        Finding(
            "ranking",
            "Not in the paper: how often Q orders two actions at one state as fresh rollouts of both do.",
            "Q from",
            ranking,
            tuple(
                ((series, q), (series, other), None)
                for series in ("pi_1", "best of 16")
                for q, other in (
                    *((q, NO_Q) for q in ("pairs", "soft BCE", "inverse", "nothing: a random head")),
                    *(("pairs", q) for q in ("pairs, a quarter of the games", "pairs, a fifth of the states")),
                    ("soft BCE", "soft BCE, no branches"),
                    ("pairs", "soft BCE"),
                    ("inverse", "pairs"),
                )
            ),
            remark=prediction,
        ),
    )
}
