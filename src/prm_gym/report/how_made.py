"""How a run was made: versions and machines, training stages, policies, commands.

Read from the manifests of the stages and the provenance of the episodes (`prm_gym.provenance`). Run folders of older
versions show less.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from prm_gym import provenance
from prm_gym.report import display_names
from prm_gym.report.cells import Cell, Percent
from prm_gym.report.episode_summaries import Store
from prm_gym.report.training_logs import steps

Table = dict[str, Any]
_SOFTWARE = ("commit", "prm_gym", "python", "packages", "machine")


def making(run: dict[str, Any]) -> dict[str, Any]:
    """{"tables": [{"id", "title", "note", "columns", "rows" of `cells`}], "commands": [text], "stages": [{"name",
    "seconds", "details"}]}; tables without rows are left out.
    """
    records = _records(run)
    made = [_training(run["stages"]), _policies(run["stores"]), _software(records, run["stages"])]
    return {
        "tables": [table for table in made if table["rows"]],
        "commands": list(dict.fromkeys(str(record["command"]) for record in records if record.get("command"))),
        "stages": _stages(run),
    }


def _records(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes that made the run, by start time."""
    found = [stage["run"] for stage in run["stages"]]
    found += [record for store in run["stores"] if store.record for record in store.record["runs"]]
    return sorted((r for r in found if isinstance(r, dict)), key=lambda record: str(record.get("started")))


def _software(records: list[dict[str, Any]], stages: list[dict[str, Any]]) -> Table:
    """A row for each combination of commit, versions and machine."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(json.dumps([record.get(key) for key in _SOFTWARE], sort_keys=True), []).append(record)
    rows = [[*_span(of), *(_said(of[0].get(key)) for key in _SOFTWARE)] for of in groups.values()]
    if not records:  # older manifests name the version alone
        versions = sorted({str(stage["prm_gym"]) for stage in stages if stage["prm_gym"]})
        rows = [[None, None, None, version, None, None, None] for version in versions]
    return {
        "id": "software",
        "title": "Versions and machines",
        "note": None if records else "Written by a version that recorded neither commit nor machine nor commands.",
        "columns": ["first", "last", "commit", "prm_gym", "Python", "packages", "machine"],
        "rows": rows,
    }


def _span(records: list[dict[str, Any]]) -> tuple[str, str]:
    """The first and the last start time, UTC, to the minute."""
    times = [str(record.get("started", ""))[:16].replace("T", " ") for record in records]
    return min(times), max(times)


def _said(value: Any) -> Cell:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return None if value is None else str(value)


def _training(stages: list[dict[str, Any]]) -> Table:
    """A row for each stage trained by a host: learning rate, steps, epochs, batch size."""
    rows = []
    for stage in stages:
        config = _config(stage)
        rate = config.get("learning_rate")
        planned = config.get("max_steps")
        taken = steps(stage["folder"]) or ((planned, "step") if isinstance(planned, int) and planned > 0 else None)
        if rate is None and taken is None:
            continue
        batch = config.get("per_device_train_batch_size")
        accumulated = config.get("gradient_accumulation_steps", 1)
        rows.append(
            [
                str(stage["stage"]),
                _said(stage["settings"].get("host")),
                None if rate is None else f"{float(rate):.2g}",
                _said(config.get("lr_scheduler_type")),
                None if taken is None else taken[0],
                None if taken is None else f"{taken[1]}s",
                _said(config.get("num_train_epochs")),
                None if batch is None else f"{batch} x {accumulated}" if accumulated != 1 else str(batch),
                stage["seconds"] if stage["seconds"] is None else round(stage["seconds"]),
            ]
        )
    columns = ["stage", "host", "learning rate", "schedule", "trained", "in", "epochs", "batch", "seconds"]
    note = "The batch is that of one process and device, in the host's items, times the steps of gradient accumulation."
    return {"id": "training", "title": "Training", "note": note, "columns": columns, "rows": rows}


def _config(stage: dict[str, Any]) -> dict[str, Any]:
    """The host's configuration as a dict; older manifests have it as text."""
    config = stage["settings"].get("config") if isinstance(stage["settings"], dict) else None
    if isinstance(config, str):
        try:
            config = yaml.safe_load(config)
        except yaml.YAMLError:
            return {}
    return config if isinstance(config, dict) else {}


def _policies(stores: Iterable[Store]) -> Table:
    """A row for each policy and store: the share of inadmissible actions, and tokens per action and second."""
    rows = []
    for store in stores:
        policy, mode = store.who
        judged, tokens, actions = store.total("judged"), store.total("tokens"), store.total("actions")
        prm = f"Q_{store.n - 1}" if store.n is not None and mode != "policy" else None
        rows.append(
            [
                display_names.label({"policy": policy, "mode": mode, "prm": prm}),
                "rollouts" if store.folder.name == "rollouts" else "evaluation",
                store.split,
                len(store.episodes),
                actions,
                Percent(store.total("inadmissible") / judged) if judged else None,
                f"{tokens / actions:.1f}" if tokens and actions else None,
                None if store.tokens_per_s is None else round(store.tokens_per_s),
            ]
        )
    return {
        "id": "policies",
        "title": "Policies at play",
        "note": "Not admissible: actions that the environment did not list. Tokens are those of the responses; of "
        "best-of-N of the chosen ones.",
        "columns": ["policy", "in", "split", "episodes", "actions", "not admissible %", "tokens/action", "tokens/s"],
        "rows": rows,
    }


def _stages(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The stages, then episodes not made by a stage, each with its full record."""
    made = []
    for stage in run["stages"]:
        beside = (provenance.read(folder) for folder in (stage["folder"], stage["folder"] / "episodes"))
        made_with = next((record["settings"] for record in beside if record), None)
        made.append({"name": str(stage["stage"]), "seconds": stage["seconds"], "details": _details(stage, made_with)})
    folders = {stage["folder"] / name for stage in run["stages"] for name in (".", "episodes")}
    for store in run["stores"]:
        if store.record and store.folder not in folders:
            name = store.folder.relative_to(run["path"])
            made.append({"name": f"episodes in {name}", "seconds": None, "details": _as_text(store.record)})
    return made


def _details(stage: dict[str, Any], made_with: dict[str, Any] | None) -> str:
    """A stage's settings and inputs as indented JSON, with a host's configuration in its original form."""
    settings = dict(stage["settings"]) if isinstance(stage["settings"], dict) else {"settings": stage["settings"]}
    config = settings.get("config")
    as_text = f"\n\n{settings.pop('config')}" if isinstance(config, str) else ""
    shown = {"settings": settings, "inputs": stage["inputs"], "made with": made_with, "run": stage["run"]}
    return _as_text({key: value for key, value in shown.items() if value}) + as_text


def _as_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
