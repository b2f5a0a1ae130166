"""The file that holds a compiled game: no pickle, checked by digest.

One line of JSON (the header), then the game's tables as compressed JSON.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from prm_gym.envs.engine.compiled_game import Compiled
from prm_gym.envs.engine.unsupported import Unsafe, Unsupported
from prm_gym.packages import versions

FORMAT = 3
TRANSLATORS = ("alfworld", "textworld", "fast-downward-textworld")


@dataclass(frozen=True, slots=True)
class Stored:
    """A compiled game on disk. `unsupported` is the reason why the exact engine refuses the game, if it does.

    If `unsafe`, stock must not play it either, see `unsupported.Unsafe`.
    """

    digest: str
    unsupported: str
    unsafe: bool
    packed: bytes

    def tables(self) -> Compiled:
        """The tables, see `compiled_game`."""
        tables: Compiled = json.loads(zlib.decompress(self.packed))
        return tables


def encode(digest: str, compiled: Compiled | Unsupported) -> bytes:
    """The content of the file for a compiled or unsupported game."""
    body = b"" if isinstance(compiled, Unsupported) else zlib.compress(_json(compiled), 6)
    header = {
        "prm_gym": FORMAT,
        "game": digest,
        "translators": translators(),
        "unsupported": str(compiled) if isinstance(compiled, Unsupported) else "",
        "unsafe": isinstance(compiled, Unsafe),
        "body": blake2b(body, digest_size=16).hexdigest(),
    }
    return _json(header) + b"\n" + body


def decode(content: bytes, digest: str) -> Stored:
    """Read a file. Raises ValueError if it is damaged, of another game, or compiled by other versions of packages.

    Packages that are not installed do not count, since a compiled game needs none of them.
    """
    head, _, body = content.partition(b"\n")
    header = json.loads(head)
    if not isinstance(header, dict) or header.get("prm_gym") != FORMAT or header.get("game") != digest:
        raise ValueError("another format or game")
    made_by = header["translators"]
    if any(name in made_by and made_by[name] != here for name, here in translators().items()):
        raise ValueError("made by other versions")
    if blake2b(body, digest_size=16).hexdigest() != header["body"]:
        raise ValueError("damaged")
    return Stored(digest, header["unsupported"], header["unsafe"], body)


@lru_cache(maxsize=1)
def translators() -> dict[str, str]:
    """The installed versions of the packages used for compiling."""
    return versions(TRANSLATORS)


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode()
