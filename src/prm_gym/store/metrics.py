"""metrics.jsonl beside the parts of a store: lines with counts of the rollout, see `rollout.monitoring`.

"share" is [i, n] in a line of the i-th of n processes. Lines of older versions have none, and count as of one process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines in `folder`, in order; without those that a kill cut short, and empty if there is no file."""
    try:
        texts = (folder / METRICS).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for text in texts:
        try:
            found.append({"share": (0, 1), **json.loads(text)})
        except (ValueError, TypeError):
            continue
    return found
