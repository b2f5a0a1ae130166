"""Launch the hosts (training frameworks): the command that runs one stage on one filled-in YAML file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from prm_gym.errors import UserError
from prm_gym.hosts.training_process import end_with_parent
from prm_gym.quiet import training_environment

MODULES = {"trl": "prm_gym.hosts.trl", "open-instruct": "prm_gym.hosts.open_instruct"}
STAGES = {
    "trl": {"sft": "sft", "prm": "prm", "online_dpo": "online_dpo"},
    "open-instruct": {"sft": "sft", "prm": "reward_modeling", "online_dpo": "online_dpo"},
}


def check(host: str) -> None:
    """Raise `UserError` if something that `host` needs is missing, before the hours of Stage 1."""
    if host != "open-instruct":
        return
    from prm_gym.hosts.open_instruct.prepare import require_prepared

    checkout = os.environ.get("OPEN_INSTRUCT")
    if not checkout:
        raise UserError("OPEN_INSTRUCT", "not set", "name the checkout: make iter ... OPEN_INSTRUCT=DIR")
    require_prepared(checkout)
    python = _python(host)
    if shutil.which(python) is None:
        remedy = "make iter HOST=open-instruct makes one, or name the Python that runs open-instruct"
        raise UserError("PRM_GYM_HOST_PYTHON", f"no interpreter {python}", remedy)


def command(host: str, stage: str, config: Path, processes: int = 1, out: Path | None = None) -> list[str]:
    """The command line of `stage` (sft, prm or online_dpo) on `host`. It resumes from the last checkpoint in `out`.

    A host with its own environment runs in the interpreter PRM_GYM_HOST_PYTHON.
    """
    arguments = [str(config)] if host == "open-instruct" else ["--config", str(config)]
    module = ["-m", MODULES[host], STAGES[host][stage], *arguments]
    if processes > 1:
        module = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *module]
    names = [] if out is None else [path.name for path in out.glob("checkpoint-*") if path.name[11:].isdigit()]
    if host == "trl" and out and names:  # open-instruct finds them itself
        last = max(names, key=lambda name: int(name[11:]))
        module += ["--resume_from_checkpoint", str(out / last)]
    return [_python(host), *module]


def _python(host: str) -> str:
    return sys.executable if host == "trl" else os.environ.get("PRM_GYM_HOST_PYTHON", sys.executable)


def launch(host: str, stage: str, config: Path, out: Path, processes: int = 1) -> None:
    """Run `stage` in `processes` processes and wait for it. It resumes from the last checkpoint in `out`, if any.

    Raises `UserError` with the exit status if the stage fails. Ctrl-C also interrupts the stage, and on Linux it is
    killed with this process. Call from the main thread, since the stage ends with the thread that started it.
    """
    arguments = command(host, stage, config, processes, out)
    process = subprocess.Popen(arguments, env=training_environment(), preexec_fn=end_with_parent)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    if status:
        problem = f"{stage} on {host} ended with exit status {status}"
        raise UserError(config, problem, "see its output above; the same command goes on from the last checkpoint")
