"""Every shipped YAML of this host: read by the host's parser with a checkout, against its recorded fields without."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from oi_world import HOST_PYTHON, ROOT

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct.arguments import OWN_FIELDS, as_type, check, known_fields, parse_command_line
from prm_gym.hosts.scored_rows import ROWS
from prm_gym.runs.recipe import load

STAGE = {
    "sft.yaml": "sft",
    "value.yaml": "reward_modeling",
    "prm.yaml": "reward_modeling",
    "online_dpo.yaml": "online_dpo",
    "policy_gradient.yaml": "policy_gradient",
    "rejection_sampling.yaml": "sft",
    "dagger.yaml": "sft",
}
DATASET = {"rejection_sampling": "rejection_sampling", "dagger": "dagger"}  # of Stage 3, else prompts
FOLDERS = [
    path.parent
    for path in sorted((ROOT / "recipes").glob("*/recipe.yaml"))
    if yaml.safe_load(path.read_text("utf-8"))["host"] == "open-instruct"
]
RECIPES = [folder / name for folder in FOLDERS for name in STAGE if (folder / name).exists()]


def ids(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def test_the_experiments_are_there() -> None:
    names = {folder.name for folder in FOLDERS}
    suffixes = ["", "-inverse", "-pairs", "-reset", "-steered", "-posterior", "-shaped", "-bon", "-slurm"]
    suffixes += ["-rejection", "-policy-gradient", "-dagger"]
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


ZERO = """
import json, os, sys
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env
from accelerate.utils import DeepSpeedPlugin
arguments = launch_command_parser().parse_args(["--config_file", sys.argv[1], "-m", "module"])
arguments, _, _ = _validate_launch_command(arguments)
arguments.deepspeed_fields_from_accelerate_config = ""  # `accelerate launch` sets it after this point
command, environment = prepare_deepspeed_cmd_env(arguments)
os.environ.update({name: value for name, value in environment.items() if name.startswith("ACCELERATE_")})
config = DeepSpeedPlugin().deepspeed_config
config.update(train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1)
from deepspeed.runtime.config import DeepSpeedConfig
config.pop("train_batch_size", None)
zero = DeepSpeedConfig({k: v for k, v in config.items() if v != "auto"}).zero_config
print(json.dumps({
    "stage": int(zero.stage), "processes": arguments.num_processes,
    "precision": environment["ACCELERATE_MIXED_PRECISION"],
    "whole weights saved": zero.gather_16bit_weights_on_model_save,
}))
"""


@pytest.mark.parametrize(("stage", "processes"), [(2, 3), (3, 4)])
def test_accelerate_and_deepspeed_read_them(checkout: Path, stage: int, processes: int) -> None:
    path = ROOT / "recipes" / "deepspeed" / f"zero{stage}.yaml"
    done = subprocess.run([HOST_PYTHON, "-c", ZERO, str(path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    wanted = {"stage": stage, "processes": processes, "precision": "bf16", "whole weights saved": stage == 3}
    assert found == wanted


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name.startswith("alfworld")], ids=lambda f: f.name)
def test_batches_are_what_the_paper_has(folder: Path) -> None:
    batches = {}
    for path in RECIPES:
        if path.parent != folder:
            continue
        values = yaml.safe_load(path.read_text("utf-8"))
        processes = yaml.safe_load((ROOT / values["accelerate_config"]).read_text("utf-8"))["num_processes"]
        processes *= yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))["stages"].get("nodes", 1)
        batches[path.name] = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] * processes
    prm = 384 if folder.name.endswith("inverse") else 128
    wanted = {"sft.yaml": 64, "value.yaml": 128, "prm.yaml": prm, "online_dpo.yaml": 60, "policy_gradient.yaml": 60}
    wanted |= {"rejection_sampling.yaml": 64, "dagger.yaml": 64}
    stages = load(folder).stages
    assert {stages.prm, *stages.of_policy.values()} - {None} <= set(batches)
    assert batches == {name: wanted[name] for name in batches}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_nothing_a_recipe_names_is_made_by_nobody(folder: Path) -> None:
    """What a stage reads is a stage's output of the same run, or of a command in the head of recipe.yaml."""
    made = {
        "base",
        "scratch",
        "demonstrations",
        "sft_dataset",
        "pi_{iter-1}",
        "iter{iter}/prm",
        "iter{iter}/dataset/prm",
    }
    made |= {"pi_0", "iter{iter}/policy"}
    text = (folder / "recipe.yaml").read_text("utf-8")
    head = text[: text.index("\nhost: ")]
    assert f"RECIPE=recipes/{folder.name} " in head
    values = yaml.safe_load(text)
    makes = {"demonstrations": "demonstrations", "scratch": "scratch", "model": "base"}
    stages = load(folder).stages
    made |= {f"iter{{iter}}/dataset/{DATASET.get(stage, 'prompts')}" for stage in stages.of_policy}
    made -= set() if stages.prm else {"iter{iter}/prm", "iter{iter}/dataset/prm"}
    made -= {name for key, name in makes.items() if not values["start"].get(key)}
    paths = [path for path in RECIPES if path.parent == folder]
    strings = [
        word for path in paths for word in re.findall(r"[\"\s\[{,]((?:\{run\}|runs)/[^\s\",\]]+)", path.read_text())
    ]
    strings += re.findall(r"[\"\s\[{,]((?:\{run\}|runs)/[^\s\",\]}]+)", text[len(head) :])
    assert len(strings) > (8 if stages.prm else 3)
    for word in strings:
        if word.startswith("{run}/"):
            assert word.removeprefix("{run}/") in made, word
        else:  # another run's, which the head makes: by a stage of `make iter`, a label, or one of these files
            outputs = [yaml.safe_load(path.read_text("utf-8"))["output_dir"] for path in paths]
            plain = re.sub(r"^runs/[\w.-]+/", "", word)
            assert f"--out {word}" in head or word in outputs or plain in made, word


