"""What AgentPRM and GRPO are said to have cost, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.grpo import Cost, checkpoints, cost_of_q, cost_of_stage3
from prm_gym.runs.iteration import Run

RECIPES = Path(__file__).parents[2] / "recipes"


def write(folder: Path, name: str, values: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(values))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Iteration 1 of the embedded recipe: Stage 3 takes 20 steps of 32 prompts with two responses each."""
    facts = {
        "rollouts": {"seconds": 10, "response_tokens": 700, "actions": 200},  # 3.5 tokens a response
        "branches": {"seconds": 20, "response_tokens": 5000, "actions": 1},
        "dataset/prm": {"seconds": 1},
        "prm": {"seconds": 30},
        "dataset/prompts": {"seconds": 2},
        "policy": {"seconds": 40},
    }
    for name, manifest in facts.items():
        write(tmp_path / "iter1" / name, "manifest.json", manifest)
    return Run(RECIPES / "embedded", tmp_path, 1)


def test_agentprm_pays_for_the_episodes_behind_q_and_for_stage_3(run: Run) -> None:
    assert cost_of_q(run) == Cost(5700, 61)
    assert cost_of_stage3(run) == Cost(4480, 42)


def test_the_checkpoints_nearest_to_the_parts_of_the_budget(tmp_path: Path) -> None:
    """Every step samples 32 episodes of 10 tokens in 2 seconds; a line without lengths is the end of a training."""
    for step in (5, 20, 40, 55, 80):
        history = [{"completions/mean_length": 10.0, "step_time": 2.0} for _ in range(step)]
        write(tmp_path / f"checkpoint-{step}", "trainer_state.json", {"log_history": [*history, {"train_loss": 1.0}]})
    assert checkpoints(tmp_path) == [(step, Cost(320 * step, 2.0 * step)) for step in (5, 20, 40, 80)]
