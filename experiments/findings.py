"""What each finding compares, as cells of a figure: a series, a place in it, and who won or a number there.

All use the recipe's own policies and Qs or variants of it that differ in what the finding is about. Each finding says
what the paper reports and which gain would be the same result here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import correlation
from typing import Any

from experiments.process_reward import lower_bound, process_rewards, states_of
from experiments.stopping_rules import stopping_rules
from experiments.variants import Changes, Variants, merged
from prm_gym.evaluation.intervals import Outcome
from prm_gym.runs.iteration import Run

BEST_OF = (1, 2, 4, 8, 16, 32)
BEST_OF_GAMES = 200  # of best-of-N, which asks for N responses a turn
LONG = 160  # steps of a Stage 3 that goes on too long
FEW = 150  # games of the rollouts that shaping is for
NO_Q = "no Q"  # what the others are compared with
RANKED_GAMES = 200  # held out, with branches: Qs are told apart by more pairs than a recipe measures one on


Place = float | str  # on the x axis; or a name, where there is no number to go by
Rows = list[dict[str, Any]]  # {"series", "x", "mean", ...} a cell, seeds pooled


@dataclass(frozen=True)
class Cell:
    """One point: success in `outcome`, or `value`, which may be the share of `pairs` of actions."""

    series: str
    x: Place
    outcome: Outcome | None = None
    value: float | None = None
    pairs: int | None = None


@dataclass(frozen=True)
class Finding:
    """`measure` gives the cells of one seed. `gains` are pairs of cells (series, x), better and worse, and the least
    gain that would count as the paper's result here (None: no goal).
    """

    name: str
    claim: str  # what the paper says
    x: str
    measure: Callable[[Variants], Iterator[Cell]]
    gains: tuple[tuple[tuple[str, Place], tuple[str, Place], float | None], ...] = ()
    numbers: str = field(default="", kw_only=True)  # what the cells with a `value` are
    log: bool = field(default=False, kw_only=True)  # the x axis
    remark: Callable[[Rows], dict[str, float]] | None = field(default=None, kw_only=True)  # what else the rows say


def iterations(variants: Variants) -> Iterator[Cell]:
    runs = variants.run(iterations=3)
    for n, run in [(0, runs[0]), *enumerate(runs, 1)]:
        yield Cell("policy", n, variants.evaluated(run, n))
        yield Cell("best of 16", n, variants.evaluated(run, n, best_of=16, games=BEST_OF_GAMES))


def best_of_n(variants: Variants) -> Iterator[Cell]:
    runs = variants.run(iterations=2)
    for n, run in [(0, runs[0]), *enumerate(runs, 1)]:
        for best_of in BEST_OF:
            yield Cell(f"pi_{n}", best_of, variants.evaluated(run, n, best_of=best_of, games=BEST_OF_GAMES))


def inverse(variants: Variants) -> Iterator[Cell]:
    """Demonstrations of an expert: without the habit and the mistakes of those that pi_0 has learned from. SFT on them
    starts from what pi_0 started from; InversePRM and AgentPRM both start from pi_0.
    """
    yield Cell("SFT", 0, variants.evaluated(variants.start("expert", EXPERT), 0))
    agents = variants.run(iterations=2)
    for n, run in enumerate(variants.run("inverse", inverse_of(variants), iterations=2), 1):
        yield Cell("InversePRM", n, variants.evaluated(run, n))
    [independent] = variants.run("independent", INDEPENDENT)
    yield Cell("AgentPRM, as many rollouts", 1, variants.evaluated(independent, 1))
    yield Cell("AgentPRM, with branches", 0, variants.evaluated(agents[0], 0))
    for n, run in enumerate(agents, 1):
        yield Cell("AgentPRM, with branches", n, variants.evaluated(run, n))


def exploration(variants: Variants) -> Iterator[Cell]:
    """A model from scratch follows no instruction that it never read: some of the demonstrations that the recipe's was
    pretrained on search anywhere, and stand under the exploration prompt.
    """
    [plain] = variants.run("long", ON_AND_ON)
    [reset] = variants.run("reset", merged(CURVE, RESET))
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
    [relative] = variants.run("long", ON_AND_ON)
    for name, run in (("absolute (soft BCE)", absolute), ("relative (Bradley-Terry)", relative)):
        yield from _curve(variants, run, name, [0, 20, 40])


def hacking(variants: Variants) -> Iterator[Cell]:
    """Success over a long Stage 3, on one Q and on the mean of three, beside what could tell when to stop without it.

    Process rewards are in standard deviations of pi_0's actions above their mean: of the Q that is trained on; of a
    judge, a Q from rollouts on other games; and the lower bound of three Qs that differ in their random numbers.
    """
    [run], judge = variants.run("long", ON_AND_ON), variants.q("judge", JUDGE)
    others = [variants.q(f"q-{seed}", other_q(variants, seed)) for seed in (1, 2)]
    ensemble = merged(ON_AND_ON, {"online_dpo.yaml": {"reward_ensemble": [beside(other) for other in others]}})
    steps = list(range(0, LONG + 1, 20))
    yield from _curve(variants, run, "success", steps)
    yield from _curve(variants, variants.run("ensemble", ensemble)[0], "success with an ensemble", steps)
    scorers = [each.scorer() for each in (run, judge, *others)]
    states = states_of(run.iter / "eval" / "held_out" / "rollouts", 1000)
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


def ranking(variants: Variants) -> Iterator[Cell]:
    """The accuracy of Qs on held-out branches, all Q_0s on the same ones, and what comes of pi_0 on each Q_0: by Stage
    3 and by best of 16, beside pi_0 and one response.
    """
    base = variants.run(iterations=3)
    held_out = [variants.held_out(run, RANKED_GAMES) for run in base]
    full = base[0].recipe.rollouts.games
    recipes = {
        "pairs, half of the games": (f"games-{full // 2}", fewer(full // 2)),
        "pairs, a quarter of the games": (f"games-{full // 4}", fewer(full // 4)),
        "pairs, a fifth of the states": ("often", OFTEN),
        "soft BCE": ("absolute", ABSOLUTE),
        "soft BCE, no branches": ("independent", INDEPENDENT),
        "inverse": ("inverse", inverse_of(variants)),
    }
    qs = {"pairs": base[0], **{name: variants.run(*variant)[0] for name, variant in recipes.items()}}
    for name, run in qs.items():
        yield _accuracy(run, held_out[0], name)
        yield Cell("pi_1", name, variants.evaluated(run, 1))
        yield Cell("best of 16", name, variants.evaluated(run, 0, best_of=16, games=BEST_OF_GAMES))
    yield Cell("pi_1", NO_Q, variants.evaluated(base[0], 0))
    yield Cell("best of 16", NO_Q, variants.evaluated(base[0], 0, best_of=1, games=BEST_OF_GAMES))
    for n in (1, 2):
        yield _accuracy(base[n], held_out[n], f"Q_{n}, pairs")


def _accuracy(run: Run, held_out: Path, name: str) -> Cell:
    quality = run.quality(held_out)
    return Cell("ranking accuracy", name, value=quality.ranking.accuracy, pairs=quality.ranking.pairs)


def prediction(rows: Rows) -> dict[str, float]:
    """Pearson's correlation of the ranking accuracy of Q_0 with what came of it, over the Q_0s."""
    found: dict[str, dict[Place, float]] = {}
    for row in rows:
        found.setdefault(row["series"], {})[row["x"]] = row["mean"]
    accuracy = found.pop("ranking accuracy")
    return {
        f"correlation of ranking accuracy with {what}": correlation(*zip(*pairs, strict=True))
        for what, of in found.items()
        if (pairs := [(accuracy[q], success) for q, success in of.items() if q in accuracy])
    }


