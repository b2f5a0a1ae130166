"""`python -m prm_gym.hosts.trl STAGE --config FILE.yaml [--field value ...]`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from prm_gym.errors import UserError, run_program
from prm_gym.hosts.training_process import end_with_parent, leave_process_group

STAGES = ("sft", "prm", "online_dpo", "policy_gradient")


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in STAGES:
        given = f"unknown stage {arguments[0]}" if arguments else "no stage"
        raise UserError("prm_gym.hosts.trl", given, f"name one of {', '.join(STAGES)}")
    stage, rest = arguments[0], arguments[1:]
    try:
        import trl  # noqa: F401
    except ImportError:
        raise UserError("prm_gym.hosts.trl", "TRL is not installed", "pip install 'prm-gym[trl]'") from None
    if "--config" in rest[:-1]:
        import_module("prm_gym.hosts.trl.arguments").check(stage, Path(rest[rest.index("--config") + 1]))
    import_module("prm_gym.hosts.trl.progress").install()
    import_module(f"prm_gym.hosts.trl.{stage}").main(rest)
    leave_process_group()


if __name__ == "__main__":
    if "LOCAL_RANK" in os.environ:  # one of several processes, whose parent is torch's or accelerate's launcher
        end_with_parent()
    run_program(lambda: main(sys.argv[1:]))
