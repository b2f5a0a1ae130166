"""Launch the hosts (training frameworks): the command that runs one stage on one filled-in YAML file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from prm_gym.config import read_yaml
from prm_gym.errors import UserError
from prm_gym.hosts.accelerate_launch import filled_words, launch_command
from prm_gym.hosts.training_process import end_with_parent
from prm_gym.quiet import training_environment

MODULES = {"trl": "prm_gym.hosts.trl", "open-instruct": "prm_gym.hosts.open_instruct"}
_STAGES = {
    "sft": "sft",
    "prm": "prm",
    "online_dpo": "online_dpo",
    "policy_gradient": "policy_gradient",
    "rejection_sampling": "sft",
    "dagger": "sft",
}
STAGES = {"trl": _STAGES, "open-instruct": {**_STAGES, "prm": "reward_modeling"}}


def check(host: str, files: Mapping[str, Path]) -> None:
    """Raise `UserError` if something that `host` needs is missing, before the hours of Stage 1, or for a key that the
    host does not know in one of `files`, the YAML of each stage, or an input that TRL lacks there.
    """
    if host == "trl" and find_spec("trl") is not None:
        from prm_gym.hosts.trl import arguments

        for stage, file in files.items():
            arguments.check(STAGES[host][stage], file)
            arguments.check_inputs(STAGES[host][stage], file)
    if host != "open-instruct":
        return
    from prm_gym.hosts.open_instruct import arguments as host_arguments
    from prm_gym.hosts.open_instruct.prepare import require_prepared

    checkout = os.environ.get("OPEN_INSTRUCT")
    if not checkout:
        raise UserError("OPEN_INSTRUCT", "not set", "name the checkout: make iter ... OPEN_INSTRUCT=DIR")
    require_prepared(checkout, *STAGES[host].values())
    for stage, file in files.items():
        host_arguments.check(STAGES[host][stage], file, Path(checkout))
    python = _python(host)
    if shutil.which(python) is None:
        remedy = "make iter HOST=open-instruct makes one, or name the Python that runs open-instruct"
        raise UserError("PRM_GYM_HOST_PYTHON", f"no interpreter {python}", remedy)


@dataclass(frozen=True)
class Machines:
    """Where a stage is trained: in `processes` processes on each of `nodes` machines.

    `launcher` (srun, a script) comes before the command and starts it, for several nodes once on each. It runs in a
    shell's quoting with environment variables filled in.
    """

    processes: int = 1
    nodes: int = 1
    launcher: str = ""

    @property
    def words(self) -> list[str]:
        """The launcher's words. Raises `UserError` for a variable that is not set."""
        return filled_words(self.launcher, os.environ, "stages.launcher")


def command(
    host: str,
    stage: str,
    config: Path,
    machines: Machines = Machines(),
    out: Path | None = None,
    accelerate_config: str | None = None,
) -> list[str]:
    """The command line of `stage` (a key of `STAGES`) on `host`, behind the launcher. It resumes from the last
    whole checkpoint in `out`. `accelerate_config` is that of open-instruct's YAML.

    Several nodes meet at MASTER_ADDR and MASTER_PORT, by default this machine and 29500. A host with its own
    environment runs in the interpreter PRM_GYM_HOST_PYTHON.
    """
    address, port = os.environ.get("MASTER_ADDR") or socket.gethostname(), os.environ.get("MASTER_PORT") or "29500"
    arguments = [str(config)] if host == "open-instruct" else ["--config", str(config)]
    module = ["-m", MODULES[host], STAGES[host][stage], *arguments]
    if accelerate_config and machines.nodes > 1:
        processes = machines.nodes * int(read_yaml(accelerate_config).get("num_processes", machines.processes))
        given = [f"--num_machines={machines.nodes}", f"--num_processes={processes}", "--machine_rank=$NODE_RANK"]
        given += [f"--main_process_ip={address}", f"--main_process_port={port}"]
        module += ["--accelerate_arguments", " ".join(given)]
    elif machines.nodes > 1:
        meeting = ["--rdzv-backend=c10d", f"--rdzv-id={stage}", f"--rdzv-endpoint={address}:{port}"]
        spread = [f"--nnodes={machines.nodes}", f"--nproc-per-node={machines.processes}", *meeting]
        module = ["-m", "torch.distributed.run", *spread, *module]
    elif machines.processes > 1:
        module = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={machines.processes}", *module]
    if host == "trl" and out and (last := _last_checkpoint(out)):  # open-instruct finds them itself
        module += ["--resume_from_checkpoint", str(last)]
    return [*machines.words, _python(host), *module]


def _last_checkpoint(out: Path) -> Path | None:
    """The last whole one: transformers writes trainer_state.json at its end."""

    def is_whole(checkpoint: Path) -> bool:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return True

    found = [path for path in out.glob("checkpoint-*") if path.name[11:].isdecimal() and is_whole(path)]
    return max(found, key=lambda path: int(path.name[11:]), default=None)


def on_nodes(command: list[str], machines: Machines, accelerate_config: str | None = None) -> list[list[str]]:
    """What `command` runs on each node, without the launcher."""
    program = command[len(machines.words) :]
    if accelerate_config is None:
        return [program] * machines.nodes
    python, _, _, *arguments = program  # python -m prm_gym.hosts.open_instruct ...
    given = ""
    if "--accelerate_arguments" in arguments:
        place = arguments.index("--accelerate_arguments")
        given = arguments[place + 1]
    environments = ({"NODE_RANK": str(rank)} for rank in range(machines.nodes))
    return [launch_command(python, arguments, accelerate_config, given, each) for each in environments]


def _python(host: str) -> str:
    return sys.executable if host == "trl" else os.environ.get("PRM_GYM_HOST_PYTHON", sys.executable)


def launch(
    host: str,
    stage: str,
    config: Path,
    out: Path,
    machines: Machines = Machines(),
    accelerate_config: str | None = None,
) -> None:
    """Run `stage` on `machines` and wait for it. It resumes from the last checkpoint in `out`, if any.

    Raises `UserError` with the exit status if the stage fails. Ctrl-C also interrupts the stage, and on Linux it is
    killed with this process; a launcher gets SIGTERM both times, to end what it has started elsewhere. Call from the
    main thread, since the stage ends with the thread that started it.
    """
    arguments = command(host, stage, config, machines, out, accelerate_config)
    ends_with = signal.SIGTERM if machines.launcher else signal.SIGKILL
    try:
        process = subprocess.Popen(
            arguments, env=training_environment(), preexec_fn=partial(end_with_parent, ends_with)
        )
    except OSError as error:
        raise UserError(config, f"{arguments[0]}: {error.strerror}", "correct stages.launcher") from error
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM if machines.launcher else signal.SIGINT)
        process.wait()
        raise
    if status:
        problem = f"{stage} on {host} ended with exit status {status}"
        begins_again = host == "open-instruct" and stage == "prm"  # its script writes no checkpoint
        goes_on = "begins this stage again" if begins_again else "goes on from the last checkpoint"
        raise UserError(config, problem, f"see its output above; the same command {goes_on}")
