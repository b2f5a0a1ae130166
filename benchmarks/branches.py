"""The value of branches: Q from branched rollouts against Q from independent ones, at equal numbers of policy tokens.

    make demo                                # or any other run of a recipe with branches, on the TRL host
    python benchmarks/branches.py runs/demo [--loss soft_bce bradley_terry] [--temperature 0.3 0.7] [--seeds 3]

The run's own Q_0 data (rollouts and branches, the proposals at branch points counted) are set against independent
rollouts of the same policy on the same games, as many as give the same number of sampled tokens. Both are labelled
for the loss (`monte_carlo` for soft BCE, `preferences` for Bradley-Terry), both train a PRM by the recipe's YAML with
the same seeds, and both PRMs are measured on the run's held-out branches: AUC over visits, and how often they rank two
actions at one state as their rollouts do.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from prm_gym import hosts
from prm_gym.envs.games import find_games
from prm_gym.evaluation.prm_quality import Quality, measure
from prm_gym.labels import monte_carlo, preferences
from prm_gym.policies.transformers import TransformersPolicy
from prm_gym.prm.in_process import PRMScorer
from prm_gym.rollout import rollout
from prm_gym.rollout.concurrency import run_and_close
from prm_gym.runs import recipe
from prm_gym.runs.recipe_sections import Recipe
from prm_gym.runs.stage import MANIFEST
from prm_gym.store import read_episodes

LABELS = {"soft_bce": monte_carlo.label, "bradley_terry": preferences.label}


def tokens(folder: Path) -> int:
    """Sampled tokens of a finished stage of the run."""
    return int(json.loads((folder / MANIFEST).read_text("utf-8"))["response_tokens"])


def independent(run: Path, r: Recipe, temperature: float, budget: int, out: Path) -> tuple[int, int]:
    """Collect whole passes over the games of the run's rollouts until `budget` tokens; (episodes, tokens)."""
    games = find_games(run / "games", "train")
    for rollouts_per_game in range(1, 1000):
        policy = TransformersPolicy(
            run / "pi_0",
            prompt=r.prompt,
            temperature=temperature,
            max_new_tokens=r.sampling.max_new_tokens,
            max_batch=r.sampling.max_batch,
            policy_id="pi_0",
        )
        summary = rollout(
            games,
            policy,
            out,
            rollouts_per_game=rollouts_per_game,
            max_games=r.rollouts.games,
            max_episode_steps=r.max_episode_steps,
            concurrency=2 * r.sampling.max_batch,
            seed=100,
        )
        sampled = sum(turn.response_tokens for episode in read_episodes(out) for turn in episode.turns)
        if sampled >= budget:
            return summary.total, sampled
    raise AssertionError("the budget is beyond a thousand rollouts a game")


def train(run: Path, folder: Path, data: Path, out: Path, seed: int, loss: str, processes: int) -> Path:
    """The recipe's PRM on `data`; its folder."""
    if not (out / "model.safetensors").exists():
        source = folder / "prm.yaml"
        text = recipe.fill_file(source, run, 1)
        config = out / "prm.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        replaced = {"dataset_name": data, "output_dir": out, "seed": seed, "loss": loss}
        lines = [line for line in text.splitlines() if line.partition(":")[0] not in replaced]
        config.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in replaced.items())]) + "\n", "utf-8")
        hosts.launch("trl", "prm", config, out, hosts.Machines(processes))
    return out


def quality(run: Path, r: Recipe, prm: Path, *, levels: bool) -> Quality:
    held_out = run / "iter1" / "eval" / "held_out"
    scorer = PRMScorer(prm, prompt=r.prompt, max_batch=r.sampling.max_batch)
    episodes = read_episodes(held_out / "rollouts", held_out / "branches")
    return run_and_close(measure(episodes, scorer, gamma=r.gamma, levels=levels), scorer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded"))
    parser.add_argument("--loss", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.3, 0.7], help="of independent rollouts")
    parser.add_argument("--seeds", type=int, default=1, help="of PRM training")
    options = parser.parse_args()
    run, r = options.run.resolve(), recipe.load(options.recipe)
    first = run / "iter1"
    budget = tokens(first / "rollouts") + tokens(first / "branches")
    sources: dict[str, list[Path]] = {"branched": [first / "rollouts", first / "branches"]}
    work = run / "branches_benchmark"
    for temperature in options.temperature:
        name = f"independent, T {temperature:g}"
        folder = work / f"rollouts-{temperature:g}"
        episodes, sampled = independent(run, r, temperature, budget, folder)
        print(f"{name}: {episodes:,} episodes, {sampled:,} tokens; branched: {budget:,} tokens", flush=True)
        sources[name] = [folder]
    results: dict[str, list[Quality]] = {}
    for (source, stores), loss in product(sources.items(), options.loss):
        name, file = f"{source}, {loss}", f"{source.replace(', T ', '-')}-{loss}"
        data = work / f"dataset-{file}"
        if not data.exists():
            report = LABELS[loss](stores, data, prompt=r.prompt, gamma=r.gamma)
            print(f"{name}: " + "; ".join(report.lines()), flush=True)
        for seed in range(options.seeds):
            prm = train(run, options.recipe, data, work / f"prm-{file}-{seed}", seed, loss, r.stages.processes)
            results.setdefault(name, []).append(quality(run, r, prm, levels=loss == "soft_bce"))
            print(f"{name}, seed {seed}: {results[name][-1].summary()}", flush=True)
    for name, found in results.items():
        print(f"{name}: " + ", ".join(f"{what} {_mean(found, what)}" for what in ("auc", "ranking_accuracy")))


def _mean(found: list[Quality], what: str) -> str:
    values: list[Any] = [q.as_dict()[what] for q in found]
    if None in values:
        return "-"
    return f"{mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


if __name__ == "__main__":
    main()
