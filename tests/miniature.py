"""The embedded recipe, or another, with a handful of games and steps."""

import shutil
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parent.parent / "recipes"


def write_miniature(folder: Path, *, recipe: str = "embedded", processes: int = 1) -> Path:
    shutil.copytree(RECIPES / recipe, folder)
    values: dict[str, Any] = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["games"]["splits"] = {"train": 18, "valid_seen": 4, "valid_unseen": 6}
    start = values["start"]
    for kind in start.keys() & {"demonstrations", "exploring"}:
        start[kind].update(games=18, rollouts_per_game=1, random_actions=0.0, mistakes=0.0)
    if "scratch" in start:
        start["scratch"] = {"hidden_size": 32, "layers": 1, "heads": 2}
    else:
        start["model"] = str(RECIPES.parent / start["model"])
    values["sampling"]["processes"] = processes
    values["max_episode_steps"] = 12
    values["rollouts"].update(games=6, per_game=2)
    values["branches"] = {"states_per_episode": 1, "actions": 2, "continuations": 2}
    values["labels"] = {"kind": "monte_carlo", "prompts": {"size": 20}}
    values["quality"] = {"games": 2, "branches": values["branches"]}
    values["stages"]["processes"] = 1
    values["evaluation"].update(games=3, best_of=[2, {"n": 2, "weight": 1, "among": "admissible"}])
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    for file in folder.glob("*.yaml"):
        if file.name == "recipe.yaml":
            continue
        host = yaml.safe_load(file.read_text())
        host.update(max_steps=2, per_device_train_batch_size=4, save_steps=1)
        if file.name == "prm.yaml":
            host.update(loss="soft_bce")  # so few games may have no pair of actions
        file.write_text(yaml.safe_dump(host))
    return folder
