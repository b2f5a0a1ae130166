"""The entries of results.json as a terminal table, in the form of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from prm_gym.evaluation.results_file import CONDITIONS, has_returns

SHORT_NAMES = {
    "pick_and_place_simple": "Pick",
    "pick_clean_then_place_in_recep": "Clean",
    "pick_heat_then_place_in_recep": "Heat",
    "pick_cool_then_place_in_recep": "Cool",
    "look_at_obj_in_light": "Look",
    "pick_two_obj_and_place": "Pick 2",
}


def name(policy: str, mode: str, prm: str | None) -> str:
    """`pi_1` in mode `policy`; a best-of-N mode in full: `Bo16_weight1(pi_1, Q_0)`; `react(m) after trial 3`."""
    if mode.startswith("trial_"):
        return f"{policy} after trial {mode.removeprefix('trial_')}"
    return policy if mode == "policy" else f"Bo{mode.removeprefix('best_of_')}({policy}, {prm})"


def told_apart(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """For each entry the settings in which it differs from others of the same name, such as `T 1, seed 2`; else ""."""
    said: list[str] = []
    for entry, name in zip(entries, names, strict=True):
        alike = [other for other, its in zip(entries, names, strict=True) if its == name]
        differing = [
            words.format(entry[field])
            for field, words in {**CONDITIONS, "seed": "seed {}"}.items()
            if len({other.get(field) for other in alike}) > 1 and entry.get(field) is not None
        ]
        if len(alike) > 1 and all(entry.get(field) is None for field in CONDITIONS):
            differing.append("settings unknown")
        said.append(", ".join(differing))
    return said


def table(results: Iterable[dict[str, Any]]) -> Table:
    """Success in % with its interval, mean return if it differs from success, mean actions, and success by task type.

    The numbers of ALFWorld's six task types fit into 80 columns: a long policy name is wrapped.
    """
    title = "Success by split (95% interval)"
    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    out.add_column("Policy and split", overflow="fold")
    results = list(results)
    found = {kind for entry in results for kind in entry["by_task_type"]} - {""}  # environments without task types
    kinds = SHORT_NAMES if found and found <= SHORT_NAMES.keys() else {kind: kind for kind in sorted(found)}
    rewarded = any(has_returns(entry) for entry in results)
    for column in ("Games", "All %", "95%", *(["Return"] if rewarded else []), "Actions", *kinds.values()):
        out.add_column(Text(column), justify="right", no_wrap=True)
    names = [f"{name(entry['policy'], entry['mode'], entry['prm'])} {entry['split']}" for entry in results]
    for entry, row, apart in zip(results, names, told_apart(results, names), strict=True):
        by_type = entry["by_task_type"]
        low, high = entry["ci95"]
        out.add_row(
            Text(f"{row}, {apart}" if apart else row),
            str(entry["games"]),
            f"{100 * entry['success']:.1f}",
            f"{100 * low:.0f}-{100 * high:.0f}",
            *([f"{entry['return']:.3f}" if "return" in entry else "-"] if rewarded else []),
            f"{entry['actions']:.1f}",
            *(f"{100 * by_type[kind]['success']:.0f}" if kind in by_type else "-" for kind in kinds),
        )
    return out


def costs(results: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each entry of a model that was asked for tokens: tokens and cost per game, and in total."""
    lines = []
    for entry in results:
        if entry.get("response_tokens"):
            read, written, games = entry["prompt_tokens"], entry["response_tokens"], entry["games"]
            of = f"{name(entry['policy'], entry['mode'], entry['prm'])} {entry['split']}"
            line = f"{of}: {read:,} prompt and {written:,} response tokens, "
            line += f"{read / games:,.0f} and {written / games:,.0f} a game"
            if entry["cost"] is not None:
                line += f"; cost {entry['cost']:,.4g}, {entry['cost'] / games:,.4g} a game"
            lines.append(line)
    return lines
