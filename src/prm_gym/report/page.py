"""Render the gathered dicts to one HTML file: jinja with autoescape, with the episodes embedded as JSON.

The page loads nothing. Its Content-Security-Policy allows one style and one script by their hashes, so nothing else
runs even if text were injected into the markup.
"""

from __future__ import annotations

import json
import re
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterable
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import prm_gym
from prm_gym.report import (
    cells,
    display_names,
    headline,
    how_made,
    paired_difference,
    q_figures,
    stage3_figure,
    success_figures,
    success_table,
)
from prm_gym.report.figure import Figure
from prm_gym.unicode import well_formed

Maker = Callable[[dict[str, Any]], Iterable[Figure]]
_PARTS = ("page.css", "downloads.js", "page.js")
_LOCKED = "default-src 'none'; base-uri 'none'; form-action 'none'"
# Characters that could end the script element or, for older parsers, a line.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(runs: list[dict[str, Any]], episodes: list[dict[str, Any]]) -> str:
    """The page. `runs` as `gather` gives them, `episodes` as `trajectories.sample`."""
    style, *scripts = (files(__package__).joinpath(name).read_text("utf-8") for name in _PARTS)
    script = "\n".join(scripts)
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables, sections, makings = (
        success_table.tables(runs),
        _sections(runs),
        [(run["name"], how_made.making(run)) for run in runs],
    )
    csv = _Files(several=len(runs) > 1)
    csv.add("", *tables)
    for name, drawn, _ in (of for section in sections for of in section["runs"]):
        csv.add(name, *drawn)
    for name, made in makings:
        csv.add(name, *made["tables"])
    return environment.get_template("page.html").render(
        title=", ".join(run["name"] for run in runs),
        headlines=[found for run in runs if (found := headline.headline(run))],
        several=len(runs) > 1,
        tables=tables,
        rule=paired_difference.RULE,
        sections=sections,
        episodes=len(episodes),
        scored=sorted({display_names.pretty(e["q"]) for e in episodes if e["q"]}),
        reasons=any(turn.get("r") for e in episodes for turn in e["turns"]),
        makings=[(name, made) for name, made in makings if any(made.values())],
        shown=cells.shown,
        data=as_json({"episodes": [_for_page(e) for e in episodes], "runs": len(runs), "files": csv.texts}),
        made_by=f"prm_gym {prm_gym.__version__}",
        style=Markup(style),
        script=Markup(script),
        policy=f"{_LOCKED}; style-src {_pin(style)}; script-src {_pin(script)}",
    )


def _sections(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """{"title", "runs": [(run, figures, remarks)]} of the runs that have any."""
    learning: list[Maker] = [
        success_figures.learning_curves,
        success_figures.best_of_n_curves,
        stage3_figure.stage3_figures,
    ]
    of_q: list[Maker] = [
        q_figures.target_histograms,
        q_figures.calibrations,
        q_figures.rankings,
        q_figures.rankings_by,
    ]

    def drawn(makers: list[Maker], remarks: Callable[[dict[str, Any]], Iterable[str]]) -> list[Any]:
        made = [(run["name"], [f for make in makers for f in make(run)], list(remarks(run))) for run in runs]
        return [of for of in made if of[1] or of[2]]

    return [
        {"title": "Learning", "runs": drawn(learning, lambda run: ())},
        {"title": "Process reward model", "runs": drawn(of_q, q_figures.remarks)},
    ]


class _Files:
    """The CSV files of the page, under unique names, which include the run if there are several."""

    def __init__(self, several: bool) -> None:
        self.texts: dict[str, str] = {}
        self._several = several

    def add(self, run: str, *tables: dict[str, Any]) -> None:
        """Make a file for each table with "title", "columns" and "rows", and set its "file" to the name."""
        for of in tables:
            title = f"{run} {of['title']}" if self._several else of["title"]
            name, number = _slug(title), 1
            while name in self.texts:
                number += 1
                name = f"{_slug(title)}-{number}"
            self.texts[name] = cells.as_csv(of["columns"], of["rows"])
            of["file"] = name


def as_json(value: Any) -> Markup:
    """JSON for a script element, with `<`, `>`, `&`, U+2028 and U+2029 escaped. Raises ValueError for nan or inf."""
    text = well_formed(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return Markup(text.translate(_UNSAFE))


def _for_page(episode: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: value for key, value in episode.items() if key != "mode"},
        "policy": display_names.label({**episode, "prm": None}),
        "alone": episode["mode"] == "policy",
        "accent": display_names.accent(episode["policy"]),
        "type": display_names.task_type(episode["type"]),
        "q": display_names.pretty(episode["q"]) if episode["q"] else None,
    }


def _slug(text: str) -> str:
    """A file name: `Training π₁ on Q₀` becomes `training-pi1-on-q0`."""
    plain = unicodedata.normalize("NFKD", text.replace("π", "pi")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "table"


def _pin(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