def test_the_embedded_experiment_is_the_same_on_both_hosts() -> None:
    """All of recipe.yaml but the host, and in the hosts' files what both of them have a field for."""
    here, there = (ROOT / "recipes" / name for name in ("embedded-open-instruct", "embedded"))
    ours, theirs = (yaml.safe_load((folder / "recipe.yaml").read_text("utf-8")) for folder in (here, there))
    assert {**ours, "host": "trl"} == theirs
    for name in ("sft.yaml", "prm.yaml", "online_dpo.yaml"):
        ours, theirs = (yaml.safe_load((folder / name).read_text("utf-8")) for folder in (here, there))
        fields = {"model_name_or_path", "reward_model_path", "output_dir", "temperature", "beta", "seed"}
        assert {key: ours.get(key) for key in fields} == {key: theirs.get(key) for key in fields}, name


def test_shaping_without_its_value_model_says_so_before_stage_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prm_gym.runs.iteration import Run

    monkeypatch.setattr("prm_gym.hosts.check", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    run = Run(ROOT / "recipes" / "alfworld-llama3.2-3b-shaped", tmp_path / "run", 1)
    with pytest.raises(UserError, match="value_fn: no model of V_mu"):
        run.stages()
    config = tmp_path / "runs" / "alfworld-llama3.2-3b" / "value_model" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(UserError, match="whose values would be random"):
        run.stages()
    config.write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    assert [stage.name for stage in run.stages()][2:4] == ["rollouts of pi_0", "labels for Q_0"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_stages_of_each_recipe(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prm_gym.runs.iteration import Run

    monkeypatch.setattr("prm_gym.hosts.check", lambda *_: None)
    monkeypatch.setattr("prm_gym.runs.iteration.check_value_model", lambda folder: None)
    monkeypatch.setattr("prm_gym.runs.servers.Servers.check", lambda self: None)
    names = [stage.name for stage in Run(folder, tmp_path, 1).stages()]
    order = ["evaluation of pi_0", "rollouts of pi_0", "labels for Q_0", "Q_0"]
    order += {
        "rejection": ["best of 16 responses by Q_0", "pi_1 by rejection sampling"],
        "gradient": ["prompts for policy gradient", "pi_1 by policy gradient"],
        "dagger": ["labels of the expert for pi_1", "pi_1 by DAgger"],
    }.get(folder.name.split("-")[-1], ["prompts for online DPO", "pi_1 by online DPO"])
    order += ["evaluation of pi_1"]
    if folder.name.endswith("dagger"):
        order = [name for name in order if "Q_0" not in name]
        assert not any("Q_0" in name for name in names)
    assert [name for name in names if name in order] == order
    best_of = any(re.fullmatch(r"evaluation of Bo\d+\(pi_1, Q_0\)", name) for name in names)
    assert best_of == (folder.name.endswith("-bon") or folder.name.startswith(("embedded", "gemma")))
    with pytest.raises(UserError, match="run ITER=1 first"):
        Run(folder, tmp_path, 2).stages()


def test_a_host_that_is_not_there_is_missed_before_stage_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prm_gym.runs.iteration import Run

    run = Run(ROOT / "recipes" / "alfworld-llama3.2-3b", tmp_path, 1)
    monkeypatch.delenv("OPEN_INSTRUCT", raising=False)
    with pytest.raises(UserError, match="OPEN_INSTRUCT: not set"):
        run.stages()
    monkeypatch.setenv("OPEN_INSTRUCT", str(tmp_path))
    with pytest.raises(UserError, match="not a git checkout of open-instruct"):
        run.stages()


def test_the_host_s_interpreter_is_looked_for(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prm_gym import hosts

    hosts.check("trl", {})
    hosts.check("open-instruct", {})
    monkeypatch.setenv("PRM_GYM_HOST_PYTHON", "/nowhere/python")
    with pytest.raises(UserError, match="PRM_GYM_HOST_PYTHON: no interpreter /nowhere/python"):
        hosts.check("open-instruct", {})


def test_the_host_s_own_parser_reads_them_all(checkout: Path) -> None:
    program = """
import json, sys
from importlib import import_module
from pathlib import Path
sys.path.insert(0, sys.argv[1])
stages = json.loads(sys.argv[2])
for name in sys.argv[3:]:
    stage = stages[Path(name).name]
    parsed = import_module(f"prm_gym.hosts.open_instruct.{stage}").parse(Path(name), {})
    print(name, [type(p).__name__ for p in parsed], parsed[0].push_to_hub, parsed[0].learning_rate)
"""
    command = [HOST_PYTHON, "-c", program, str(checkout), json.dumps(STAGE), *map(str, RECIPES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
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
found["policy_gradient"] = found["online_dpo"]
open(sys.argv[2], "w").write(json.dumps(found))
"""
    import tempfile

    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [HOST_PYTHON, "-c", program, str(checkout), file.name]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        assert json.load(file) == json.loads((Path(__file__).parent / "fields.json").read_text())


@pytest.mark.parametrize("stage", ["sft", "reward_modeling", "online_dpo", "policy_gradient"])
def test_the_fields_are_known_without_the_host_s_environment(checkout: Path, stage: str) -> None:
    recorded = json.loads((Path(__file__).parent / "fields.json").read_text())[stage]
    assert known_fields(stage, checkout) == sorted({*recorded, *(name for name, _, _ in OWN_FIELDS[stage])})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("max_token_lenght", 9, "prm.yaml: max_token_lenght: unknown key; did you mean 'max_token_length'"),
        ("accelerate_config", "nope.yaml", "prm.yaml: accelerate_config: no file nope.yaml"),
    ],
)
def test_a_mistake_in_a_file_is_named_before_stage_1(
    checkout: Path, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    folder = ROOT / "recipes" / "embedded-open-instruct"
    values = yaml.safe_load((folder / "prm.yaml").read_text())
    (tmp_path / "prm.yaml").write_text(yaml.safe_dump({**values, key: value}))
    with pytest.raises(UserError, match=said):
        check("reward_modeling", tmp_path / "prm.yaml", checkout)


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
