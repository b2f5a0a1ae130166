"""From a run folder to a plain dict: results, training logs, targets, quality of Q, stages. Missing parts are None.

{"name", "path", "results": [entry of results.json, seeds pooled],
 "checkpoints": [entry with "n" and "step"], "stages": [manifest of `stage`],
 "iterations": [{"n", "folder", "targets", "quality", "training"}]}
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym.errors import UserError
from prm_gym.evaluate import CONDITIONS, read_results, told_apart, wilson
from prm_gym.stage import MANIFEST

TARGET_BINS = 20
_CHECKPOINT = re.compile(r"pi_(\d+)/checkpoint-(\d+)")
_KEY = ("policy", "prm", "mode", "split")
_UNKNOWN = (None,) * len(CONDITIONS)
_PROCESS_REWARD = "objective/scores"  # both hosts log Q's mean score of the sampled responses under this name


def gather(run: Path, name: str) -> dict[str, Any]:
    """What the run folder `run` holds. Raises `UserError` if it is no run or a file in it cannot be read."""
    iterations = sorted((int(p.name[4:]), p) for p in run.glob("iter*") if p.is_dir() and p.name[4:].isdigit())
    results = run / "results.json"
    if not iterations and not results.exists():
        problem = "is no run (no results.json, no iter1)" if run.is_dir() else "no such folder"
        raise UserError(run, problem, "name a folder that `prm-gym iter` or `prm-gym evaluate` wrote")
    entries = [_checked(results, entry) for entry in read_results(results)]
    return {
        "name": name,
        "path": run,
        "results": pooled([entry for entry in entries if not _CHECKPOINT.fullmatch(entry["policy"])]),
        "checkpoints": [  # of pi_n in training, evaluated under the name pi_n/checkpoint-STEP
            {**entry, "n": int(match[1]), "step": int(match[2])}
            for entry in pooled(entries)
            if (match := _CHECKPOINT.fullmatch(entry["policy"])) and entry["mode"] == "policy"
        ],
        "stages": _stages(run),
        "iterations": [
            {
                "n": n,
                "folder": folder,
                "targets": _targets(folder / "dataset" / "prm" / "data"),
                "quality": _quality(folder / "eval" / "prm" / "quality.json"),
                "training": _training(folder / "policy"),
            }
            for n, folder in iterations
        ],
    }


def pooled(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for all seeds of a policy, PRM, mode, split and conditions: means over seeds. "apart" is what tells it
    from others of the same policy, PRM, mode and split, if there are any; "usual" that its conditions are those of most
    entries of its mode and split, or unknown: a curve compares only those.

    Seeds play the same games, so they are not independent: the interval is Wilson's of the mean success on the games
    of one seed, which is never too narrow.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        groups[(*(entry[key] for key in _KEY), *_conditions(entry))].append(entry)
    means = [group[0] | {"seeds": 1} if len(group) == 1 else _mean(group) for group in groups.values()]
    kinds: dict[tuple[str, str], Counter[tuple[Any, ...]]] = defaultdict(Counter)
    for entry in means:
        kinds[entry["mode"], entry["split"]][_conditions(entry)] += _conditions(entry) != _UNKNOWN
    names = [str([entry[key] for key in _KEY]) for entry in means]
    for entry, apart in zip(means, told_apart(means, names), strict=True):
        usual = kinds[entry["mode"], entry["split"]].most_common(1)[0][0]
        entry |= {"apart": apart, "usual": _conditions(entry) in (usual, _UNKNOWN)}
    return means


def _conditions(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(key) for key in CONDITIONS)


def _mean(group: list[dict[str, Any]]) -> dict[str, Any]:
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
        "actions": mean([entry["actions"] for entry in group]),
        "by_task_type": by_type,
        "seeds": len(group),
    }


def _checked(path: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of results.json with the types that the report counts on."""
    try:
        by_type = {
            str(kind): {"games": int(of["games"]), "success": _share(of["success"])}
            for kind, of in entry["by_task_type"].items()
        }
        low, high = entry["ci95"]
        return {
            **{key: str(entry[key]) for key in ("policy", "mode", "split")},
            "prm": None if entry["prm"] is None else str(entry["prm"]),
            "games": int(entry["games"]),
            "success": _share(entry["success"]),
            "ci95": [_share(low), _share(high)],
            "actions": _finite(entry["actions"]),
            "by_task_type": by_type,
            **{key: entry.get(key) for key in (*CONDITIONS, "settings")},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(path, f"an entry cannot be read ({error!r})", "evaluate again") from None


def _finite(value: Any) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(f"{value} is no number")
    return float(value)


def _share(value: Any) -> float:
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{value} is not in [0, 1]")
    return float(value)


def _stages(run: Path) -> list[dict[str, Any]]:
    """Every manifest of the run, in the order in which the stages ended."""
    found = [path for depth in ("*", "iter*/*", "iter*/*/*") for path in run.glob(f"{depth}/{MANIFEST}")]
    seen = {path.resolve(): path for path in found}  # pi_1 is a link to iter1/policy
    stages = []
    for path in sorted(seen, key=lambda path: (path.stat().st_mtime_ns, str(path))):
        manifest = _json(path)
        if not isinstance(manifest, dict) or not {"stage", "settings"} <= manifest.keys():
            raise UserError(path, "not a manifest", "remove it and make the stage again")
        stages.append({key: manifest.get(key) for key in ("stage", "seconds", "settings", "inputs", "run", "prm_gym")})
    return stages


def _targets(data: Path) -> dict[str, Any] | None:
    """Histogram of the targets in [0, 1] of a label dataset; None if it has no such column (pairs, transitions)."""
    counts = [0] * TARGET_BINS
    total, rows = 0.0, {"train": 0, "test": 0}
    for file in sorted(data.glob("*.parquet")):
        try:
            if "target" not in pq.read_schema(file).names:
                return None
            values = pq.read_table(file, columns=["target"])["target"].to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                file, f"cannot be read ({str(error).partition(chr(10))[0]})", "make the labels again"
            ) from None
        for value in values:
            counts[max(0, min(int(value * TARGET_BINS), TARGET_BINS - 1))] += 1
            total += value
        rows[file.name.partition("-")[0]] = len(values)
    if not sum(counts):
        return None
    return {"counts": counts, "mean": total / sum(counts), **rows}


