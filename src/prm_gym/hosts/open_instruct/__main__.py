"""The launcher: `python -m prm_gym.hosts.open_instruct STAGE RECIPE.yaml [--field value]`, for `arguments.STAGES`.

OPEN_INSTRUCT names the checkout. A recipe with an `accelerate_config` is restarted by `accelerate launch`, one process
per GPU.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from prm_gym.config import read_yaml
from prm_gym.errors import UserError
from prm_gym.hosts.accelerate_launch import launch_command
from prm_gym.hosts.open_instruct import arguments
from prm_gym.hosts.open_instruct.prepare import environment_problems, require_prepared
from prm_gym.hosts.training_process import end_with_parent, leave_process_group
from prm_gym.provenance.checkpoint_settings import READS, carry


def main(argv: Sequence[str]) -> None:
    stage, recipe, overrides = arguments.parse_command_line(argv)
    checkout = os.environ.get("OPEN_INSTRUCT")
    if not checkout:
        raise UserError("OPEN_INSTRUCT", "not set", "export OPEN_INSTRUCT=DIR, the checkout of open-instruct")
    problems = environment_problems(require_prepared(checkout, stage))
    sys.path.insert(0, str(Path(checkout).resolve()))
    if problems:
        raise UserError("this Python environment", "; ".join(problems), "pip install -r constraints-host.txt")
    accelerate(argv, recipe, overrides)
    use_cpu_if_there_is_no_gpu()
    import_module(f"prm_gym.hosts.open_instruct.{stage}").run(recipe, overrides)
    config = {**read_yaml(recipe), **overrides}
    if config.get("output_dir") and int(os.environ.get("RANK", 0)) == 0:
        carry(config, config["output_dir"], reads=READS if stage == "reward_modeling" else None)
    leave_process_group()


def accelerate(argv: Sequence[str], recipe: Path, overrides: Mapping[str, Any]) -> None:
    """Replace this process by `accelerate launch` if the recipe asks for it, unless that has started this process."""
    config = overrides.get("accelerate_config", read_yaml(recipe).get("accelerate_config"))
    if config is None or "LOCAL_RANK" in os.environ or "PRM_GYM_LAUNCHED" in os.environ:
        return
    arguments.check_accelerate_config(config, recipe)
    given = overrides.get("accelerate_arguments", read_yaml(recipe).get("accelerate_arguments"))
    command = launch_command(sys.executable, argv, str(config), given or "", os.environ)
    os.environ["PRM_GYM_LAUNCHED"] = "1"
    os.execv(sys.executable, command)


def use_cpu_if_there_is_no_gpu() -> None:
    """On a CPU, processes started by `torch.distributed.run` find each other only if accelerate is told."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")


if __name__ == "__main__":
    if "LOCAL_RANK" in os.environ:  # one of several processes, whose parent is torch's or accelerate's launcher
        end_with_parent()
    # The host's generation thread outlives an error in its main(), so the process is ended explicitly.
    status = 0
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)
