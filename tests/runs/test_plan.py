"""`prm-gym plan`: small recipes, a straight line through two measurements, and what would fail late."""

from __future__ import annotations

import json
import math
import shutil
import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from miniature import write_miniature

from prm_gym.cli import main
from prm_gym.cli.console import console
from prm_gym.errors import UserError
from prm_gym.hosts import Machines
from prm_gym.runs import forecast, late_failures, probe, recipe
from prm_gym.runs.forecast import Expected, Forecast, fit
from prm_gym.runs.iteration import Run
from prm_gym.runs.probe import Measured
from prm_gym.runs.recipe_sections import Start
from prm_gym.runs.stage import Cost, Stage

RECIPES = Path(__file__).parents[2] / "recipes"
FOLDERS = sorted(path.parent for path in RECIPES.glob("*/recipe.yaml"))


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name files from the checkout, hosts that are not here, and servers."""
    monkeypatch.chdir(RECIPES.parent)
    monkeypatch.setattr("prm_gym.hosts.check", lambda *_: None)
    monkeypatch.setattr("prm_gym.runs.servers.Servers.check", lambda self: None)
    monkeypatch.setattr("prm_gym.runs.iteration.check_value_model", lambda folder: None)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_shipped_recipe_has_small_sizes(folder: Path, tmp_path: Path) -> None:
    """Both load, no stage grows, and every stage of the large one is at least as large."""
    amounts = []
    for name, share in (("small", 0.5), ("large", 1.0)):
        probe.shrink(folder, tmp_path / name, share)
        run = Run(tmp_path / name, tmp_path / "run", 1)
        amounts.append([each.cost.episodes or 0 for each in run.stages()])
        games = run.recipe.games
        if games is not None and games.splits:
            assert games.splits["train"] >= run.recipe.rollouts.games
    full = [each.cost.episodes or 0 for each in Run(folder, tmp_path / "run", 1).stages()]
    assert all(small <= large <= most for small, large, most in zip(*amounts, full, strict=True))
    assert sum(amounts[1]) < 0.4 * sum(full) or sum(full) < 400


def test_a_policy_takes_the_place_of_the_start(tmp_path: Path) -> None:
    probe.shrink(RECIPES / "embedded", tmp_path / "small", 1.0, RECIPES.parent / "models" / "alfworld-small")
    loaded = recipe.load(tmp_path / "small")
    assert loaded.start == Start(model=str(RECIPES.parent / "models" / "alfworld-small"))


def test_demonstrations_that_labels_read_are_probed_too(tmp_path: Path) -> None:
    probe.shrink(RECIPES / "alfworld-llama3.2-3b-reset", tmp_path / "small", 1.0, RECIPES.parent / "models")
    assert recipe.load(tmp_path / "small").start.demonstrations is not None


def test_the_trainings_are_shortened_for_the_host_that_is_asked_for(tmp_path: Path) -> None:
    folder = shutil.copytree(RECIPES / "embedded-open-instruct", tmp_path / "recipe")
    (folder / "notes.yaml").write_text("- of the user's own\n")
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values |= {"host": "trl", "stages": {**values["stages"], "launcher": "/usr/bin/env"}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    probe.shrink(folder, tmp_path / "small", 1.0, host="open-instruct")
    assert "max_steps" not in yaml.safe_load((tmp_path / "small" / "sft.yaml").read_text())
    assert (tmp_path / "small" / "notes.yaml").read_text() == "- of the user's own\n"


@pytest.mark.parametrize(("rows", "epochs", "batch", "processes"), [(101, 2, 8, 1), (96, 1, 16, 3), (7, 3, 8, 1)])
def test_steps_are_those_of_transformers(rows: int, epochs: int, batch: int, processes: int) -> None:
    """As `Trainer` counts them: whole batches of each epoch, the last one of which may be short."""
    config = {"dataset_name": "d", "num_train_epochs": epochs, "per_device_train_batch_size": batch}
    counted = sum(len(range(0, rows, batch * processes)) for _ in range(epochs))
    assert probe.steps(config, rows, processes) == counted
    assert probe.steps({**config, "max_steps": 12}, rows, processes) == 12
    assert probe.steps({**config, "max_steps": -1}, rows, processes) == counted


def test_the_steps_of_open_instruct_are_the_paper_s() -> None:
    config = yaml.safe_load((RECIPES / "alfworld-llama3.2-3b" / "online_dpo.yaml").read_text())
    assert probe.world(config, Machines()) == 3
    assert probe.world(config, Machines(nodes=2)) == 6
    assert probe.steps(config, 0, 3) == math.ceil(50_000 / 60)  # 50k episodes, 60 a step


def test_a_line_through_two_points() -> None:
    assert fit((10, 7.0), (20, 9.0)) == pytest.approx((5.0, 0.2))
    assert fit((10, 3.0), (20, 8.0)) == pytest.approx((0.0, 0.4)), "a start takes no negative time"
    assert fit((10, 9.0), (20, 7.0)) == pytest.approx((0.0, 0.35)), "noise never makes the rest free"
    assert fit((10, 6.0), (10, 8.0)) == (7.0, 0.0)


def test_what_grows_by_a_law_is_foreseen_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe answers by a law that it does not tell: 5 s and 0.1 s an episode or 2 s a step, 30 rows
    an episode, four rows an item of a training."""
    folder = write_miniature(tmp_path / "recipe")
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["games"]["splits"] = {"train": 1000, "valid_seen": 400, "valid_unseen": 400}
    values["rollouts"]["games"], values["evaluation"]["games"] = 1000, 400
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    prm = yaml.safe_load((folder / "prm.yaml").read_text())
    (folder / "prm.yaml").write_text(yaml.safe_dump({**prm, "max_steps": -1, "num_train_epochs": 1}))

    def law(amount: float, rows: int, trains: str) -> Measured:
        each = 2.0 if trains else 0.1
        grouped = 0.25 if trains else 1.0
        return Measured(
            amount, 5 + each * amount, 4 + each * amount, 10 * int(amount), rows=rows, size=100, grouped=grouped
        )

    def answer(arguments: list[Any]) -> None:
        small, found = Run(arguments[0], arguments[1], 1), dict[str, Any]()
        for each in small.stages():
            amount = each.cost.episodes or 1
            steps = each.settings["config"].get("max_steps", -1) if each.cost.trains else amount
            found[probe.place(small, each)] = asdict(law(steps, 30 * amount, each.cost.trains))
        arguments[2].write_text(json.dumps({"stages": found, "prompts": {"0": 10}, "context": 512}))

    monkeypatch.setattr(forecast, "in_process", answer)
    run = Run(folder, tmp_path / "run", 1)
    planned = {each.stage.name: each for each in forecast.forecast(run, lambda _: None).stages}
    rollouts = planned["rollouts of pi_0"]
    assert (rollouts.amount, rollouts.requests) == (2000, 20_000)
    assert rollouts.seconds == pytest.approx(5 + 0.1 * 2000)
    assert rollouts.cpu == pytest.approx(4 + 0.1 * 2000)
    episodes = 2000 * (1 + 1 * 2 * 2)  # with the branches
    assert planned["labels for Q_0"].amount == episodes
    assert planned["Q_0"].amount == 0.25 * 30 * episodes / prm["per_device_train_batch_size"]
    assert planned["Q_0"].seconds == pytest.approx(5 + 2 * planned["Q_0"].amount)
    assert not list(tmp_path.glob("prm_gym-plan-*"))


