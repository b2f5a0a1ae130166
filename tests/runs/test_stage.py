"""Manifests: a complete stage is skipped, an interrupted one is not, other settings are refused."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from prm_gym.errors import UserError
from prm_gym.runs import stage
from prm_gym.runs.stage import Stage

CONSOLE = Console(quiet=True)


def counting(out: Path, settings: dict[str, object], calls: list[str], fail: bool = False) -> Stage:
    def make() -> dict[str, object]:
        calls.append(out.name)
        if fail:
            raise KeyboardInterrupt
        return {"rows": 3}

    return Stage(out.name, out, settings, make)


def test_a_complete_stage_is_not_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    for _ in range(2):
        stage.run([counting(tmp_path / "a", {"n": 1}, calls), counting(tmp_path / "b", {"n": 1}, calls)], CONSOLE)
    assert calls == ["a", "b"]
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["rows"] == 3


def test_a_stage_is_told_with_its_folder_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.run([counting(tmp_path / "x[/y]z:cat:", {}, [])], Console(width=2000))
    assert f"-> {tmp_path}/x[/y]z:cat:\n" in capsys.readouterr().out


def test_an_interrupted_stage_is_made_again_and_the_one_before_is_not(tmp_path: Path) -> None:
    calls: list[str] = []
    first = counting(tmp_path / "a", {}, calls)
    with pytest.raises(KeyboardInterrupt):
        stage.run([first, counting(tmp_path / "b", {}, calls, fail=True)], CONSOLE)
    stage.run([first, counting(tmp_path / "b", {}, calls)], CONSOLE)
    assert calls == ["a", "b", "b"]


def test_other_settings_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    calls: list[str] = []
    stage.run([counting(tmp_path / "a", {"gamma": 0.95}, calls)], CONSOLE)
    with pytest.raises(UserError, match=r"manifest.json: gamma: made with 0.95, not 0.9; choose another run folder"):
        stage.run([counting(tmp_path / "a", {"gamma": 0.9}, calls)], CONSOLE)
    assert calls == ["a"]


def test_a_setting_inside_another_is_named_alone(tmp_path: Path) -> None:
    stage.run([counting(tmp_path / "a", {"config": {"steps": 20, "lr": 1e-4}}, [])], CONSOLE)
    with pytest.raises(UserError, match=r"manifest.json: config.steps: made with 20, not 40; "):
        stage.run([counting(tmp_path / "a", {"config": {"steps": 40, "lr": 1e-4}}, [])], CONSOLE)


def test_how_fast_a_stage_is_made_is_no_setting(tmp_path: Path) -> None:
    calls: list[str] = []
    for processes in (1, 2):
        sampling = {"temperature": 0.3, "processes": processes, "max_batch": 8 * processes}
        stage.run([counting(tmp_path / "a", {"sampling": sampling}, calls)], CONSOLE)
    assert calls == ["a"]
    with pytest.raises(UserError, match=r"sampling.temperature: made with 0.3, not 1.0"):
        stage.run([counting(tmp_path / "a", {"sampling": {**sampling, "temperature": 1.0}}, calls)], CONSOLE)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not a manifest"):
        stage.run([counting(tmp_path / "a", {}, [])], CONSOLE)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def make() -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "a" / "part"))

    with pytest.raises(UserError, match="No space left on device; free space"):
        stage.run([Stage("a", tmp_path / "a", {}, make)], CONSOLE)
    assert not (tmp_path / "a" / "manifest.json").exists()


def made_from(out: Path, fingerprint: str | None) -> Stage:
    found = {} if fingerprint is None else {"pi_0": {"name": "runs/a/pi_0", "fingerprint": fingerprint}}
    return Stage("rollouts", out, {"games": 3}, lambda: None, lambda: found)


def test_an_input_that_is_another_one_now_is_named(tmp_path: Path) -> None:
    stage.run([made_from(tmp_path / "a", "1111")], CONSOLE)
    assert stage.is_complete(made_from(tmp_path / "a", "1111"))
    message = r"inputs.pi_0: made from 'runs/a/pi_0' \(1111\), which is 'runs/a/pi_0' \(2222\) now; choose another run"
    with pytest.raises(UserError, match=message):
        stage.run([made_from(tmp_path / "a", "2222")], CONSOLE)


def test_an_input_that_was_removed_is_not_asked_for(tmp_path: Path) -> None:
    stage.run([made_from(tmp_path / "a", "1111")], CONSOLE)
    assert stage.is_complete(made_from(tmp_path / "a", None))


def test_a_stage_that_an_older_version_completed_is_complete(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    old = {"stage": "rollouts", "settings": {"games": 3}, "seconds": 1, "prm_gym": "0.1.0"}
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(old))
    assert stage.is_complete(made_from(tmp_path / "a", "1111"))


def test_a_manifest_says_who_made_it(tmp_path: Path) -> None:
    stage.run([made_from(tmp_path / "a", "1111")], CONSOLE)
    run = json.loads((tmp_path / "a" / "manifest.json").read_text())["run"]
    assert {"command", "started", "prm_gym", "commit", "python", "packages", "machine"} == run.keys()
