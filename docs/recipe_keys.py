"""A hook of mkdocs: `<!-- keys: FILE CLASS ... -->` becomes a table of the keys of each dataclass, read from FILE."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_MARK = re.compile(r"^<!-- keys: (\S+) (.+) -->$", re.MULTILINE)
_EMPTY = {"list": "[]", "dict": "{}"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _MARK.sub(lambda mark: "\n\n".join(tables(mark[1], mark[2].split())), markdown)


def tables(file: str, names: list[str]) -> list[str]:
    """A heading, the docstring and a table for each of the classes `names`."""
    found = {node.name: node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.ClassDef)}
    return [_section(found[name]) for name in names]


def keys(node: ast.ClassDef) -> list[tuple[str, str, str]]:
    """(key, type, default) of each field; the default of a required key is empty."""
    return [
        (ast.unparse(entry.target), ast.unparse(entry.annotation).removesuffix(" | None"), _default(entry.value))
        for entry in node.body
        if isinstance(entry, ast.AnnAssign)
    ]


def _default(value: ast.expr | None) -> str:
    if value is None:
        return ""
    if isinstance(value, ast.Call):  # field(default_factory=list), or of a section with defaults of its own
        factory = ast.unparse(value.keywords[0].value)
        return _EMPTY.get(factory, f"that of {factory}")
    return "null" if ast.unparse(value) == "None" else ast.unparse(value)


def _section(node: ast.ClassDef) -> str:
    rows = [
        f"| `{key}` | `{kind}` | {f'`{default}`' if default else 'required'} |" for key, kind, default in keys(node)
    ]
    head = [f"### {node.name}", ast.get_docstring(node) or ""]
    return "\n\n".join([*head, "\n".join(["| key | type | default |", "|---|---|---|", *rows])])