def test_the_batches_of_an_epoch_are_those_of_the_trainer(tmp_path: Path) -> None:
    """Twenty items in batches of eight, trained for four steps: three batches are an epoch."""
    pytest.importorskip("trl", reason="needs the extra 'trl'")
    import torch
    from transformers import Trainer, TrainingArguments

    options = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=8, max_steps=4, use_cpu=True, report_to="none"
    )
    data = [{"input": torch.ones(1), "labels": torch.ones(1)}] * 20

    class Model(torch.nn.Linear):
        def forward(self, input: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": (super().forward(input) - labels).square().mean()}

    Trainer(Model(1, 1), options, train_dataset=data).train()
    assert probe._batches(tmp_path / "checkpoint-4") == 3
    assert probe._batches(tmp_path) is None


def test_checkpoints_take_disk_and_time() -> None:
    probed = Measured(8, 1.0, 1.0, size=500, checkpoint=400)
    config = {"save_steps": 100, "save_total_limit": 2}
    assert forecast._of_training(probed, config, 1000) == (900, 9 * 400)
    assert forecast._of_training(probed, config, 50) == (500, 0)


def test_gpus_are_those_of_servers_and_processes(tmp_path: Path) -> None:
    iteration = Run(RECIPES / "alfworld-llama3.2-3b-slurm", tmp_path / "run", 1)
    held = {each.name: forecast._gpus(iteration, each) for each in iteration.stages()}
    assert held["rollouts of pi_0"] == held["evaluation of pi_1"] == 4
    assert held["Q_0"] == held["pi_0 by SFT"] == 8
    assert held["pi_1 by online DPO"] == 7, "three of each node train, one samples"
    assert held["labels for Q_0"] == held["demonstrations"] == 0


def found(tmp_path: Path, **options: Any) -> tuple[Run, Forecast]:
    """A forecast of the demo in which nothing is wrong, but for `options`."""
    iteration = Run(RECIPES / "embedded", tmp_path / "run", 1)
    size = options.pop("size", 1000)
    stages = [Expected(each, 1, 1, 1, 1, 1, 1, size, 0) for each in iteration.stages()]
    return iteration, replace(Forecast(stages, {0: 100, 15: 300}, 512, 1e9, 1.0), **options)


def test_a_demo_has_no_problem(tmp_path: Path) -> None:
    assert late_failures.problems(*found(tmp_path)) == []


def test_a_full_disk_is_foreseen(tmp_path: Path) -> None:
    [problem] = late_failures.problems(*found(tmp_path, size=10**18))
    assert "GB will be written" in str(problem)


@pytest.mark.parametrize(
    ("prompts", "longest"), [({0: 100, 15: 300}, 300), ({0: 100, 1: 150, 2: 180}, 180 + 13 * 50), ({}, 0)]
)
def test_the_prompt_of_the_last_turn(prompts: dict[int, int], longest: int) -> None:
    assert late_failures.longest_prompt(prompts, 16) == longest


def test_a_context_that_is_too_short_is_foreseen(tmp_path: Path) -> None:
    said = [str(each) for each in late_failures.problems(*found(tmp_path, context=310))]
    assert len(said) == 1
    assert "max_episode_steps: turn 16 may have 300 prompt and 16 response tokens; serve it with a longer" in said[0]
    said = [str(each) for each in late_failures.problems(*found(tmp_path, prompts={15: 600}, context=None))]
    assert [text.split(": ")[1] for text in said] == ["stages.prm", "stages.online_dpo"]
    assert "max_length is 512; prompts of turn 16 may have 600 tokens; raise it" in said[0]


def test_a_port_that_is_taken_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, nothing_wrong = found(tmp_path)
    iteration = Run(RECIPES / "alfworld-llama3.2-3b-slurm", tmp_path / "other", 1)
    monkeypatch.setenv("MASTER_PORT", "abc")
    said = [str(each) for each in late_failures.problems(iteration, replace(nothing_wrong, context=None))]
    assert "MASTER_PORT: 'abc' is no number; export another" in said
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        said = [str(each) for each in late_failures.problems(iteration, replace(nothing_wrong, context=None))]
    assert any(text.startswith("MASTER_PORT: ") and "is taken" in text for text in said)
    assert not any("MASTER_PORT" in str(each) for each in late_failures.problems(iteration, nothing_wrong))


def test_a_probe_that_fails_says_why(tmp_path: Path) -> None:
    folder = write_miniature(tmp_path / "recipe")
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["start"] = {"model": str(tmp_path / "none")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"the probe failed .*no checkpoint folder .*none"):
        forecast.forecast(Run(folder, tmp_path / "run", 1), lambda _: None)
    assert not list(tmp_path.glob("prm_gym-plan-*"))


def test_the_command_prints_the_table_and_ends_with_the_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "width", 160)
    cost = Cost(rows=17, episodes=1)
    stages = [Expected(Stage("rollouts of pi_0", tmp_path, {}, dict, cost=cost), 1, 7200, 3600, 5, 6, 7, 2 * 10**9, 4)]
    wrong = Forecast(stages, {15: 600}, 512, 1e8, 3.0)
    monkeypatch.setattr(forecast, "forecast", lambda iteration, say: wrong)
    assert main(["plan", str(RECIPES / "embedded"), "--run", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    [row] = [line.split() for line in printed.out.splitlines() if line.strip().startswith("rollouts of pi_0")]
    assert row[3:] == ["5", "6", "7", "2.000", "1.000", "8.000", "2.000"]
    assert "serve it with a longer context than 512" in printed.out
    assert "1 problems, listed above" in printed.err


@pytest.mark.slow
def test_a_plan_of_a_miniature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every stage of a real probe; the figures are those of benchmarks/plan.py."""
    monkeypatch.setattr(console, "width", 160)
    pytest.importorskip("trl", reason="needs the extra 'trl'")
    pytest.importorskip("alfworld")
    folder = write_miniature(tmp_path / "recipe")
    assert main(["plan", str(folder), "--run", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert all(each.name in printed for each in Run(folder, tmp_path / "run", 1).stages())
    assert not (tmp_path / "run").exists()
