"""A training prints about twenty short lines and no dict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
import torch
from transformers import Trainer, TrainingArguments, trainer

from prm_gym.hosts.trl import progress


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.slope * x - labels) ** 2).mean()}


@pytest.fixture
def printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lines that a training of so many steps prints, each step logged."""
    monkeypatch.setattr(trainer, "DEFAULT_PROGRESS_CALLBACK", trainer.DEFAULT_PROGRESS_CALLBACK)
    progress.install()
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 4

    def run(steps: int) -> list[str]:
        settings = {"max_steps": steps, "logging_steps": 1, "learning_rate": 0.1, "per_device_train_batch_size": 2}
        arguments = TrainingArguments(str(tmp_path), **settings, use_cpu=True, report_to="none", save_strategy="no")
        training = Trainer(Line(), arguments, train_dataset=rows)
        training.train()
        assert len(training.state.log_history) == steps + 1  # nothing is missing from what is kept
        shown = capsys.readouterr()
        assert shown.err == ""  # no bar without a terminal
        return shown.out.splitlines()

    return run


@pytest.mark.parametrize(("steps", "lines"), [(1, 1), (15, 15), (200, 20)])
def test_a_training_prints_about_twenty_lines(printed: Any, steps: int, lines: int) -> None:
    *logged, end = printed(steps)
    assert len(logged) == lines
    shape = rf"step [\d,]+ of {steps:,}: loss [\d.e-]+, learning rate [\d.e-]+"
    assert all(re.fullmatch(shape, line) for line in logged)
    assert logged[0].startswith(f"step 1 of {steps}: loss 1, ")  # (0 * 1 - 1)^2
    assert re.fullmatch(rf"step {steps} of {steps}: trained in \d+ s, [\d.e+,]+ rows/s", end)


def test_stage_3_says_process_reward_and_kl() -> None:
    logs = {"learning_rate": 6e-5, "objective/kl": 0.0123, "objective/scores": -0.5, "logps/chosen": -3.0, "loss": 0.69}
    assert progress.line(logs) == "loss 0.69, process reward -0.5, KL 0.0123, learning rate 6e-05"


def test_logs_without_any_known_metric_give_no_line() -> None:
    assert progress.line({"epoch": 1.0}) == ""
