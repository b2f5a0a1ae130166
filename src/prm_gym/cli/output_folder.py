"""The guard of output folders: a command adds to nothing that a command of another kind wrote."""

from __future__ import annotations

from pathlib import Path

from prm_gym.envs.games import SPLITS
from prm_gym.errors import UserError

# What a folder holds, by a file or folder in it, else by the "kind" of its provenance.json.
_BY_ENTRY = {
    **dict.fromkeys(("households.json", "json_2.1.1", *SPLITS), "games"),
    "recipe.yaml": "a recipe",
    "config.json": "a model",
    "results.json": "evaluations",
}
_BY_KIND = {
    "collect": "episodes",
    "branch": "episodes",
    "labels": "a dataset",
    "training": "a model",
    "model": "a model",
}


def refuse_others(out: Path, kind: str = "") -> None:
    """Raise `UserError` if the folder `out` holds something of another kind than `kind`."""
    from prm_gym import provenance

    record = provenance.read(out)
    found = [name for entry, name in _BY_ENTRY.items() if (out / entry).exists()]
    if record is not None and (name := _BY_KIND.get(str(record["settings"].get("kind")))):
        found.append(name)
    for name in found:
        if name != kind:
            raise UserError(out, f"holds {name} already", "name another folder")
