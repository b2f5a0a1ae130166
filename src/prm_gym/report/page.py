"""From the gathered dicts to one HTML file: jinja with autoescape, and the episodes as JSON inside it.

The page may load nothing: its Content-Security-Policy allows the one style and the one script below by their hashes,
so that nothing else runs even if a text found its way into the markup.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import prm_gym
from prm_gym.report import figures, names, q_figures, table

_PRIMARY = "valid_unseen"  # the split of the headline, where there is one of that name
_LOCKED = "default-src 'none'; base-uri 'none'; form-action 'none'"
# What could end the script element or, to an older parser of scripts, a line.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(runs: list[dict[str, Any]], episodes: list[dict[str, Any]]) -> str:
    """The page. `runs` as `gather` gives them, `episodes` as `trajectories.sample`."""
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = [
        ("Learning", [figures.learning_curves, figures.best_of_n_curves, figures.hacking_curves]),
        ("Process reward model", [q_figures.target_histograms, q_figures.calibrations, q_figures.rankings]),
    ]
    sections = []
    for title, makers in kinds:
        drawn = [(run["name"], [figure for make in makers for figure in make(run)]) for run in runs]
        sections.append({"title": title, "runs": [(name, made) for name, made in drawn if made]})
    return environment.get_template("page.html").render(
        title=", ".join(run["name"] for run in runs),
        headlines=[headline for run in runs if (headline := _headline(run))],
        runs=runs,
        several=len(runs) > 1,
        tables=table.tables(runs),
        sections=sections,
        episodes=len(episodes),
        scored=sorted({names.pretty(e["q"]) for e in episodes if e["q"]}),
        reasons=any(turn.get("r") for e in episodes for turn in e["turns"]),
        data=as_json({"episodes": [_for_page(e) for e in episodes], "runs": len(runs)}),
        made_by=f"prm_gym {prm_gym.__version__}",
        style=Markup(style),
        script=Markup(script),
        policy=f"{_LOCKED}; style-src {_pin(style)}; script-src {_pin(script)}",
        settings=_settings,
        pretty=names.pretty,
    )


def as_json(value: Any) -> Markup:
    """JSON for the inside of a script element: no `<`, `>`, `&`, U+2028 or U+2029 stands in it as itself.

    Raises ValueError for a number that JSON has no word for.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_UNSAFE))


def _for_page(episode: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: value for key, value in episode.items() if key != "mode"},
        "policy": names.label({**episode, "prm": None}),
        "accent": names.accent(episode["policy"]),
        "type": names.task_type(episode["type"]),
        "q": names.pretty(episode["q"]) if episode["q"] else None,
    }


def _headline(run: dict[str, Any]) -> dict[str, Any] | None:
    """The first policy, the last, and the last at its largest N, by plain Q if it was, on the split of the headline."""
    splits = [entry["split"] for entry in run["results"]]
    if not splits:
        return None
    split = _PRIMARY if _PRIMARY in splits else splits[-1]
    entries = [entry for entry in run["results"] if entry["split"] == split]

    def order(entry: dict[str, Any]) -> tuple[int, int, bool]:
        choice = names.best_of(entry["mode"])
        return (
            names.index(entry["policy"]) or 0,
            choice.n if choice else 0,
            choice is not None and not names.rule(choice),
        )

    alone = sorted((e for e in entries if e["mode"] == "policy"), key=order)
    chosen = sorted((e for e in entries if e["mode"] != "policy"), key=order)
    shown = [*(alone if len(alone) < 2 else [alone[0], alone[-1]]), *chosen[-1:]]
    return {
        "run": run["name"],
        "split": split,
        "games": max(e["games"] for e in shown),
        "figures": [
            {
                "name": names.label(e),
                "accent": names.accent(e["policy"]),
                "value": names.percent(e["success"]),
                "interval": names.interval(*e["ci95"]),
            }
            for e in shown
        ],
    }


def _settings(stage: dict[str, Any]) -> str:
    """A stage's settings as indented JSON; a host's file among them as it was written."""
    settings = dict(stage["settings"]) if isinstance(stage["settings"], dict) else {"settings": stage["settings"]}
    config = settings.pop("config", None)
    shown = json.dumps(settings, indent=2, ensure_ascii=False)
    return f"{shown}\n\n{config}" if isinstance(config, str) else shown


def _pin(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
