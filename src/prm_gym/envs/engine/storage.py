"""The file that holds a compiled game: no pickle, checked by digest, decoded in parts as a play needs them.

One line of JSON (the header), then compressed JSON documents one after the other: the tables, then each section's
operators, a line for every key.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prm_gym.envs.engine.bits import mask
from prm_gym.envs.engine.compiled import Compiled
from prm_gym.envs.engine.unsupported import Unsafe, Unsupported

FORMAT = 2
TRANSLATORS = ("alfworld", "textworld", "fast-downward-textworld")


@dataclass(frozen=True, slots=True)
class Stored:
    """A compiled game as it lies on disk. `unsupported` says why the exact engine refuses the game, if it does.

    `unsafe` that stock must not play it either, see `unsupported.Unsafe`.
    """

    digest: str
    unsupported: str
    unsafe: bool
    packed_tables: bytes
    sections: dict[int, bytes]

    def tables(self) -> dict[str, Any]:
        """The tables, see `compiled`."""
        tables: dict[str, Any] = json.loads(zlib.decompress(self.packed_tables))
        return tables


def section(packed: bytes) -> tuple[int, int, dict[int, bytes]]:
    """The set of variables that a section depends on, that of its keys, and by key its operators (JSON documents)."""
    reads, keys, *lines = zlib.decompress(packed).split(b"\n")
    keyed = (line.split(b" ", 1) for line in lines)
    return int(reads, 16), int(keys, 16), {int(key): operators for key, operators in keyed}


def encode(digest: str, compiled: Compiled | Unsupported) -> bytes:
    """The file for a compiled game, or for one that is unsupported."""
    parts, places = [], []
    if isinstance(compiled, Compiled):
        parts.append(_pack(_json(compiled.tables)))
        for place, reads, keys in compiled.sections:
            sets = mask(reads), mask(key for key, _ in keys if key >= 0)
            lines = [f"{numbers:x}".encode() for numbers in sets]
            lines += [f"{key} ".encode() + _json(operators) for key, operators in keys]
            parts.append(_pack(b"\n".join(lines)))
            places.append(place)
    body = b"".join(parts)
    header = {
        "prm_gym": FORMAT,
        "game": digest,
        "translators": versions(),
        "unsupported": str(compiled) if isinstance(compiled, Unsupported) else "",
        "unsafe": isinstance(compiled, Unsafe),
        "places": places,
        "lengths": [len(part) for part in parts],
        "body": blake2b(body, digest_size=16).hexdigest(),
    }
    return _json(header) + b"\n" + body


def decode(content: bytes, digest: str) -> Stored:
    """Read a file. Raises ValueError when it is damaged, of another game, or made by other versions than those here.

    Versions of packages that are not installed here do not matter: a compiled game needs none of them.
    """
    head, _, body = content.partition(b"\n")
    header = json.loads(head)
    if not isinstance(header, dict) or header.get("prm_gym") != FORMAT or header.get("game") != digest:
        raise ValueError("another format or game")
    made_by = header["translators"]
    if any(name in made_by and made_by[name] != here for name, here in versions().items()):
        raise ValueError("made by other versions")
    if blake2b(body, digest_size=16).hexdigest() != header["body"]:
        raise ValueError("damaged")
    parts, start = [], 0
    for length in header["lengths"]:
        parts.append(body[start : start + length])
        start += length
    tables, *sections = parts or [b""]
    by_place = dict(zip(header["places"], sections, strict=True))
    return Stored(digest, header["unsupported"], header["unsafe"], tables, by_place)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """The installed versions of what takes part in compiling; those not installed are left out."""
    found = {}
    for name in TRANSLATORS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode()


def _pack(content: bytes) -> bytes:
    return zlib.compress(content, 6)
