"""`python -m experiments [--finding NAME ...] [--seeds 3 | --seed 1]`: run experiments, write
results/findings.json and a figure each. Everything resumes; other findings keep their entries.

A seed with a record in results/seeds is not run again unless the recipe has changed. If a finding's definition in
`findings` changes, remove its records. `--seed` measures one seed alone, if wanted beside other processes with other
seeds; the entry covers all seeds that have a record.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import prm_gym
from experiments import seed_records
from experiments.changes import ALL_GAMES
from experiments.chart import draw
from experiments.findings import FINDINGS, Cell, Finding, Place
from experiments.variants import Variants, write_variant
from prm_gym.atomic import locked, write_json
from prm_gym.errors import UserError, run_program
from prm_gym.evaluation import intervals

RECIPE = Path("recipes/embedded")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="experiments", description=__doc__)
    parser.add_argument("--finding", nargs="+", choices=list(FINDINGS), default=list(FINDINGS), metavar="NAME")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=3, help="0 .. SEEDS - 1")
    which.add_argument("--seed", type=int, help="this one, and those that have a record")
    parser.add_argument("--run", type=Path, default=Path("runs/findings"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    recipe = options.run / "recipe"
    write_variant(RECIPE, recipe, ALL_GAMES)
    digest = seed_records.recipe_digest(recipe)
    for name in options.finding:
        for seed in range(options.seeds) if options.seed is None else [options.seed]:
            file = seed_records.place(options.out, name, seed)
            if seed_records.read(file, digest) is None:
                variants = Variants(recipe, options.run, seed)
                seed_records.write(file, digest, list(FINDINGS[name].measure(variants)))
        with locked(options.out / ".lock"):  # another process may write another seed or finding
            found = seed_records.read_all(options.out, name, digest)
            if options.seed is None:
                found = {seed: found[seed] for seed in range(options.seeds)}
            entry = result(FINDINGS[name], found)
            entry["recipe"], entry["prm_gym"] = RECIPE.name, prm_gym.__version__
            entry["command"] = f"make findings FINDING={name} SEEDS={max(found) + 1}"
            write(options.out, entry)
        show(entry)


def result(finding: Finding, seeds: Mapping[int, Sequence[Cell]]) -> dict[str, Any]:
    """The entry of findings.json: a row per cell, and the gains, over all seeds."""
    cells: dict[tuple[str, Place], list[Cell]] = {}
    for seed in seeds.values():
        for cell in seed:
            cells.setdefault((cell.series, cell.x), []).append(cell)
    outcomes = {key: [cell.outcome for cell in of if cell.outcome is not None] for key, of in cells.items()}
    rows = [row(key, of, outcomes[key]) for key, of in cells.items()]
    gains = []
    for better, worse, goal in finding.gains:
        found = asdict(intervals.gain(outcomes[better], outcomes[worse]))
        gains.append({"of": list(better), "over": list(worse), "goal": goal, **found})
    return {
        "finding": finding.name,
        "claim": finding.claim,
        "axes": {"x": finding.x, "y": "success", "numbers": finding.numbers, "log": finding.log},
        "seeds": list(seeds),
        "rows": rows,
        "gains": gains,
        "remark": finding.remark(rows) if finding.remark else None,
    }


def row(key: tuple[str, Place], cells: list[Cell], outcomes: list[intervals.Outcome]) -> dict[str, Any]:
    place = {"series": key[0], "x": key[1]}
    if outcomes:
        found = asdict(intervals.success(outcomes))
        return {**place, **found, "by_task_type": intervals.by_task_type(outcomes)}
    values = [cell.value for cell in cells if cell.value is not None]
    pairs = [cell.pairs for cell in cells if cell.pairs is not None]
    number = {**place, "mean": sum(values) / len(values), "ci95": None, "per_seed": values}
    return {**number, "ci95": intervals.interval(values, pairs), "pairs": sum(pairs)} if pairs else number


def write(out: Path, entry: dict[str, Any]) -> None:
    """Write `entry` in place of its previous version, and draw it."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "findings.json"
    try:
        former = json.loads(file.read_text("utf-8")) if file.exists() else []
        kept = [each for each in former if each["finding"] != entry["finding"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(file, f"not a list of findings ({error})", "move it away") from None
    order = list(FINDINGS)
    write_json(file, sorted([*kept, entry], key=lambda each: order.index(each["finding"])))
    (out / f"{entry['finding']}.svg").write_text(draw(entry), "utf-8")


def show(entry: dict[str, Any]) -> None:
    table = Table(title=f"{entry['finding']}: {entry['claim']}", title_justify="left")
    for column in ("series", entry["axes"]["x"], "mean", "95%", "seeds"):
        table.add_column(column)
    for of in entry["rows"]:
        interval = f"{of['ci95'][0]:.3f} to {of['ci95'][1]:.3f}" if of["ci95"] else ""
        table.add_row(
            of["series"], str(of["x"]), f"{of['mean']:.3f}", interval, " ".join(f"{v:.3f}" for v in of["per_seed"])
        )
    console = Console()
    console.print(table)
    for of in entry["gains"]:
        goal = "" if of["goal"] is None else f"; goal {of['goal']:+.2f}"
        names = " over ".join(f"{series} at {x}" for series, x in (of["of"], of["over"]))
        console.print(f"{names}: {of['mean']:+.3f} ({of['ci95'][0]:+.3f} to {of['ci95'][1]:+.3f}){goal}")
    for name, value in (entry["remark"] or {}).items():
        console.print(f"{name}: {value:g}")


if __name__ == "__main__":
    run_program(main)