def _curve(variants: Variants, run: Run, name: str, steps: list[int]) -> Iterator[Cell]:
    """Success of the checkpoints at `steps` of Stage 3; step 0 is pi_0, where it started."""
    for step in steps:
        yield Cell(name, step, variants.evaluated(run, 1, step=step) if step else variants.evaluated(run, 0))


def _kl(run: Run, step: int) -> float:
    """KL(pi || pi_0) of a response, in nats, as the trainer logged it last before `step`."""
    if not step:
        return 0.0
    history = json.loads((run.policy(1, step) / "trainer_state.json").read_text("utf-8"))["log_history"]
    return float([entry["objective/kl"] for entry in history if "objective/kl" in entry][-1])


def beside(run: Run, place: str = "iter1/prm") -> str:
    """What `run` has at `place`, its Q unless told, as the recipe of another run of the same Variants names it."""
    return f"{{run}}/../{run.root.name}/{place}"


# A row a visit and not a pair: many more rows, each read once. From less than a third of them (280 batches of 16)
# InversePRM gains next to nothing; a second epoch of soft BCE makes Q no better on valid_seen.
ONCE: dict[str, Any] = {"num_train_epochs": 1, "per_device_train_batch_size": 32}
# Stage 3 beyond the recipe's number of steps. Its rate is constant: whatever is shorter are its first steps.
CURVE: Changes = {"online_dpo.yaml": {"max_steps": 40}}
ON_AND_ON: Changes = {"online_dpo.yaml": {"max_steps": LONG}}
RESET: Changes = {
    "recipe.yaml": {"labels": {"prompts": {"expert": ["{run}/pretraining/demonstrations"], "expert_fraction": 0.5}}}
}
STEERED: Changes = {"online_dpo.yaml": {"exploration_probability": 0.5}}
EXPERT: Changes = {
    "recipe.yaml": {"start": {"demonstrations": dict.fromkeys(("dawdling", "mistakes", "random_actions"), 0.0)}}
}
INVERSE: Changes = {
    "recipe.yaml": {"branches": None, "labels": {"kind": "inverse"}},
    "prm.yaml": {"loss": "inverse", **ONCE},
}
ABSOLUTE: Changes = {"recipe.yaml": {"labels": {"kind": "monte_carlo"}}, "prm.yaml": {"loss": "soft_bce", **ONCE}}
INDEPENDENT: Changes = merged(ABSOLUTE, {"recipe.yaml": {"branches": None}})
# V of pi_0, on the rollouts of the recipe's first iteration.
VALUE: Changes = {
    "recipe.yaml": {"labels": {"kind": "value"}, "quality": None},
    "prm.yaml": {"loss": "value", **ONCE},
}
# As many branches as the recipe's, of a fifth of the states.
OFTEN: Changes = {"recipe.yaml": {"branches": {"states_per_episode": 1, "continuations": 5}}}
JUDGE: Changes = {"recipe.yaml": {"rollouts": {"seed": 500}}}