def _quality(path: Path) -> dict[str, Any] | None:
    """`prm_quality.Quality` as it was written: bins of (mean Q, mean return, visits) and the figures beside them."""
    if not path.exists():
        return None
    quality = _json(path)
    try:
        bins = [(_share(q), float(r), int(visits)) for q, r, visits in quality["bins"]]
        kept = ("auc", "calibration_error", "ranking_accuracy", "ranking_ci95", "ranking_ceiling", "pairs", "visits")
        return {"bins": bins, **{key: quality[key] for key in kept}}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(path, f"not a quality file ({error!r})", "remove it and run the iteration again") from None


def _training(policy: Path) -> dict[str, Any] | None:
    """Process reward against training step, from the log of TRL's last checkpoint or of open-instruct; else None."""
    states = [policy / "trainer_state.json", *policy.glob("checkpoint-*/trainer_state.json")]
    log, path = [], policy / "metrics.jsonl"
    if path.exists():
        lines = path.read_text("utf-8").splitlines()
        log = [_json(path, line) for line in lines if line.strip()]
        unit = "episode"  # what open-instruct counts its log by
    elif states := [state for state in states if state.exists()]:
        unit = "step"
        for path in states:
            state = _json(path)
            found = state.get("log_history") if isinstance(state, dict) else None
            log = max(log, found if isinstance(found, list) else [], key=len)
    points = [
        (int(line["step"]), float(line[_PROCESS_REWARD]))
        for line in log
        if isinstance(line, dict) and isinstance(line.get(_PROCESS_REWARD), (int, float)) and "step" in line
        if math.isfinite(line[_PROCESS_REWARD])
    ]
    return {"unit": unit, "points": sorted(points)} if len(points) > 1 else None


def _json(path: Path, text: str | None = None) -> Any:
    try:
        return json.loads(path.read_text("utf-8") if text is None else text)
    except ValueError as error:
        raise UserError(path, f"is no JSON ({error})", "remove it and make the stage again") from None
