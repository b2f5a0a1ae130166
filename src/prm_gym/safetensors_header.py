"""The header of a safetensors file, read without the library, which the base installation lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of the tensors begin, in bytes, and for each tensor its `dtype`, `shape` and `data_offsets`.

    The format is 8 bytes with the length of the header, then the header in JSON, with offsets from its end, then the
    data (https://huggingface.co/docs/safetensors). Raises `UserError` if the file is truncated or has no header.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
            tensors: dict[str, Any] = json.loads(file.read(begin - 8) if begin <= size else b"")
        tensors.pop("__metadata__", None)
        complete = begin + max((of["data_offsets"][1] for of in tensors.values()), default=0) == size
        complete = complete and all(isinstance(n, int) for of in tensors.values() for n in of["shape"])
    except (ValueError, LookupError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise UserError(path, "is cut off or no safetensors file", "copy or train the checkpoint again")
    return begin, tensors
