"""What would end a run hours after its start: a full disk, prompts over a context or a limit, a taken port.

Everything else that would fail (a version, an option, a host) fails in the probe already, which runs every stage.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

from prm_gym.errors import UserError
from prm_gym.runs.forecast import Forecast, free_disk
from prm_gym.runs.iteration import Run

_LIMITS = ("max_length", "max_token_length", "max_prompt_token_length", "max_seq_length")


def problems(iteration: Run, found: Forecast) -> list[UserError]:
    """The problems of an iteration, each with its remedy."""
    return [*_disk(iteration, found), *_lengths(iteration, found), *_ports(iteration)]


def longest_prompt(prompts: dict[int, int], turns: int) -> int:
    """Tokens of the longest prompt of an episode of `turns` actions: as seen, or by the largest growth in a turn.

    >>> longest_prompt({0: 100, 1: 130, 2: 150}, 3)
    150
    >>> longest_prompt({0: 100, 1: 130, 2: 150}, 5)
    210
    """
    if not prompts:
        return 0
    last = max(prompts)
    growth = max((prompts[t] - prompts[t - 1] for t in prompts if t - 1 in prompts), default=0)
    return max(prompts.values()) + max(0, turns - 1 - last) * growth


def _disk(iteration: Run, found: Forecast) -> Iterator[UserError]:
    needed, free = sum(each.size for each in found.stages), free_disk(iteration.root)
    if needed > free:
        problem = f"{needed / 1e9:,.1f} GB will be written, {free / 1e9:,.1f} GB are free"
        yield UserError(iteration.root, problem, "free space, choose another run folder, or keep fewer checkpoints")


def _lengths(iteration: Run, found: Forecast) -> Iterator[UserError]:
    r, file = iteration.recipe, iteration.folder / "recipe.yaml"
    longest, turns = longest_prompt(found.prompts, r.max_episode_steps), r.max_episode_steps
    with_response = longest + r.sampling.max_new_tokens
    if found.context is not None and with_response > found.context:
        problem = f"turn {turns} may have {longest} prompt and {r.sampling.max_new_tokens} response tokens"
        remedy = f"serve it with a longer context than {found.context}, or take fewer steps or a shorter prompt"
        yield UserError(file, problem, remedy, field="max_episode_steps")
    for each in found.stages:
        config: dict[str, Any] = each.stage.settings.get("config", {})
        if each.stage.cost.trains not in ("", "sft"):
            for key in _LIMITS:
                if key in config and int(config[key]) < longest:
                    problem = f"{key} is {config[key]}; prompts of turn {turns} may have {longest} tokens"
                    remedy = "raise it, or longer rows are left out or cut"
                    yield UserError(file, problem, remedy, field=f"stages.{each.stage.cost.trains}")


def _ports(iteration: Run) -> Iterator[UserError]:
    if iteration.recipe.stages.nodes < 2:
        return
    named = os.environ.get("MASTER_PORT") or "29500"
    if not named.isdecimal():
        yield UserError("MASTER_PORT", f"{named!r} is no number", "export another")
        return
    port = int(named)
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError as error:
            yield UserError("MASTER_PORT", f"{port} is taken ({error.strerror})", "export another")
