"""Display names of policies, modes and task types on the page, and the accent colours of policies."""

from __future__ import annotations

import re
from typing import Any

from prm_gym.evaluation.results_table import SHORT_NAMES
from prm_gym.policies.best_of_n import BestOf

DASH = "\N{EN DASH}"
ACCENTS = 6  # classes p0..p5 in page.css; pi_6 has the colour of pi_1 again, only pi_0 has that of p0
_INDEXED = re.compile(r"(pi|Q)_(\d+)")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def pretty(name: str) -> str:
    """`π₁` for `pi_1`, `Q₀` for `Q_0`, the last part of a path, any other name unchanged."""
    if match := _INDEXED.fullmatch(name):
        return ("π" if match[1] == "pi" else "Q") + match[2].translate(_SUBSCRIPTS)
    return name.rstrip("/").rpartition("/")[2] or name


def index(policy: str) -> int | None:
    """n of pi_n; None for another policy."""
    match = _INDEXED.fullmatch(policy)
    return int(match[2]) if match and match[1] == "pi" else None


def accent(policy: str) -> str:
    """The CSS class of a policy's colour; a checkpoint `pi_1/checkpoint-20` has that of its policy."""
    n = index(policy.partition("/checkpoint-")[0])
    return "other" if n is None else "p0" if n == 0 else f"p{(n - 1) % (ACCENTS - 1) + 1}"


def rule(choice: BestOf) -> str:
    """The rule of choice of best-of-N, empty for Q alone among all actions: `, weight 1, admissible`."""
    weight = f", weight {choice.weight:g}" if choice.weight else ""
    return weight + (", admissible" if choice.among == "admissible" else "")


def label(entry: dict[str, Any]) -> str:
    """The name of a row: `π₁`, or `π₁, best of 4 by Q₀`, with the rule of choice and with settings in which it differs
    from rows of the same name: `π₁, T 1`.
    """
    choice, apart = BestOf.of_mode(entry["mode"]), entry.get("apart")
    said = [pretty(entry["policy"])]
    if choice is not None:
        by = f" by {pretty(entry['prm'])}" if entry.get("prm") else ""
        said.append(f"best of {choice.n}{by}{rule(choice)}")
    elif entry["mode"] != "policy":
        said.append(entry["mode"])
    return ", ".join([*said, *([apart] if apart else [])])


def task_type(kind: str) -> str:
    """The paper's short name of a task type, or its own."""
    return SHORT_NAMES.get(kind, kind.replace("_", " "))


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def interval(low: float, high: float) -> str:
    return f"{100 * low:.0f}{DASH}{100 * high:.0f}"
