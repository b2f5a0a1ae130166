"""A damaged checkpoint gives one line that names it, whatever the library raises."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import classifier, language_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging

from prm_gym.cli import main
from prm_gym.errors import UserError
from prm_gym.hosts.trl.inputs import load_model
from prm_gym.inference.checkpoint import load_checkpoint
from prm_gym.prompts.tokenizer import load_tokenizer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(language_model(), tmp_path / "model")


def cut(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])


@pytest.mark.parametrize("kept", [0, 0.001, 0.5, 0.99])
def test_cut_off_weights_are_named(model: Path, kept: float) -> None:
    cut(model / "model.safetensors", kept)
    with pytest.raises(UserError, match=f"^{model}: cannot be loaded") as told:
        load_checkpoint(AutoModelForCausalLM, model, "cpu", None)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=f"^{model}: model_name_or_path: no model to load"):
        load_model(AutoModelForCausalLM, str(model), "model_name_or_path")


def test_a_sound_checkpoint_is_loaded_in_float32_for_training() -> None:
    loaded = load_model(AutoModelForSequenceClassification, str(classifier()), "model_name_or_path", num_labels=1)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_the_score_that_a_policy_lacks_is_drawn_without_a_report(caplog: pytest.LogCaptureFixture) -> None:
    logging.enable_propagation()
    logging.set_verbosity_info()
    try:
        load_model(AutoModelForSequenceClassification, str(language_model()), "model_name_or_path", num_labels=1)
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity_warning()
        logging.disable_propagation()
    assert "LOAD REPORT" not in caplog.text


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_cut_off_tokenizer_is_named(model: Path, file: str, kept: float) -> None:
    cut(model / file, kept)
    with pytest.raises(UserError, match=f"^{model}: ") as told:
        load_tokenizer(model)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("policy", ["--policy", "--prm"])
def test_the_command_says_it_in_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    pytest.importorskip("alfworld")
    from prm_gym.envs.households import generate

    generate(tmp_path / "g", preset="small", splits={"train": 1}, seed=3, progress=False)
    damaged = model if policy == "--policy" else shutil.copytree(classifier(), tmp_path / "prm")
    cut(damaged / "model.safetensors", 0.5)
    q = ["--prm", str(damaged), "--best-of", "2"] if policy == "--prm" else []
    playing = ["--games", str(tmp_path / "g"), "--policy", str(model), "--prompt", "compact", "--split", "train"]
    assert main(["evaluate", *playing, *q, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {damaged}: cannot be loaded (SafetensorError: ")
