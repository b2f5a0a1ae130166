"""results.json: a list with one entry for each evaluation, whatever its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prm_gym.atomic import locked, write_json
from prm_gym.errors import UserError
from prm_gym.provenance import differences

KEY = ("policy", "prm", "mode", "split", "seed")
_SHOWN = ("games", "success", "ci95", "actions", "by_task_type")
# The settings that tell apart entries of one KEY, and how a table shows them. Entries of older versions lack them.
CONDITIONS = {
    "prompt": "prompt {}",
    "temperature": "T {:g}",
    "max_new_tokens": "{} tokens",
    "max_episode_steps": "{} steps",
    "shots": "{} shots",
    "search": "search {}",
    "games_fingerprint": "games {:.8}",
}


def read_results(path: Path) -> list[dict[str, Any]]:
    """The entries of a results.json; none if there is no such file. Raises `UserError` if it is not one."""
    if not path.exists():
        return []
    try:
        results = json.loads(path.read_text("utf-8"))
        if not isinstance(results, list):
            raise TypeError("not a list")
        for entry in results:
            if missing := {*KEY, *_SHOWN} - entry.keys():
                raise ValueError(f"an entry lacks {min(missing)}")
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(path, f"not a results file ({error})", "move it away") from None
    return results


def add_result(path: Path, result: dict[str, Any], *, keep_larger: bool = False) -> None:
    """Add `result` to the list in `path`, in place of the entry of the same `KEY` and `CONDITIONS`.

    With `keep_larger`, an entry of more games under the same settings (the same model, above all) stays instead.
    """
    fields = (*KEY, *CONDITIONS)
    with locked(path.with_name(f".{path.name}.lock")):  # another evaluation may end at the same time
        results = read_results(path)
        same = [entry for entry in results if all(entry.get(field) == result.get(field) for field in fields)]
        larger = [entry for entry in same if keep_larger and entry["games"] > result["games"]]
        if all(any(differences(entry.get("settings"), result.get("settings"))) for entry in larger):
            write_json(path, [*(entry for entry in results if entry not in same), result])


def has_returns(entry: Mapping[str, Any]) -> bool:
    """Whether an entry's mean return says more than its success; entries of older versions have none."""
    return abs(float(entry.get("return", entry["success"])) - float(entry["success"])) > 1e-6
