"""Household games in alfworld's own format, generated from what the alfworld package ships, with nothing downloaded.

    games are drawn (splits, sampling, floorplans, catalog) -> proved (proof) -> written (pddl, writer)

`generate` is what `prm-gym games` calls. Left out: what a real ALFWorld download has beyond text (images, low-level
plans, human annotations), movable-receptacle and slicing tasks, which alfworld leaves out as well.
"""

from __future__ import annotations

from prm_gym.envs.households.writer import generate

__all__ = ["generate"]
