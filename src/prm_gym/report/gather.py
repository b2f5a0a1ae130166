"""Read a run folder into a plain dict: results, training logs, targets, quality of Q, stages. Missing parts are None.

{"name", "path", "results": [entry of results.json, seeds pooled],
 "checkpoints": [entry with "n" and "step"], "stages": [manifest of `stage` with "folder"], "stores": [`Store`],
 "iterations": [{"n", "folder", "labels", "targets", "quality", "training"}]}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym.errors import UserError, no_folder
from prm_gym.evaluation.results_file import read_results
from prm_gym.report import result_entries
from prm_gym.report.episode_summaries import stores
from prm_gym.report.training_logs import read_json, stage3
from prm_gym.runs.stage import MANIFEST

TARGET_BINS = 20
_CHECKPOINT = re.compile(r"pi_(\d+)/checkpoint-(\d+)")


def gather(run: Path, name: str) -> dict[str, Any]:
    """The content of the run folder `run`. Raises `UserError` if it is no run, is empty, or has an unreadable file."""
    iterations = sorted((int(p.name[4:]), p) for p in run.glob("iter*") if p.is_dir() and p.name[4:].isdecimal())
    results = run / "results.json"
    remedy = "name a folder that `prm-gym iter` or `prm-gym evaluate` wrote"
    if not iterations and not results.exists():
        problem = "is no run (no results.json, no iter1)" if run.is_dir() else no_folder(run)
        raise UserError(run, problem, remedy)
    known = [result_entries.checked(results, entry) for entry in read_results(results)]
    played = stores(run, result_entries.digests(known))
    result_entries.match(known, played)
    found: dict[str, Any] = {
        "name": name,
        "path": run,
        "results": result_entries.pooled([entry for entry in known if not _CHECKPOINT.fullmatch(entry["policy"])]),
        "checkpoints": [  # of pi_n in training, evaluated under the name pi_n/checkpoint-STEP
            {**entry, "n": int(match[1]), "step": int(match[2])}
            for entry in result_entries.pooled(known)
            if (match := _CHECKPOINT.fullmatch(entry["policy"])) and entry["mode"] == "policy"
        ],
        "stages": _stages(run),
        "stores": played,
        "iterations": [
            {
                "n": n,
                "folder": folder,
                **_labels(folder / "dataset" / "prm" / "data"),
                "quality": _quality(folder / "eval" / "prm" / "quality.json"),
                "training": stage3(folder / "policy"),
            }
            for n, folder in iterations
        ],
    }
    shown = [of[key] for of in found["iterations"] for key in ("labels", "quality", "training")]
    if not (known or played or found["stages"] or any(shown)):
        raise UserError(run, "holds nothing to report: no results, episodes, labels or stages", remedy)
    return found


def _stages(run: Path) -> list[dict[str, Any]]:
    """Every manifest of the run, by the time at which the stage ended."""
    found = [path for depth in ("*", "iter*/*", "iter*/*/*") for path in run.glob(f"{depth}/{MANIFEST}")]
    seen = {path.resolve(): path for path in found}  # pi_1 is a link to iter1/policy
    stages = []
    for path in sorted(seen, key=lambda path: (path.stat().st_mtime_ns, str(path))):
        manifest = read_json(path)
        if not isinstance(manifest, dict) or not {"stage", "settings"} <= manifest.keys():
            raise UserError(path, "not a manifest", "remove it and make the stage again")
        kept = {key: manifest.get(key) for key in ("stage", "seconds", "settings", "inputs", "run", "prm_gym")}
        stages.append({**kept, "folder": path.parent})
    return stages


def _labels(data: Path) -> dict[str, Any]:
    """{"labels": "targets", "pairs" or "transitions" by the columns of a label dataset, "targets": histogram of the
    targets in [0, 1]}, each None where it is missing.
    """
    counts = [0] * TARGET_BINS
    total, rows = 0.0, {"train": 0, "test": 0}
    for file in sorted(data.glob("*.parquet")):
        try:
            columns = pq.read_schema(file).names
            if "target" not in columns:
                return {"labels": "pairs" if "chosen" in columns else "transitions", "targets": None}
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
        return {"labels": None, "targets": None}
    return {"labels": "targets", "targets": {"counts": counts, "mean": total / sum(counts), **rows}}


def _quality(path: Path) -> dict[str, Any] | None:
    """The `prm_quality.Quality` of a quality.json.

    In files of older versions "ranking_corrected" and its interval are None, and "ranking_by" is empty.
    """
    if not path.exists():
        return None
    quality = read_json(path)
    try:
        bins = [(result_entries.share(q), float(r), int(visits)) for q, r, visits in quality["bins"]]
        kept = ("auc", "calibration_error", "ranking_accuracy", "ranking_ci95", "ranking_ceiling", "pairs", "visits")
        by = {**quality.get("ranking_by_validity", {}), **quality.get("ranking_by_kind", {})}
        return {
            "bins": bins,
            **{key: quality[key] for key in kept},
            "ranking_corrected": quality.get("ranking_corrected"),
            "ranking_corrected_ci95": quality.get("ranking_corrected_ci95"),
            "ranking_by": {str(label): _ranking(of) for label, of in by.items()},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(path, f"not a quality file ({error!r})", "remove it and run the iteration again") from None


def _ranking(of: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `ranking.Ranking` that the page shows."""
    intervals = {key: [result_entries.share(end) for end in of[key]] for key in ("ci95", "corrected_ci95")}
    shares = {key: result_entries.share(of[key]) for key in ("accuracy", "corrected")}
    return {"pairs": int(of["pairs"]), "games": int(of["games"]), **shares, **intervals}
