"""Assign tasks to splits.

`valid_unseen` has alfworld's own test floor plans, and target-goal pairs that are in no other split. `valid_seen` has
the floor plans and the target-goal pairs of `train`, but other tasks: each task in a floor plan is in one of the two.
The split depends on a hash of the names alone, so it is the same for all seeds and sizes.
"""

from __future__ import annotations

import random
from functools import cache
from hashlib import blake2b

from prm_gym.envs.households.catalog import catalog
from prm_gym.envs.households.household import Task
from prm_gym.envs.households.sampling import tasks

_UNSEEN_PAIRS, _SEEN_TASKS = 0.25, 0.15  # shares of the pairs, and of the tasks in a floor plan, that are held out


def split_of(number: int, task: Task) -> str | None:
    """The split of a task in a floor plan; None if the floor plan and the pair belong to different splits."""
    unseen = number in catalog().unseen_scenes
    if (_share(task.target, task.goal) < _UNSEEN_PAIRS) != unseen:
        return None
    if unseen:
        return "valid_unseen"
    return "valid_seen" if _share(str(number), task.type, task.target, task.goal) < _SEEN_TASKS else "train"


def draw_task(split: str, task_type: str, rng: random.Random) -> tuple[int, Task]:
    """A floor plan and a task of the split: room, floor plan, target and goal are each drawn uniformly in turn."""
    by_room = _tasks(split, task_type)
    by_plan = by_room[rng.choice(sorted(by_room))]
    number = rng.choice(sorted(by_plan))
    target = rng.choice(sorted({task.target for task in by_plan[number]}))
    return number, rng.choice([task for task in by_plan[number] if task.target == target])


@cache
def _tasks(split: str, task_type: str) -> dict[str, dict[int, list[Task]]]:
    """room -> floor plan -> tasks, without empty entries."""
    found: dict[str, dict[int, list[Task]]] = {}
    for room, numbers in catalog().scenes.items():
        for number in numbers:
            here = [task for task in tasks(number, task_type) if split_of(number, task) == split]
            if here:
                found.setdefault(room, {})[number] = here
    return found


def _share(*names: str) -> float:
    """A number in [0, 1) that depends on the names alone."""
    return int.from_bytes(blake2b("|".join(names).encode(), digest_size=6).digest(), "big") / 2**48
