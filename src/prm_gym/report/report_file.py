"""The file of the report: checked before work starts, written atomically."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from prm_gym import atomic
from prm_gym.errors import UserError

_ROOM = 1 << 20  # bytes; a page is rarely larger
_REMEDY = "free space or make the folder writable, or name another file by --out"


def check(out: Path) -> None:
    """Create the folder of `out`. Raises `UserError` if `out` cannot be written."""
    if out.is_dir() or (out.exists() and not out.is_file()):
        raise UserError(out, "is a folder" if out.is_dir() else "is no regular file", "name a file by --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out.parent) as probe:
            probe.write(bytes(_ROOM))
    except OSError as error:
        raise UserError(out, error.strerror or str(error), _REMEDY) from error


def write(out: Path, page: str) -> None:
    """Write `page` to `out`. Raises `UserError` if that fails; `out` is then unchanged."""
    try:
        atomic.write_text(out, page)
    except OSError as error:
        raise UserError(out, error.strerror or str(error), _REMEDY) from error
