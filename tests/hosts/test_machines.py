"""Training on several machines: what the launcher gets, and what accelerate gets on each node."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from prm_gym import hosts
from prm_gym.errors import UserError
from prm_gym.hosts import Machines
from prm_gym.hosts.accelerate_launch import launch_command

ROOT = Path(__file__).parents[2]
ZERO3 = str(ROOT / "recipes" / "deepspeed" / "zero3.yaml")  # of one machine with four processes


@pytest.fixture(autouse=True)
def meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "head")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    monkeypatch.delenv("PRM_GYM_HOST_PYTHON", raising=False)


def options_of(words: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word)


def test_accelerate_gets_the_machines_and_each_node_its_rank() -> None:
    machines = Machines(nodes=2, launcher="srun --ntasks-per-node=1")
    command = hosts.command("open-instruct", "prm", Path("prm.yaml"), machines, accelerate_config=ZERO3)
    assert command[:3] == ["srun", "--ntasks-per-node=1", sys.executable]
    assert command[3:7] == ["-m", "prm_gym.hosts.open_instruct", "reward_modeling", "prm.yaml"]
    for rank, words in enumerate(hosts.on_nodes(command, machines, ZERO3)):
        assert words[:5] == [sys.executable, "-m", "accelerate.commands.launch", "--config_file", ZERO3]
        assert options_of(words[: words.index("prm_gym.hosts.open_instruct")]) == {
            "num_machines": "2",
            "num_processes": "8",
            "machine_rank": str(rank),
            "main_process_ip": "head",
            "main_process_port": "29500",
        }


def test_accelerate_understands_it() -> None:
    """accelerate's own parser and its config file: the values that reach torch's launcher."""
    launch = pytest.importorskip("accelerate.commands.launch")
    machines = Machines(nodes=2, launcher="srun")
    command = hosts.command("open-instruct", "sft", Path("sft.yaml"), machines, accelerate_config=ZERO3)
    words = hosts.on_nodes(command, machines, ZERO3)[1]
    args, *_ = launch._validate_launch_command(launch.launch_command_parser().parse_args(words[3:]))
    assert (args.num_machines, args.num_processes, args.machine_rank) == (2, 8, 1)
    assert (args.main_process_ip, args.main_process_port, args.use_deepspeed) == ("head", 29500, True)
    assert args.deepspeed_multinode_launcher == "standard"
    assert args.training_script == "prm_gym.hosts.open_instruct"


def test_the_node_s_variables_are_filled_in_there() -> None:
    given = "--machine_rank $NODE_RANK --deepspeed_hostfile '${HOME}/my hosts'"
    words = launch_command("python", ["sft", "x.yaml"], "c.yaml", given, {"SLURM_NODEID": "3", "HOME": "/h"})
    assert words[5:9] == ["--machine_rank", "3", "--deepspeed_hostfile", "/h/my hosts"]
    assert launch_command("python", [], "c", "$NODE_RANK", {"SLURM_NODEID": "3", "NODE_RANK": "1"})[5] == "1"
    with pytest.raises(UserError, match="accelerate_arguments: the variable NODE_RANK is not set; set it on every"):
        launch_command("python", [], "c", given, {})


@pytest.mark.parametrize("broken", [["trainer_state.json"], []])
def test_training_goes_on_from_the_last_whole_checkpoint(tmp_path: Path, broken: list[str]) -> None:
    """transformers writes trainer_state.json last; a kill may leave half of it."""
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step < 12:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text('{"global_step": 1}')
    for name in broken:
        (tmp_path / "checkpoint-12" / name).write_text('{"global_st')
    command = hosts.command("trl", "prm", Path("prm.yaml"), out=tmp_path)
    assert command[-2:] == ["--resume_from_checkpoint", str(tmp_path / "checkpoint-10")]


def test_an_open_quotation_is_named() -> None:
    with pytest.raises(UserError, match=r"stages.launcher: 'srun \"x' \(No closing quotation\); close the quotation"):
        hosts.command("trl", "prm", Path("prm.yaml"), Machines(launcher='srun "x'))


def test_a_launcher_of_the_user_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUS", "4")
    machines = Machines(launcher="torchrun --nproc-per-node=$GPUS --no-python")
    command = hosts.command("trl", "sft", Path("sft.yaml"), machines)
    alone = hosts.command("trl", "sft", Path("sft.yaml"))
    assert command == ["torchrun", "--nproc-per-node=4", "--no-python", *alone]
    assert hosts.on_nodes(command, machines) == [alone]


def test_torch_meets_at_one_address() -> None:
    machines = Machines(processes=4, nodes=3, launcher="srun")
    words = hosts.command("trl", "prm", Path("prm.yaml"), machines)
    place = words.index("prm_gym.hosts.trl")
    parser = pytest.importorskip("torch.distributed.run").get_args_parser()
    args = parser.parse_args(words[4 : place + 1])
    assert (args.nnodes, args.nproc_per_node, args.rdzv_backend, args.rdzv_endpoint) == ("3", "4", "c10d", "head:29500")
    assert args.module
    assert args.training_script == "prm_gym.hosts.trl"


def test_a_launcher_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no-srun: No such file or directory; correct stages\.launcher"):
        hosts.launch("trl", "sft", tmp_path / "sft.yaml", tmp_path, Machines(launcher="no-srun"))


# As srun does with --nodes=2: the command once for each node, here on one machine.
SRUN = """#!/bin/sh
SLURM_NODEID=0 "$@" & one=$!
SLURM_NODEID=1 "$@" & two=$!
trap 'kill $one $two' TERM
wait $one && wait $two
"""


@pytest.mark.slow
def test_two_nodes_train_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of torch's launchers find each other and train on TRL; rank 0 alone writes the checkpoint."""
    pytest.importorskip("trl", reason="needs the extra 'trl'")
    import yaml
    from datasets import Dataset

    from prm_gym.hosts.tiny_model import make_tiny_model
    from prm_gym.inference.replicas import free_ports

    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(free_ports(1)[0]))
    make_tiny_model(tmp_path / "model", ["You see a desk. look"] * 20, hidden_size=16, layers=1, heads=1)
    said = {"prompt": [{"role": "user", "content": "You see a desk."}]}
    said["completion"] = [{"role": "assistant", "content": "look"}]
    rows = [{**said, "target": i % 2, "count": 1, "game_id": str(i)} for i in range(16)]
    for split in ("train", "test"):
        (tmp_path / "data").mkdir(exist_ok=True)
        Dataset.from_list(rows).to_parquet(tmp_path / "data" / f"{split}-0.parquet")
    config = {
        "model_name_or_path": str(tmp_path / "model"),
        "dataset_name": str(tmp_path / "data"),
        "output_dir": str(tmp_path / "out"),
        "loss": "soft_bce",
        "max_length": 64,
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "save_steps": 1,
        "report_to": "none",
        "eval_strategy": "no",
    }
    (tmp_path / "prm.yaml").write_text(yaml.safe_dump(config))
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    (tmp_path / "out").mkdir()
    launcher = shlex.quote(str(srun))
    hosts.launch("trl", "prm", tmp_path / "prm.yaml", tmp_path / "out", Machines(nodes=2, launcher=launcher))
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    assert state["epoch"] == pytest.approx(2 * 2 * 2 / 16), "four groups a step, two of each node"
