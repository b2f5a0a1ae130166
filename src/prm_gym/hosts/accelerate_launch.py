"""The command line of `accelerate launch` on one node, for an open-instruct stage with an `accelerate_config`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from prm_gym.errors import UserError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def launch_command(
    python: str, argv: Sequence[str], config: str, given: str, environment: Mapping[str, str]
) -> list[str]:
    """`accelerate launch` of the host's module with its arguments `argv`, in the interpreter `python`.

    `given` are further arguments of accelerate (--num_machines, --machine_rank, --deepspeed_hostfile, ...), with the
    node's environment variables filled in. $NODE_RANK is Slurm's SLURM_NODEID where nothing else sets it. Raises
    `UserError` for a variable that is not set.
    """
    rank = {"NODE_RANK": environment["SLURM_NODEID"]} if "SLURM_NODEID" in environment else {}
    words = filled_words(given, {**rank, **environment}, "accelerate_arguments")
    launcher = [python, "-m", "accelerate.commands.launch", "--config_file", config, *words]
    return [*launcher, "-m", "prm_gym.hosts.open_instruct", *argv]


def filled_words(text: str, environment: Mapping[str, str], where: str) -> list[str]:
    """The words of `text`, in a shell's quoting, with $VARIABLE and ${VARIABLE} filled in."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in environment:
            raise UserError(where, f"the variable {name} is not set", "set it on every node, or write the value")
        return environment[name]

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(where, f"{text!r} ({error})", "close the quotation") from None
    return [_VARIABLE.sub(value, word) for word in words]