def inverse_of(variants: Variants) -> dict[str, Any]:
    """InversePRM on the demonstrations of the variant `expert`, which are there after this."""
    demonstrations = beside(variants.start("expert", EXPERT), "demonstrations")
    return merged(INVERSE, {"recipe.yaml": {"labels": {"options": {"expert": [demonstrations]}}}})


def other_q(variants: Variants, seed: int) -> dict[str, Any]:
    """The recipe's Q with other random numbers in its training."""
    return {"prm.yaml": {"seed": 1000 * variants.seed + seed}}


def fewer(games: int) -> dict[str, Any]:
    return {"recipe.yaml": {"rollouts": {"games": games}}}


def shaped(variants: Variants, alpha: float) -> dict[str, Any]:
    """Few rollouts, the targets shaped by V of pi_0 from all of the recipe's rollouts."""
    few = merged(merged(ABSOLUTE, CURVE), fewer(FEW))
    if not alpha:
        return few
    options = {"alpha": alpha, "value_fn": beside(variants.q("value", VALUE))}
    return merged(few, {"recipe.yaml": {"labels": {"kind": "shaping", "options": options}}})


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
                *((("best of 16", n), ("policy", n), None) for n in range(4)),  # on the games that both played
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
            "iteration",
            inverse,
            (
                (("InversePRM", 1), ("SFT", 0), 0.15),
                (("InversePRM", 2), ("SFT", 0), 0.15),
                (("InversePRM", 1), ("AgentPRM, as many rollouts", 1), None),
                (("InversePRM", 1), ("AgentPRM, with branches", 0), None),  # pi_0, from which it started
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
            "hacking",
            "Success peaks at 82 % and falls to 70 % while the process reward goes on rising (Figure 3).",
            "step of online DPO",
            hacking,
            tuple(((name, 80), (name, LONG), None) for name in ("success", "success with an ensemble")),  # the fall
            numbers="process rewards (deviations), KL (nats)",
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
                    *((q, NO_Q) for q in ("pairs", "soft BCE", "inverse")),
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
