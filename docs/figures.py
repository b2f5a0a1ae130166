"""A hook of mkdocs: the figures of `results/` belong to the site.

Pages link to them as `../results/NAME.svg`, which is where they lie for a reader of the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

RESULTS = Path(__file__).parent.parent / "results"


def on_files(files: Any, config: Any) -> None:
    for figure in sorted(RESULTS.glob("*.svg")):
        files.append(File.generated(config, f"results/{figure.name}", abs_src_path=str(figure)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace("](../results/", "](results/")
