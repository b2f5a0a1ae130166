"""TRL as the host: every reader of Q sees the same ids, bad input is named before training."""

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason="needs the extra 'trl'")
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prm_gym import hosts
from prm_gym.errors import UserError
from prm_gym.hosts import STAGES, Machines, command, launch
from prm_gym.hosts.tiny_model import make_tiny_model
from prm_gym.hosts.trl import inputs
from prm_gym.hosts.trl.__main__ import main
from prm_gym.hosts.trl.arguments import check
from prm_gym.hosts.trl.inputs import load_split
from prm_gym.labels import monte_carlo
from prm_gym.runs import recipe
from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, Turn

RECIPES = Path(__file__).parents[3] / "recipes"
TEXTS = ["On the shelf 1, you see a mug 1. Task: put a mug in desk.", "go to shelf 1"] * 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    make_tiny_model(out, TEXTS, hidden_size=32, layers=1, heads=2)
    return out


def make_labels(folder: Path) -> None:
    """Thirty games won by the same action: every row has the same text and the target 1."""
    with EpisodeWriter(folder / "rollouts") as writer:
        for game in range(30):
            turns = [Turn(0, "o", ["a"], response="a", action="a", reward=1.0, terminated=True), Turn(1, "p", [])]
            writer.add(Episode(f"e{game}", f"g{game}", "train", "t", "k", "pi_0", 0, 0, "won", turns))
    monte_carlo.label([folder / "rollouts"], folder / "labels", prompt="compact")


def test_two_processes_report_the_loss_of_one(checkpoint: Path, tmp_path: Path) -> None:
    make_labels(tmp_path)
    losses = []
    for processes in (1, 2):
        out = tmp_path / f"prm-{processes}"
        config = {
            "model_name_or_path": str(checkpoint),
            "dataset_name": str(tmp_path / "labels"),
            "output_dir": str(out),
            "per_device_train_batch_size": 4 // processes,
            "max_steps": 1,
            "save_steps": 1,
            "logging_steps": 1,
            "use_cpu": True,
            "report_to": "none",
        }
        (tmp_path / "prm.yaml").write_text(yaml.safe_dump(config))
        launch("trl", "prm", tmp_path / "prm.yaml", out, Machines(processes))
        losses.append(json.loads((out / "checkpoint-1" / "trainer_state.json").read_text())["log_history"][0]["loss"])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_stage_leaves_no_thread_of_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(_: list[str]) -> None:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        torch.distributed.all_gather([torch.zeros(1)], torch.ones(1))
        assert any("gloo" in name for name in thread_names())

    monkeypatch.setattr("prm_gym.hosts.trl.sft.main", train)
    main(["sft"])
    assert not any("gloo" in name for name in thread_names())


def thread_names() -> list[str]:
    """Of all threads of this process, as the operating system knows them."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]


def test_a_dataset_of_another_kind_is_named(tmp_path: Path) -> None:
    make_labels(tmp_path)
    labels, kinds = str(tmp_path / "labels"), ["monte_carlo"]
    assert len(load_split(labels, "train", ("prompt", "target"), kinds)) > 0
    with pytest.raises(UserError, match="lacks the columns chosen"):
        load_split(labels, "train", ("prompt", "chosen"), kinds)
    with pytest.raises(UserError, match="is a monte_carlo dataset; name one of value"):
        load_split(labels, "train", ("prompt", "target"), ["value"])  # whose columns it has, and more


def test_token_ids_that_other_code_has_cached_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_labels(tmp_path)

    def cached() -> str:
        rows = load_split(str(tmp_path / "labels"), "train", ("prompt",), ["monte_carlo"])
        return str(rows.map(lambda row: {"turns": len(row["prompt"])}).cache_files[0]["filename"])

    before = cached()
    assert cached() == before
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "chat.py").write_text("scored = 'elsewhere'")
    monkeypatch.setattr(inputs, "__file__", str(tmp_path / "hosts" / "trl" / "inputs.py"))
    assert cached() != before


@pytest.mark.parametrize("stage", ["sft", "online_dpo", "policy_gradient"])
def test_a_stage_does_not_train_on_labels_of_another(stage: str, checkpoint: Path, tmp_path: Path) -> None:
    """A monte_carlo dataset has prompts and completions: SFT on it would imitate the bad actions as well."""
    make_labels(tmp_path)
    q = tmp_path / "q"
    AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1).save_pretrained(q)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(q)
    options = {"model_name_or_path": checkpoint, "dataset_name": tmp_path / "labels", "output_dir": tmp_path / "out"}
    options |= {"use_cpu": True, "bf16": False, "report_to": "none"}
    if stage != "sft":
        options["reward_model_path"] = q
    with pytest.raises(UserError, match="dataset_name: is a monte_carlo dataset"):
        main([stage, *(word for name, value in options.items() for word in (f"--{name}", str(value)))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learnin_rate: 0.1", r"prm.yaml: learnin_rate: unknown key; did you mean 'learning_rate'\?"),
        ("learning_rate: fast", "prm.yaml: learning_rate: must be of type float, not 'fast'"),
        ("muon_learning_rate: 0.1\nweight_decay: 0.1", "weight_decay: has no effect beside muon_learning_rate; remove"),
        ("max_length: 9\nmax_length: 8", "prm.yaml: not valid YAML .*the key 'max_length' stands twice"),
    ],
)
def test_a_mistake_in_a_stage_s_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prm.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        main(["prm", "--config", str(tmp_path / "prm.yaml")])


@pytest.mark.parametrize(
    ("stage", "key"), [("sft", "dataset_name"), ("prm", "model_name_or_path"), ("online_dpo", "reward_model_path")]
)
def test_an_input_that_a_recipe_s_file_lacks_is_named_before_stage_1(stage: str, key: str, tmp_path: Path) -> None:
    values = yaml.safe_load((RECIPES / "embedded" / f"{stage}.yaml").read_text())
    (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if k != key}))
    with pytest.raises(UserError, match=f"{stage}.yaml: {key}: missing; add it"):
        hosts.check("trl", {stage: tmp_path / f"{stage}.yaml"})


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(UserError, match="--bta"):
        main(["prm", "--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o", "--bta", "1"])


@pytest.mark.parametrize("folder", sorted(RECIPES.glob("*/recipe.yaml")), ids=lambda file: file.parent.name)
def test_the_files_of_every_recipe_on_trl_have_known_keys(folder: Path, tmp_path: Path) -> None:
    loaded = recipe.load(folder.parent)
    for stage, file in {"sft": loaded.start.sft, "prm": loaded.stages.prm, **loaded.stages.of_policy}.items():
        if loaded.host == "trl" and file is not None:
            check(STAGES["trl"][stage], folder.parent / file)


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dataset_name: no such dataset folder; run `prm-gym label` first"):
        load_split(str(tmp_path / "none"), "train", ("prompt",), [])


def test_several_processes_are_launched_through_torch() -> None:
    line = command("trl", "prm", Path("prm.yaml"), Machines(processes=2))
    assert line[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert line[-4:] == ["prm_gym.hosts.trl", "prm", "--config", "prm.yaml"]
