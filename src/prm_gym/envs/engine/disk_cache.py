"""The cache of compiled games on disk.

With a cache folder (the argument, or the environment variable PRM_GYM_CACHE) every compiled game is a file in it, named
by the digest of its game. Otherwise it is stored beside its game, or if that folder is read-only, in
`$XDG_CACHE_HOME/prm_gym` (`~/.cache/prm_gym`). Files are written atomically. If several processes compile the same
game, the last one replaces the file by the same content.
"""

from __future__ import annotations

import os
from pathlib import Path
from warnings import warn

from prm_gym.atomic import replacing
from prm_gym.envs.engine.compiled_game import Compiled
from prm_gym.envs.engine.compiler import compile_game
from prm_gym.envs.engine.file_format import Stored, decode, encode
from prm_gym.envs.engine.unsupported import Unsupported
from prm_gym.envs.games import digest, parse_game
from prm_gym.errors import UserError
from prm_gym.user_cache import user_cache

VARIABLE = "PRM_GYM_CACHE"
BESIDE = "game.compiled"


def stored_game(path: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> Stored:
    """The compiled game, from the cache if there is a valid file, else compiled now and cached.

    Raises as `cached_or_compiled`.
    """
    return cached_or_compiled(path, cache)[0]


def cached_or_compiled(
    path: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None, *, keep: bool = False
) -> tuple[Stored, bool]:
    """The compiled game, and whether it was in the cache. Warns if it cannot be cached.

    Raises `UserError` if the game file is missing or damaged, or has to be compiled and alfworld is not installed; with
    `keep`, `OSError` instead of the warning.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(path, f"cannot read the game file ({error.strerror})", "check the path") from error
    key = digest(content)
    places = _places(path, key, cache)
    for place in places:
        try:
            return decode(place.read_bytes(), key), True
        # For any error in a cached file, the game is compiled again and the file replaced.
        except (OSError, ValueError, KeyError, TypeError):
            continue
    source = parse_game(path, content)
    compiled: Compiled | Unsupported
    try:
        compiled = compile_game(source)
    except Unsupported as reason:
        compiled = reason
    made = encode(key, compiled)
    _write(places, made, keep)
    return decode(made, key), False


def _places(path: Path, key: str, cache: str | os.PathLike[str] | None) -> list[Path]:
    """The possible files of the compiled game, in the order to write to."""
    folder = cache or os.environ.get(VARIABLE)
    if folder:
        return [Path(folder, f"{key}.compiled")]
    return [path.with_name(BESIDE), user_cache() / f"{key}.compiled"]


def _write(places: list[Path], content: bytes, keep: bool) -> None:
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as partial:
                partial.write_bytes(content)
            return
        except OSError as error:
            problem = OSError(error.errno, error.strerror, str(place))
    if keep:
        raise problem
    warn(f"compiled game not kept, {problem}: it will be compiled again (set {VARIABLE} to a folder)", stacklevel=4)
