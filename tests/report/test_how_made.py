"""The section `How it was made`: the records of stages and episodes, and a run of an older version with fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report_world import make_run

from prm_gym.atomic import write_json
from prm_gym.report.cells import shown
from prm_gym.report.gather import gather
from prm_gym.report.how_made import making

PROCESS = {
    "command": "prm-gym iter 1 --run runs/demo",
    "started": "2026-01-02T03:04:05+00:00",
    "prm_gym": "0.2.0",
    "commit": "0123456789ab",
    "python": "3.12.1",
    "packages": {"torch": "2.9.0", "trl": "1.2.0"},
    "machine": "Linux x86_64, 16 CPUs, 1 x H100",
}


def table(run: Path, name: str) -> list[dict[str, str]]:
    found = {of["title"]: of for of in making(gather(run, "a"))["tables"]}
    if name not in found:
        return []
    return [dict(zip(found[name]["columns"], map(shown, row), strict=True)) for row in found[name]["rows"]]


def trained(folder: Path, config: Any, **more: Any) -> Path:
    """A run whose Stage 3 has a manifest."""
    run = make_run(folder)
    settings = {"host": "trl", "config": config}
    write_json(
        run / "iter1" / "policy" / "manifest.json", {"stage": "pi_1", "settings": settings, "seconds": 7.4, **more}
    )
    return run


def test_a_trained_stage_says_its_learning_rate_and_the_steps_of_its_log(tmp_path) -> None:
    config = {"learning_rate": 6e-5, "per_device_train_batch_size": 32, "gradient_accumulation_steps": 2}
    [row] = table(trained(tmp_path, config), "Training")
    assert (row["stage"], row["learning rate"], row["trained"], row["in"]) == ("pi_1", "6e-05", "20", "steps")
    assert (row["batch"], row["seconds"]) == ("32 x 2", "7")


def test_a_manifest_with_its_config_as_text_is_read(tmp_path) -> None:
    [row] = table(trained(tmp_path, "learning_rate: 1.0e-4  # chosen by hand\n"), "Training")
    assert row["learning rate"] == "0.0001"


def test_commits_versions_machines_and_commands_are_those_that_wrote_the_run(tmp_path) -> None:
    run = trained(tmp_path, {}, run=PROCESS)
    later = {**PROCESS, "started": "2026-01-03T00:00:00+00:00", "commit": "ba9876543210", "command": "prm-gym iter 2"}
    folder = run / "iter1" / "rollouts"
    write_json(folder / "provenance.json", {"settings": {"policy": {}}, "runs": [later]})
    rows = table(run, "Versions and machines")
    assert [(row["first"], row["commit"]) for row in rows] == [
        ("2026-01-02 03:04", "0123456789ab"),
        ("2026-01-03 00:00", "ba9876543210"),
    ]
    assert rows[0]["packages"] == "torch 2.9.0, trl 1.2.0"
    assert rows[0]["machine"] == "Linux x86_64, 16 CPUs, 1 x H100"
    assert making(gather(run, "a"))["commands"] == ["prm-gym iter 1 --run runs/demo", "prm-gym iter 2"]


def test_a_run_of_an_older_version_shows_what_it_has(tmp_path) -> None:
    [row] = table(trained(tmp_path, {}, prm_gym="0.1.0"), "Versions and machines")
    assert (row["prm_gym"], row["commit"]) == ("0.1.0", "\N{EN DASH}")


def test_policies_at_play_say_the_share_that_was_not_admissible(tmp_path) -> None:
    run = make_run(tmp_path, best_of=(2,))
    rows = table(run, "Policies at play")
    for row, store in zip(rows, gather(run, "a")["stores"], strict=True):
        share = store.total("inadmissible") / store.total("actions")
        assert row["not admissible %"] == f"{100 * share:.1f}"
    assert [row["in"] for row in rows] == ["rollouts", "evaluation", "evaluation", "evaluation"]


def test_steps_are_those_of_the_checkpoint_else_those_that_the_recipe_asks_for(tmp_path) -> None:
    config = {"learning_rate": 1e-4, "max_steps": 40}
    run = trained(tmp_path, config)
    state = run / "iter1" / "policy" / "checkpoint-20" / "trainer_state.json"
    for content, expected in (({"global_step": 30, "log_history": []}, "30"), ({}, "40")):
        write_json(state, content)
        assert [row["trained"] for row in table(run, "Training")] == [expected]


def test_the_settings_beside_an_artefact_are_shown(tmp_path) -> None:
    run = trained(tmp_path, {})
    for folder, name in (("policy", "beside weights"), ("eval/pi_1_policy/episodes", "beside episodes")):
        record = {"settings": {"prompt": {"name": name, "fingerprint": "ab"}}, "runs": [PROCESS]}
        write_json(run / "iter1" / folder / "provenance.json", record)
    shown_of = {stage["name"]: stage["details"] for stage in making(gather(run, "a"))["stages"]}
    assert '"name": "beside weights"' in shown_of["pi_1"]
    assert '"name": "beside episodes"' in shown_of["episodes in iter1/eval/pi_1_policy/episodes"]
