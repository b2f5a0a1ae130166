"""Success of pi_0 .. pi_n with several seeds, and what each iteration gains, on any recipe:

    python -m experiments.gain recipes/textworld [--seeds 3] [--iterations 1] [--run runs/gain/textworld]

Seeds differ in demonstrations, rollouts and training, and share the held-out games (see `variants`), so gains are
paired by game. Intervals are of 95% and cover games and seeds. It resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.variants import Variants
from prm_gym.errors import run_program
from prm_gym.evaluation import intervals
from prm_gym.evaluation.intervals import Outcome
from prm_gym.runs import recipe


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="experiments.gain", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="0 .. SEEDS - 1")
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--run", type=Path, help="by default runs/gain/<name of the recipe>")
    options = parser.parse_args(arguments)
    recipe.load(options.recipe)  # raises before a folder is made
    root = options.run or place(options.recipe)
    seeds = [outcomes(Variants(options.recipe, root, seed), options.iterations) for seed in range(options.seeds)]
    show(options.recipe, list(zip(*seeds, strict=True)))


def place(of: Path) -> Path:
    """Where the runs of the recipe `of` are, if nothing else is said."""
    return Path("runs/gain") / of.resolve().name


def outcomes(variants: Variants, iterations: int) -> list[Outcome]:
    """The outcomes of pi_0 .. pi_n on the recipe's held-out games, for one seed."""
    runs = variants.run(iterations=iterations)
    return [variants.evaluated(run, n) for n, run in enumerate([runs[0], *runs])]


def show(name: Path, policies: Sequence[Sequence[Outcome]]) -> None:
    """`policies` has an outcome per seed for each of pi_0 .. pi_n."""
    table = Table(title=Text(f"{name}, success in %"), title_justify="left")
    for column in ("policy", "mean", "95%", "seeds", "gain on the one before", "95%", "seeds", "games"):
        table.add_column(column)
    for n, found in enumerate(policies):
        success = intervals.success(found)
        gain = intervals.gain(found, policies[n - 1]) if n else None
        cells = [*percent(success), *(percent(gain, "+") if gain else ("", "", ""))]
        table.add_row(f"pi_{n}", *cells, str(success.games))
    Console().print(table)


def percent(of: intervals.Estimate, sign: str = "") -> tuple[str, str, str]:
    mean, low, high, *per_seed = (f"{100 * value:{sign}.1f}" for value in (of.mean, *of.ci95, *of.per_seed))
    return mean, f"{low} to {high}", " ".join(per_seed)


if __name__ == "__main__":
    run_program(main)
