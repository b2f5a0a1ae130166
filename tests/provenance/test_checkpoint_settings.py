"""The settings in the checkpoint of a host's stage that is run by itself: those of its labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.prompts import load
from prm_gym.provenance.checkpoint_settings import (
    READS,
    TrainedFor,
    carry,
    check_reads,
    prompt_for,
    settle,
    trained_for,
)
from prm_gym.provenance.fingerprints import of_prompt

COMPACT = load("compact")


def labels(folder: Path, played: dict[str, Any] | None) -> Path:
    prompt = {**of_prompt(COMPACT), "source": COMPACT.source}
    rollouts = [{"name": "r", "fingerprint": "f", "settings": played}]
    provenance.write(folder, {"kind": "labels", "prompt": prompt, "rollouts": rollouts})
    return folder


@pytest.mark.parametrize("config", ["list", "mixer", "yaml"])
def test_a_training_carries_what_its_labels_say(tmp_path: Path, config: str) -> None:
    policy = {"kind": "transformers", "temperature": 0.5}
    data = str(labels(tmp_path / "data", {"policy": policy, "max_episode_steps": 16}))
    named = {"list": [data], "mixer": {data: 1.0}, "yaml": {"dataset_mixer_list": [data, "1.0"], "max_steps": 3}}
    carry(named[config], tmp_path / "out")
    trained = trained_for(tmp_path / "out")
    assert trained is not None
    assert (trained.prompt.source, trained.max_episode_steps, trained.temperature) == (COMPACT.source, 16, 0.5)


@pytest.mark.parametrize("text", ["x" * 300, ""], ids=["too long for a name", "empty"])
def test_a_text_that_names_no_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(labels(tmp_path / "here", {"policy": {}, "max_episode_steps": 4}))
    data = labels(tmp_path / "data", {"policy": {}, "max_episode_steps": 16})
    carry({"chat_template": text, "dataset": str(data)}, tmp_path / "out")
    trained = trained_for(tmp_path / "out")
    assert trained is not None
    assert trained.max_episode_steps == 16


def test_a_later_training_in_the_folder_carries_its_own_labels(tmp_path: Path) -> None:
    for steps in (16, 8):
        data = labels(tmp_path / str(steps), {"policy": {"kind": "expert"}, "max_episode_steps": steps})
        carry([str(data)], tmp_path / "out")
    trained = trained_for(tmp_path / "out")
    assert trained is not None
    assert (trained.max_episode_steps, trained.temperature) == (8, None)


def test_what_iter_wrote_stays(tmp_path: Path) -> None:
    trained = TrainedFor(COMPACT, 12, 0.3)
    provenance.write(tmp_path / "out", {"kind": "training", "stage": "sft", "trained_for": trained.as_dict()})
    carry([str(labels(tmp_path / "data", {"policy": {}, "max_episode_steps": 30}))], tmp_path / "out")
    found = trained_for(tmp_path / "out")
    assert found is not None
    assert found.max_episode_steps == 12


def test_unknown_steps_and_temperature_are_the_defaults_and_can_be_any(tmp_path: Path) -> None:
    carry([str(labels(tmp_path / "data", None))], tmp_path / "out")
    played = settle(tmp_path / "out", prompt=None, max_episode_steps=None, temperature=0.9)
    assert (played.prompt.name, played.max_episode_steps, played.temperature) == ("compact", 30, 0.9)
    with pytest.raises(UserError, match=r"--prompt: .* was trained for compact, not full"):
        settle(tmp_path / "out", prompt="full", max_episode_steps=None, temperature=None)


def test_a_policy_made_in_code_reads_the_prompt_it_was_trained_on(tmp_path: Path) -> None:
    carry([str(labels(tmp_path / "data", None))], tmp_path / "out")
    assert prompt_for(tmp_path / "out", None).source == COMPACT.source
    assert prompt_for(tmp_path / "out", "full").name == "full"
    assert prompt_for(tmp_path / "nothing", None).name == "full"


def test_a_damaged_record_is_named_with_its_field(tmp_path: Path) -> None:
    provenance.write(tmp_path, {"kind": "training", "trained_for": {"prompt": "compact"}})
    with pytest.raises(UserError, match=r"provenance.json: trained_for: cannot be read"):
        trained_for(tmp_path)


def test_a_q_says_what_it_reads_and_so_do_its_checkpoints(tmp_path: Path) -> None:
    carry([str(labels(tmp_path / "data", None))], tmp_path / "q", reads=READS)
    for folder in (tmp_path / "q", tmp_path / "q" / "checkpoint-10", tmp_path / "of_another_program"):
        check_reads(folder)


@pytest.mark.parametrize("name", ["q", "q/checkpoint-10"])
@pytest.mark.parametrize("stage", [{}, {"stage": "prm"}])  # of a host by itself, of `prm-gym iter`
def test_a_q_that_read_the_end_of_the_turn_is_named_with_the_remedy(
    tmp_path: Path, name: str, stage: dict[str, str]
) -> None:
    trained = TrainedFor(COMPACT, 12, 0.3).as_dict()
    provenance.write(tmp_path / "q", {"kind": "training", **stage, "trained_for": trained})
    with pytest.raises(UserError, match=r"q/provenance.json: reads: this Q .* ends the turn.*; train it again"):
        check_reads(tmp_path / name)


@pytest.mark.parametrize(
    ("architecture", "labels", "said"),
    [
        ("LlamaForCausalLM", {}, "LlamaForCausalLM is no Q"),
        ("LlamaForSequenceClassification", {"0": "a", "1": "b", "2": "c"}, "a classifier with 3 labels is no Q"),
    ],
)
def test_a_model_that_is_no_q_is_not_called_an_old_q(
    architecture: str, labels: dict[str, str], said: str, tmp_path: Path
) -> None:
    provenance.write(tmp_path, {"kind": "training", "stage": "sft"})
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture], "id2label": labels}))
    with pytest.raises(UserError, match=f"config.json: architectures: {said}, .*one logit"):
        check_reads(tmp_path)
