"""The launcher: `python -m prm_gym.hosts.open_instruct STAGE RECIPE.yaml [--field value]`; see `parse_command_line`.

On several GPUs the same after `accelerate launch --config_file recipes/deepspeed/zero2.yaml -m`. The checkout is found
through OPEN_INSTRUCT.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct import arguments
from prm_gym.hosts.open_instruct.prepare import environment_problems, require_prepared


def main(argv: Sequence[str]) -> None:
    stage, recipe, overrides = arguments.parse_command_line(argv)
    checkout = os.environ.get("OPEN_INSTRUCT")
    if not checkout:
        raise UserError("OPEN_INSTRUCT", "not set", "export OPEN_INSTRUCT=DIR, the checkout of open-instruct")
    sys.path.insert(0, str(require_prepared(checkout)))
    problems = environment_problems()
    if problems:
        raise UserError("this Python environment", "; ".join(problems), "install constraints-host.txt into it")
    import_module(f"prm_gym.hosts.open_instruct.{stage}").run(recipe, overrides)


if __name__ == "__main__":
    # The host's generation thread outlives an error in its main(): the process is ended here, whatever still runs.
    try:
        main(sys.argv[1:])
        status = 0
    except UserError as error:
        print(error, file=sys.stderr)
        status = 2
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)
