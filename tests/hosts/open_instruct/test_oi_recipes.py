"""Every shipped YAML of this host: read by the host's parser with a checkout, against its recorded fields without."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from oi_world import HOST_PYTHON, ROOT

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct.arguments import OWN_FIELDS, as_type, parse_command_line
from prm_gym.hosts.open_instruct.transforms import ROWS

STAGE = {"sft.yaml": "sft", "prm.yaml": "reward_modeling", "online_dpo.yaml": "online_dpo"}
FOLDERS = [
    path.parent
    for path in sorted((ROOT / "recipes").glob("*/recipe.yaml"))
    if yaml.safe_load(path.read_text("utf-8"))["host"] == "open-instruct"
]
RECIPES = [folder / name for folder in FOLDERS for name in STAGE]


def ids(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def test_the_experiments_are_there() -> None:
    names = {folder.name for folder in FOLDERS}
    suffixes = ("", "-inverse", "-pairs", "-reset", "-steered", "-shaped", "-bon")
    assert names >= {f"alfworld-llama3.2-3b{suffix}" for suffix in suffixes}


@pytest.mark.parametrize("path", RECIPES, ids=ids)
def test_opens_with_its_launch_command(path: Path) -> None:
    first = path.read_text("utf-8").splitlines()[0]
    assert f"python -m prm_gym.hosts.open_instruct {STAGE[path.name]} recipes/{path.parent.name}/{path.name}" in first


@pytest.mark.parametrize("path", RECIPES, ids=ids)
def test_every_field_is_one_of_the_host_s_or_ours(path: Path) -> None:
    stage = STAGE[path.name]
    known = json.loads((Path(__file__).parent / "fields.json").read_text())[stage]
    known += [name for name, _, _ in OWN_FIELDS[stage]]
    assert set(yaml.safe_load(path.read_text("utf-8"))) <= set(known)


@pytest.mark.parametrize("path", RECIPES, ids=ids)
def test_values_are_typed_as_they_look(path: Path) -> None:
    """YAML reads 1e-5 as a string; a shipped file says 1.0e-5."""
    values = yaml.safe_load(path.read_text("utf-8"))
    for name in ("learning_rate", "beta", "temperature", "warmup_ratio", "gamma"):
        assert isinstance(values.get(name, 0.0), float), name


@pytest.mark.parametrize("path", [path for path in RECIPES if path.name == "prm.yaml"], ids=ids)
def test_the_loss_fits_the_labels(path: Path) -> None:
    kind = (yaml.safe_load((path.parent / "recipe.yaml").read_text("utf-8")).get("labels") or {}).get(
        "kind", "monte_carlo"
    )
    wanted = {"monte_carlo": "soft_bce", "shaping": "soft_bce", "preferences": "bradley_terry", "inverse": "inverse"}
    loss = yaml.safe_load(path.read_text("utf-8"))["loss"]
    assert loss in ROWS
    assert loss == wanted[kind]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("deepspeed/*.yaml")), ids=ids)
def test_accelerate_configurations(path: Path) -> None:
    values = yaml.safe_load(path.read_text("utf-8"))
    assert values["deepspeed_config"]["zero_stage"] == int(path.stem[-1])
    assert values["mixed_precision"] == "bf16"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_batches_are_what_the_paper_has(folder: Path) -> None:
    if not folder.name.startswith("alfworld"):
        return
    batches = {}
    for name in STAGE:
        values = yaml.safe_load((folder / name).read_text("utf-8"))
        processes = yaml.safe_load((ROOT / values["accelerate_config"]).read_text("utf-8"))["num_processes"]
        batches[name] = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] * processes
    prm = 384 if folder.name.endswith("inverse") else 128
    assert batches == {"sft.yaml": 64, "prm.yaml": prm, "online_dpo.yaml": 60}


def test_the_host_s_own_parser_reads_them_all(checkout: Path) -> None:
    program = """
import sys
from importlib import import_module
from pathlib import Path
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    stage = {"sft": "sft", "prm": "reward_modeling", "online_dpo": "online_dpo"}[Path(name).stem]
    parsed = import_module(f"prm_gym.hosts.open_instruct.{stage}").parse(Path(name), {})
    print(name, [type(p).__name__ for p in parsed], parsed[0].push_to_hub, parsed[0].learning_rate)
"""
    command = [HOST_PYTHON, "-c", program, str(checkout), *map(str, RECIPES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith(str(ROOT))]
    assert len(lines) == len(RECIPES)
    assert all(" False " in line for line in lines)  # nothing goes to the hub unless the recipe says so


def test_the_recorded_fields_are_the_host_s(checkout: Path) -> None:
    program = """
import dataclasses, json, sys
sys.path.insert(0, sys.argv[1])
from open_instruct import dataset_processor, dataset_transformation, finetune, model_utils
from open_instruct import online_dpo_vllm_thread as online_dpo, reward_modeling
def names(*classes):
    return sorted({f.name for c in classes for f in dataclasses.fields(c) if f.init})
tokenizer, model = dataset_transformation.TokenizerConfig, model_utils.ModelConfig
found = {
    "sft": names(finetune.FlatArguments, tokenizer),
    "reward_modeling": names(reward_modeling.Args, tokenizer, model),
    "online_dpo": names(online_dpo.Args, dataset_processor.DatasetConfig, model),
}
open(sys.argv[2], "w").write(json.dumps(found))
"""
    import tempfile

    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [HOST_PYTHON, "-c", program, str(checkout), file.name]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        assert json.load(file) == json.loads((Path(__file__).parent / "fields.json").read_text())


def test_the_command_line() -> None:
    words = ["reward_modeling", "prm.yaml", "--learning_rate", "1e-5", "--seed=3", "--push_to_hub", "false"]
    stage, recipe, overrides = parse_command_line(words)
    assert (stage, recipe) == ("reward_modeling", Path("prm.yaml"))
    assert overrides == {"learning_rate": "1e-5", "seed": 3, "push_to_hub": False}
    for wrong in ([], ["ppo", "prm.yaml"], ["sft", "a.yaml", "--seed"], ["sft", "a.yaml", "seed"]):
        with pytest.raises(UserError):
            parse_command_line(wrong)


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        ("1e-5", float, 1e-5), (1, float, 1.0), (4, int | None, 4), (None, int | None, None),
        ({"a": 1.0}, str, {"a": 1.0}), (["a"], list[str], ["a"]), (True, bool, True),
    ],
)  # fmt: skip
def test_types_that_fit(value: Any, hint: Any, wanted: Any) -> None:
    assert as_type(value, hint, "recipe", "field") == wanted


@pytest.mark.parametrize(
    ("value", "hint"),
    [("x", float), ("4", int | None), (1.5, int), (True, int), (None, int), ("no", bool), ("a", list[str])],
)
def test_types_that_do_not(value: Any, hint: Any) -> None:
    with pytest.raises(UserError, match="recipe: field: "):
        as_type(value, hint, "recipe", "field")
