"""Reading run folders: against the writers' own input, and input that is refused."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from report_world import GAMES, make_run

from prm_gym.cli import main
from prm_gym.errors import UserError
from prm_gym.evaluation.results_file import read_results
from prm_gym.report.gather import TARGET_BINS, gather
from prm_gym.report.result_entries import pooled


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), iterations=2, best_of=(2,))


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["report", str(folder)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {folder}: ")
        assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_results_are_those_of_the_file(run) -> None:
    found = gather(run, "a")["results"]
    assert [(e["policy"], e["mode"], e["success"]) for e in found] == [
        (e["policy"], e["mode"], e["success"]) for e in read_results(run / "results.json")
    ]


def test_seeds_are_averaged_and_the_interval_is_that_of_one_seeds_games(tmp_path) -> None:
    run = make_run(tmp_path, seeds=(0, 1, 2))
    entries = read_results(run / "results.json")
    for row in gather(run, "a")["results"]:
        of = [e for e in entries if (e["policy"], e["mode"]) == (row["policy"], row["mode"])]
        assert row["seeds"] == len(of) == 3
        assert row["success"] == pytest.approx(sum(e["success"] for e in of) / 3)
        assert row["actions"] == pytest.approx(sum(e["actions"] for e in of) / 3)
        assert row["games"] == GAMES
        low, high = row["ci95"]
        assert low <= row["success"] <= high
        assert high - low >= min(e["ci95"][1] - e["ci95"][0] for e in of) - 1e-9


def test_entries_of_different_prms_are_not_averaged() -> None:
    entry = {"policy": "pi_1", "mode": "best_of_4", "split": "s", "prm": "Q_0", "games": 1}
    assert len(pooled([entry, {**entry, "prm": "Q_1"}])) == 2


def test_targets_are_counted_as_the_dataset_holds_them(run) -> None:
    rows = ds.dataset(run / "iter1" / "dataset" / "prm" / "data").to_table()["target"].to_pylist()
    targets = gather(run, "a")["iterations"][0]["targets"]
    edges = [i / TARGET_BINS for i in range(TARGET_BINS)] + [1.1]
    expected = [sum(low <= v < high for v in rows) for low, high in pairwise(edges)]
    assert targets["counts"] == expected
    assert targets["mean"] == pytest.approx(sum(rows) / len(rows))
    assert targets["train"] + targets["test"] == len(rows)


def test_the_process_reward_and_the_kl_of_both_hosts_are_read(run, tmp_path) -> None:
    assert gather(run, "a")["iterations"][0]["training"] == {
        "unit": "step",
        "points": [(5, -1.75), (10, -1.5), (15, -1.25), (20, -1.0)],
        "kl": [(5, 0.05), (10, 0.1), (15, 0.15), (20, 0.2)],
    }
    other = tmp_path / "iter1" / "policy"
    other.mkdir(parents=True)
    lines = [{"step": s, "objective/scores": s / 100, "objective/kl": s / 1000} for s in (64, 128)]
    (other / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    training = gather(tmp_path, "a")["iterations"][0]["training"]
    assert training == {"unit": "episode", "points": [(64, 0.64), (128, 1.28)], "kl": [(64, 0.064), (128, 0.128)]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("iter1/eval/prm/quality.json", '{"bins": [[2, 0, 1]]}'),
        ("iter1/eval/prm/quality.json", "not json"),
        ("iter1/policy/trainer_state.json", "{"),
        ("iter1/rollouts/manifest.json", "[]"),
        ("results.json", '[{"policy": "pi_0", "prm": null, "mode": "policy", "split": "s", "seed": 0, "success": 7}]'),
        ("results.json", "[1]"),
        ("iter1/dataset/prm/data/train-0.parquet", "PAR"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with pytest.raises(UserError, match=path.name):
        gather(tmp_path, "a")


OLD_QUALITY = {
    "bins": [[0.5, 0.4, 9]], "auc": 0.7, "calibration_error": 0.1, "ranking_accuracy": 0.6, "ranking_ci95": [0.5, 0.7],
    "ranking_ceiling": 0.8, "pairs": 90, "visits": 9,
}  # fmt: skip


def gathered_quality(folder, quality: dict) -> dict:
    path = folder / "iter1" / "eval" / "prm" / "quality.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(quality))
    return gather(folder, "a")["iterations"][0]["quality"]


def test_a_quality_of_a_version_without_the_corrected_ranking_is_read(tmp_path) -> None:
    found = gathered_quality(tmp_path, OLD_QUALITY)
    assert found["ranking_accuracy"] == 0.6
    assert (found["ranking_corrected"], found["ranking_corrected_ci95"], found["ranking_by"]) == (None, None, {})


def test_a_damaged_split_of_the_ranking_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"quality\.json"):
        gathered_quality(tmp_path, {**OLD_QUALITY, "ranking_by_kind": {"go": {"pairs": 3}}})


def of(policy: str, temperature: float | None, success: float = 0.5, seed: int = 0) -> dict:
    known = {"temperature": temperature, "prompt": "compact"} if temperature is not None else {}
    numbers = {"games": 2, "success": success, "ci95": [0, 1], "actions": 3, "by_task_type": {}}
    return {"policy": policy, "mode": "policy", "split": "s", "prm": None, "seed": seed, **numbers, **known}


def test_seeds_are_averaged_within_the_same_conditions_alone() -> None:
    found = pooled([of("pi_1", 0.3, 0.2), of("pi_1", 0.3, 0.4, seed=1), of("pi_1", 1.0, 0.0)])
    assert [(entry["success"], entry["seeds"], entry["apart"]) for entry in found] == [
        (pytest.approx(0.3), 2, "T 0.3"),
        (0.0, 1, "T 1"),
    ]


def test_a_curve_compares_what_was_played_alike() -> None:
    entries = [of("pi_0", 0.3), of("pi_1", 1.0), of("pi_1", 0.3), of("pi_2", None)]
    assert [entry["usual"] for entry in pooled(entries)] == [True, False, True, True]
