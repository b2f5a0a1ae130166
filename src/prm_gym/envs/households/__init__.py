"""Generate household games in alfworld's own format, from the files of the alfworld package, without a download.

    draw a game (splits, sampling, floorplans, catalog) -> prove that it can be won (plans) -> write it (pddl, writer)

`prm-gym games` calls `generate`. Left out: the parts of a real ALFWorld download beyond text (images, low-level plans,
human annotations), and tasks with movable receptacles or slicing, which alfworld leaves out as well.
"""

from __future__ import annotations

from prm_gym.envs.households.writer import generate

__all__ = ["generate"]
