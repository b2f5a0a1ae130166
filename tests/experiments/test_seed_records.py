"""Records of measured seeds: they state the results and the recipe."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from experiments import __main__ as command
from experiments import seed_records
from experiments.findings import FINDINGS, Cell, Finding
from experiments.variants import Variants
from prm_gym.errors import UserError
from prm_gym.evaluation.intervals import Outcome, success

GAINS = ((("policy", 1), ("policy", 0), 0.1), (("best of 16", 1), ("policy", 1), None))


def played(games: range, seed: int) -> Outcome:
    rng = random.Random(seed)
    return {
        f"valid/{'Pick' if n % 3 else 'Heat'}-{n}/trial": ("Pick" if n % 3 else "Heat", rng.choice([0.0, 1.0]))
        for n in games
    }


def measured(seed: int) -> list[Cell]:
    """Two policies on 40 games, another on half of those, and a number."""
    return [
        Cell("policy", 0, played(range(40), 3 * seed)),
        Cell("policy", 1, played(range(40), 3 * seed + 1)),
        Cell("best of 16", 1, played(range(10, 30), 3 * seed + 2)),
        Cell("KL", 0.5, value=1 / (3 + seed)),
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every finding is `measured`; which of them were asked for, and for which seeds."""
    calls: list[tuple[str, int]] = []

    def fake(name: str) -> Finding:
        def measure(variants: Variants) -> Iterator[Cell]:
            calls.append((name, variants.seed))
            yield from measured(variants.seed)

        return Finding(name, "A claim.", "n", measure, GAINS)

    for name in FINDINGS:
        monkeypatch.setitem(FINDINGS, name, fake(name))
    return calls


def run(out: Path, *arguments: str) -> dict[str, Any]:
    """`make findings`; the entry of `loss`."""
    command.main([*arguments, "--out", str(out), "--run", str(out / "none")])
    [entry] = [each for each in json.loads((out / "findings.json").read_text()) if each["finding"] == "loss"]
    return dict(entry)


def test_the_records_give_what_the_episodes_give(asked: Any, tmp_path: Path) -> None:
    entry = run(tmp_path, "--finding", "loss", "--seeds", "3")
    seeds = {seed: measured(seed) for seed in range(3)}
    expected = json.loads(json.dumps(command.result(FINDINGS["loss"], seeds)))
    assert entry["seeds"] == [0, 1, 2]
    assert [row["by_task_type"] for row in entry["rows"][:3]] == [row["by_task_type"] for row in expected["rows"][:3]]
    for mine, theirs in zip(entry["rows"] + entry["gains"], expected["rows"] + expected["gains"], strict=True):
        for key in ("mean", "ci95", "per_seed", "games"):
            assert mine.get(key) == pytest.approx(theirs.get(key)), key


def test_a_seed_with_a_record_is_not_measured(asked: list[tuple[str, int]], tmp_path: Path) -> None:
    run(tmp_path, "--finding", "loss", "--seeds", "2")
    run(tmp_path, "--finding", "loss", "--seeds", "3")
    assert asked == [("loss", 0), ("loss", 1), ("loss", 2)]


def test_a_seed_alone_joins_those_that_are_there(asked: list[tuple[str, int]], tmp_path: Path) -> None:
    run(tmp_path, "--finding", "loss", "--seed", "2")
    entry = run(tmp_path, "--finding", "loss", "--seed", "0")
    assert asked == [("loss", 2), ("loss", 0)]
    assert entry["seeds"] == [0, 2]
    means = [success([cells[0].outcome]).mean for cells in (measured(0), measured(2)) if cells[0].outcome]
    assert entry["rows"][0]["per_seed"] == pytest.approx(means)


def test_a_crash_loses_no_seed_that_is_done(asked: list[tuple[str, int]], tmp_path: Path) -> None:
    def crash(variants: Variants) -> Iterator[Cell]:
        if variants.seed == 1:
            raise KeyboardInterrupt
        yield from measured(variants.seed)

    with pytest.MonkeyPatch.context() as broken:
        broken.setitem(FINDINGS, "loss", Finding("loss", "A claim.", "n", crash, GAINS))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "--finding", "loss", "--seeds", "3")
    run(tmp_path, "--finding", "loss", "--seeds", "3")
    assert asked == [("loss", 1), ("loss", 2)]


@pytest.mark.parametrize(("text", "again"), [("# A comment.\n", []), ("weight_decay: 0.5\n", [("loss", 0)])])
def test_a_record_is_of_what_the_recipe_says(
    text: str, again: list[tuple[str, int]], asked: list[tuple[str, int]], tmp_path: Path, monkeypatch: Any
) -> None:
    recipe = Path(shutil.copytree(command.RECIPE, tmp_path / "recipe"))
    monkeypatch.setattr(command, "RECIPE", recipe)
    run(tmp_path, "--finding", "loss", "--seeds", "2")
    asked.clear()
    (recipe / "sft.yaml").write_text((recipe / "sft.yaml").read_text() + text)
    entry = run(tmp_path, "--finding", "loss", "--seed", "0")
    assert (asked, entry["seeds"]) == (again, [0] if again else [0, 1])


def test_processes_at_other_findings_lose_no_entry(asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json = command.write_json

    def slow(*arguments: Any) -> None:
        time.sleep(0.05)  # between reading the former entries and writing the new ones
        write_json(*arguments)

    monkeypatch.setattr(command, "write_json", slow)
    run(tmp_path, "--finding", "loss", "--seeds", "1")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: run(tmp_path, "--finding", name, "--seeds", "1"), FINDINGS))
    assert [each["finding"] for each in json.loads((tmp_path / "findings.json").read_text())] == list(FINDINGS)


def test_a_share_of_pairs_is_kept_with_their_number(tmp_path: Path) -> None:
    cells = [Cell("ranking accuracy", "soft BCE", value=0.1 + 0.2, pairs=270), Cell("KL", 0.5, value=3.5)]
    seed_records.write(tmp_path / "ranking-0.json", "r", cells)
    assert seed_records.read(tmp_path / "ranking-0.json", "r") == cells


def test_a_game_played_more_than_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"policy: a game was played more than once"):
        seed_records.write(tmp_path / "loss-0.json", "r", [Cell("policy", 0, {"a": ("Pick", 0.5)})])


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    file = tmp_path / "loss-0.json"
    seed_records.write(file, "r", measured(0))
    file.write_text(file.read_text().replace('"won": "', '"won": "1', 1))
    with pytest.raises(UserError, match=r"loss-0.json: not the record of a seed"):
        seed_records.read(file, "r")
