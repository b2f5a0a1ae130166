"""How well `prm-gym plan` predicts an iteration: the ratio of expected to measured, stage by stage.

    python benchmarks/plan.py RECIPE [--run DIR]

It plans iteration 1 of the recipe, makes it into the run folder, and prints seconds, CPU seconds, requests, tokens and
bytes. On a shared machine seconds depend on what else runs; CPU seconds do so much less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from prm_gym.errors import run_program
from prm_gym.runs import forecast
from prm_gym.runs.iteration import Run
from prm_gym.runs.probe import place

NAMES = ("seconds", "cpu", "requests", "prompt_tokens", "response_tokens", "size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--run", type=Path, help="folder of the run; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options.recipe, options.run or Path(folder) / "run", Path(folder) / "measured.json")


def compare(recipe: Path, run: Path, out: Path) -> None:
    iteration = Run(recipe, run, 1)
    planned = forecast.forecast(iteration, print)
    expected = {place(iteration, each.stage): each for each in planned.stages}
    print(f"planned in {planned.seconds:.0f} s")
    for at, each in expected.items():
        print(
            f"  {at}: {each.amount:g}, {each.seconds:.1f} s, {each.cpu:.1f} s CPU, {each.requests} requests", flush=True
        )
    forecast.in_process([recipe, run, out])
    measured = json.loads(out.read_text("utf-8"))["stages"]
    print(f"{'expected / measured':28}" + "".join(f"{name:>34}" for name in NAMES))
    totals = {name: [0.0, 0.0] for name in NAMES}
    for at, each in expected.items():
        found, cells = asdict(each), []
        for name in NAMES:
            one, other = float(found[name]), float(measured[at][name])
            totals[name][0] += one
            totals[name][1] += other
            cells.append(_cell(one, other))
        print(f"{at:28}" + "".join(cells))
    print(f"{'all':28}" + "".join(_cell(*totals[name]) for name in NAMES))


def _cell(one: float, other: float) -> str:
    ratio = f"{one / other:.2f}" if other else "-"
    return f"{f'{one:,.1f} / {other:,.1f} = {ratio}':>34}"


if __name__ == "__main__":
    run_program(main)
