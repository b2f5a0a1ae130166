"""The entries of results.json for the report: checked, seeds pooled, matched with their episodes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.evaluation.intervals import wilson
from prm_gym.evaluation.results_file import CONDITIONS
from prm_gym.evaluation.results_table import told_apart
from prm_gym.report.episode_summaries import Store

Entry = dict[str, Any]
_KEY = ("policy", "prm", "mode", "split")
_UNKNOWN = (None,) * len(CONDITIONS)


def checked(path: Path, entry: Entry) -> Entry:
    """An entry with the types that the report expects. Raises `UserError` if it cannot be converted."""
    try:
        by_type = {
            str(kind): {"games": int(of["games"]), "success": share(of["success"])}
            for kind, of in entry["by_task_type"].items()
        }
        low, high = entry["ci95"]
        settings = entry.get("settings")
        return {
            **{key: str(entry[key]) for key in ("policy", "mode", "split")},
            "prm": None if entry["prm"] is None else str(entry["prm"]),
            "seed": int(entry["seed"]),
            "games": int(entry["games"]),
            "success": share(entry["success"]),
            "ci95": [share(low), share(high)],
            "return": share(entry.get("return", entry["success"])),  # older entries: of wins alone
            "actions": _finite(entry["actions"]),
            "by_task_type": by_type,
            "settings": settings if isinstance(settings, dict) else None,
            **{key: entry.get(key) for key in CONDITIONS},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(path, f"an entry cannot be read ({error!r})", "evaluate again") from None


def digests(entries: list[Entry]) -> set[str]:
    """The digests of the settings of all entries that have settings."""
    return {provenance.digest(entry["settings"]) for entry in entries if entry["settings"]}


def match(entries: list[Entry], stores: list[Store]) -> None:
    """Set "played" of each entry to the games of its episodes (`Store.games`), None if there are no episodes.

    A store belongs to an entry if the settings are the same (in run folders of older versions: policy, mode, split and
    PRM), and also the numbers of games and wins.
    """
    free = list(stores)
    for entry in entries:
        entry["played"] = None
        for store in free:
            if _is_of(entry, store):
                entry["played"] = store.games
                free.remove(store)
                break


def _is_of(entry: Entry, store: Store) -> bool:
    if entry["settings"] and store.record:
        alike = provenance.digest(entry["settings"]) == provenance.digest(store.record["settings"])
    else:
        chosen_by = None if entry["mode"] == "policy" or store.n is None else f"Q_{store.n - 1}"
        stored = (*store.who, store.split, chosen_by)
        alike = stored == (entry["policy"], entry["mode"], entry["split"], entry["prm"])
    wins = round(entry["success"] * entry["games"])
    return alike and len(store.episodes) == entry["games"] and store.total("won") == wins


def pooled(entries: list[Entry]) -> list[Entry]:
    """One entry for all seeds of a policy, PRM, mode, split and conditions: means over seeds. "apart" is what tells it
    from others of the same policy, PRM, mode and split, if there are any; "usual" that its conditions are those of most
    entries of its mode and split, or unknown: a curve compares only those. "played" becomes {seed: games}.

    Seeds play the same games, so they are not independent: the interval is Wilson's of the mean success on the games
    of one seed, which is never too narrow.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[(*(entry[key] for key in _KEY), *_conditions(entry))].append(entry)
    means = [group[0] | {"seeds": 1} if len(group) == 1 else _mean(group) for group in groups.values()]
    kinds: dict[tuple[str, str], Counter[tuple[Any, ...]]] = defaultdict(Counter)
    for entry in means:
        kinds[entry["mode"], entry["split"]][_conditions(entry)] += _conditions(entry) != _UNKNOWN
    names = [str([entry[key] for key in _KEY]) for entry in means]
    for entry, group, apart in zip(means, groups.values(), told_apart(means, names), strict=True):
        usual = kinds[entry["mode"], entry["split"]].most_common(1)[0][0]
        played = {of.get("seed"): of["played"] for of in group if of.get("played")}
        entry |= {"apart": apart, "usual": _conditions(entry) in (usual, _UNKNOWN), "played": played}
    return means


def share(value: Any) -> float:
    """A number in [0, 1]. Raises ValueError for any other."""
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{value} is not in [0, 1]")
    return float(value)


def _conditions(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry.get(key) for key in CONDITIONS)


def _mean(group: list[Entry]) -> Entry:
    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    kinds = {kind for entry in group for kind in entry["by_task_type"]}
    by_type: dict[str, Any] = {}
    for kind in sorted(kinds):
        of = [entry["by_task_type"][kind] for entry in group if kind in entry["by_task_type"]]
        by_type[kind] = {"games": min(e["games"] for e in of), "success": mean([e["success"] for e in of])}
    games, success = min(entry["games"] for entry in group), mean([entry["success"] for entry in group])
    return {
        **group[0],
        "games": games,
        "success": success,
        "ci95": list(wilson(round(success * games), games)),
        "return": mean([entry["return"] if "return" in entry else entry["success"] for entry in group]),
        "actions": mean([entry["actions"] for entry in group]),
        "by_task_type": by_type,
        "seeds": len(group),
    }


def _finite(value: Any) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(f"{value} is no number")
    return float(value)
