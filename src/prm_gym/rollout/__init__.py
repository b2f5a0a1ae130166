"""Asynchronous collection: every episode advances independently, and the policy batches the requests.

`collect` plays games from their start. `branch` continues from states of collected episodes. Both write whole episodes
into a store folder, and a stopped run resumes. `rollout` and `rollout_branches` are the same for callers without an
event loop.
"""

from __future__ import annotations

from prm_gym.rollout.branch import branch, rollout_branches
from prm_gym.rollout.collect import collect, draw_games, rollout, settings_of
from prm_gym.rollout.monitoring import Summary
from prm_gym.rollout.processes import in_processes
from prm_gym.rollout.ray_shares import on_ray

__all__ = [
    "Summary",
    "branch",
    "collect",
    "draw_games",
    "in_processes",
    "on_ray",
    "rollout",
    "rollout_branches",
    "settings_of",
]
