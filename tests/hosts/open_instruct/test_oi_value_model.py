"""V_mu for the shaping label, against the model read one state at a time as Stage 2 trains it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest
from oi_world import World

from prm_gym.cli import main
from prm_gym.errors import UserError
from prm_gym.hosts import losses
from prm_gym.hosts.open_instruct.value_model import check_value_model, value_function
from prm_gym.hosts.scored_rows import value_row
from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, Turn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture
def value_model(untrained: Path, tmp_path: Path) -> Path:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(untrained, num_labels=1)
    folder = tmp_path / "value_model"
    shutil.copytree(untrained, folder)
    model.save_pretrained(folder)
    return folder


def test_a_state_s_value_is_read_where_stage_2_trained_it(value_model: Path) -> None:
    world = World()
    prompts = [world.prompt() for _ in range(20)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(value_model)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(value_model, num_labels=1).eval()
    wanted = []
    for prompt in prompts:
        ids = value_row({"prompt": prompt}, tokenizer)[losses.FIRST]
        with torch.no_grad():
            wanted.append(losses.score(model, torch.tensor([ids]), tokenizer.pad_token_id).sigmoid().item())
    assert max(wanted) - min(wanted) > 1e-3
    assert value_function(value_model, batch=6)(prompts) == pytest.approx(wanted, abs=1e-5)
    assert value_function(value_model)([]) == []


def test_the_command_line_shapes_by_a_value_model(value_model: Path, tmp_path: Path) -> None:
    """A_mu of one won step is 1 - V(s): with alpha 1 the target is (2 - V(s)) / 2."""
    state = World().prompt()[0]["content"]
    with EpisodeWriter(tmp_path / "rollouts") as writer:
        turns = [Turn(0, state, ["a"], response="a", action="a", reward=1.0, terminated=True), Turn(1, "p", [])]
        writer.add(Episode("e", "g", "train", "t", "k", "pi_0", 0, 0, "won", turns))
    out = tmp_path / "labels"
    arguments = ["shaping", "--rollouts", tmp_path / "rollouts", "--out", out, "--value-model", value_model]
    main(["label", *map(str, arguments), "--alpha", "1", "--prompt", "compact"])
    [row] = [row for split in datasets.load_dataset(str(out)).values() for row in split]
    assert row["target"] == pytest.approx((2 - value_function(value_model)([row["prompt"]])[0]) / 2, abs=1e-6)


def test_a_policy_is_no_value_model(untrained: Path, tmp_path: Path) -> None:
    """Its score head would be drawn at random."""
    with pytest.raises(UserError, match="is a LlamaForCausalLM, whose values would be random"):
        value_function(untrained)
    with pytest.raises(UserError, match="no model of V_mu"):
        check_value_model(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="no model of V_mu"):
        check_value_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="model without a head"):
        check_value_model(tmp_path)


def test_cut_off_weights_are_named(value_model: Path) -> None:
    weights = value_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"value_model: value_fn: cannot be loaded \(.*; name a whole checkpoint$"):
        value_function(value_model)
