"""Two runs, result by result: the difference of success and of actions, with 95% intervals (`paired_difference`).

Compared are results with the same policy name, mode and split, and the same settings if either run has several of them.
Runs without a common policy name, such as two folders of `prm-gym evaluate`, are compared if each has a single result
for a mode and split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError
from prm_gym.evaluation.results_file import CONDITIONS
from prm_gym.evaluation.results_table import name
from prm_gym.report import paired_difference
from prm_gym.report.gather import gather
from prm_gym.report.paired_difference import Difference

Entry = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """`success` and `actions` are the values of `other` minus those of `one` (entries of results.json, seeds pooled);
    `actions` is None without the episodes of both. `settings` lists different conditions: `T 0.3 against T 1`.
    """

    one: Entry
    other: Entry
    success: Difference
    actions: Difference | None
    settings: str

    @property
    def name(self) -> str:
        """`pi_1 valid_unseen`, or `a against b valid_unseen`."""
        names = [name(entry["policy"], entry["mode"], entry["prm"]) for entry in (self.one, self.other)]
        return f"{' against '.join(dict.fromkeys(names))} {self.one['split']}"


def compare(one: Path, other: Path) -> list[Comparison]:
    """The results that two run folders have in common, in the order of the second.

    Raises `UserError` if they have none, or as `gather`.
    """
    runs = [gather(run, str(run)) for run in (one, other)]
    first, second = ([{**e, "run": str(n)} for e in run["results"]] for n, run in enumerate(runs))
    keys = (("policy", "mode", "split"), ("mode", "split"))
    found = next(filter(None, (list(_matched(first, second, key)) for key in keys)), [])
    if not found:
        shown = [", ".join(f"{e['policy']} {e['mode']} {e['split']}" for e in of) or "none" for of in (first, second)]
        problem = f"no result in common with {one} ({shown[1]}; there {shown[0]})"
        raise UserError(other, problem, "evaluate both on the same split and in the same mode")
    return [_comparison(a, b) for a, b in found]


def _matched(first: list[Entry], second: list[Entry], key: tuple[str, ...]) -> Iterator[tuple[Entry, Entry]]:
    for value in dict.fromkeys(tuple(entry[k] for k in key) for entry in second):
        ones, others = ([e for e in of if tuple(e[k] for k in key) == value] for of in (first, second))
        if len(ones) == len(others) == 1:
            yield ones[0], others[0]
        elif "policy" in key:
            yield from ((a, b) for b in others for a in ones if _conditions(a) == _conditions(b))


def _conditions(entry: Entry) -> dict[str, Any]:
    return {field: entry.get(field) for field in CONDITIONS}


def _comparison(one: Entry, other: Entry) -> Comparison:
    success = paired_difference.success(other, one)
    assert success is not None  # of all task types there always is one
    said = (
        f"{words.format(one[field])} against {words.format(other[field])}"
        for field, words in CONDITIONS.items()
        if None not in (one.get(field), other.get(field)) and one[field] != other[field]
    )
    return Comparison(one, other, success, paired_difference.actions(other, one), ", ".join(said))
