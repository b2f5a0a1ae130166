"""Game files: their paths, ids and tasks. Nothing here plays or translates one.

Two layouts are read: a folder of `prm-gym games` (`OUT/<split>/<task>/<trial>/game.tw-pddl`) and an ALFWorld download
(`ALFWORLD_DATA/json_2.1.1/<split>/<task>/<trial>/game.tw-pddl`). As in stock alfworld, games are used if they are
marked solvable and have no movable receptacles or sliced targets. Games are sorted by name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from warnings import warn

from prm_gym.envs.contract import Task
from prm_gym.errors import UserError, no_folder
from prm_gym.unicode import well_formed

ALFWORLD_DATA = "ALFWORLD_DATA"  # the environment variable that names the folder of games
GAME_FILE = "game.tw-pddl"
SPLITS = ("train", "valid_seen", "valid_unseen")
TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
GET_AGAIN = "generate or download the game again"
NAMED = 3  # of many damaged files, those named one by one
_FIELDS = ("pddl_domain", "grammar", "pddl_problem")
_KEY = b'"solvable"'
# A quotation mark inside a JSON string is escaped, so this cannot match within one.
_SOLVABLE = re.compile(rb'(?<!\\)"solvable"\s*:\s*(true|false)')
_SENTENCE = re.compile(r"Your task is to: ((?:[^\"\\]|\\.)*)\"")


@dataclass(frozen=True, slots=True)
class Game(Task):
    """One game file. `game_id` does not change when the folder moves; `digest` is that of the file's bytes, empty if
    the file has not been read.
    """

    path: Path = field(kw_only=True)

    def reset_arguments(self) -> dict[str, Any]:
        return {"options": {"game_file": str(self.path)}}

    def content(self) -> str:
        if not self.digest and self.path.is_file():
            return digest(self.path.read_bytes())
        return self.digest

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a game file: the planning problem, the grammar of its texts, and the digest of its bytes."""

    path: Path
    domain: str
    problem: str
    grammar: str
    digest: str

    @property
    def task(self) -> str:
        """The task's sentence without its full stop, `put a clean mug in countertop`; empty if there is none."""
        found = _SENTENCE.search(self.grammar)
        if found is None:
            return ""
        sentence: str = json.loads(f'"{found[1]}"')
        return sentence.removesuffix(".")


def default_games() -> list[Game]:
    """The training games of $ALFWORLD_DATA. Raises `UserError` when it is not set, and as `find_games`."""
    folder = os.environ.get(ALFWORLD_DATA)
    if not folder:
        problem = f"none given, and {ALFWORLD_DATA} is not set"
        raise UserError("game_files", problem, "give prm_gym.envs.games.find_games(FOLDER), or set it")
    return find_games(folder, "train")


def find_games(folder: str | os.PathLike[str], split: str | None = None, *, strict: bool = False) -> list[Game]:
    """The games below `folder`, or those of its `split`, sorted by their relative path.

    `folder` may be a folder of splits, an ALFWORLD_DATA folder, one split, or a single game's folder. Damaged files are
    left out with a warning for each of the first few, or raise `UserError` if `strict`.

    Raises `UserError` when the folder is missing or holds no game.
    """
    games, damaged = survey(folder, split)
    if strict and damaged:
        raise UserError(*next(iter(damaged.items())), GET_AGAIN)
    lines = [f"{path}: left out, {problem}; {GET_AGAIN}" for path, problem in damaged.items()]
    for line in first_few(lines, "damaged game files"):
        warn(line, stacklevel=2)
    if not games:
        what = "no game" if split is None else f"no game of split {split!r}"
        what += f" but {len(damaged):,} damaged ones" if damaged else ""
        raise UserError(_root(folder), what, "check the folder, or make games with `prm-gym games`", field=split)
    return games


def survey(folder: str | os.PathLike[str], split: str | None = None) -> tuple[list[Game], dict[Path, str]]:
    """The games as `find_games` gives them, possibly none, and the problem of each damaged file.

    Raises `UserError` when the folder is missing.
    """
    games, damaged = [], {}
    for path in _game_files(_root(folder)):
        name = game_id(path)
        if split is not None and _split(name) != split:
            continue
        try:
            content = path.read_bytes()
            if _is_playable(content):
                games.append(Game(name, _split(name), task_type(path), digest=digest(content), path=path))
        except OSError as error:
            damaged[path] = error.strerror or str(error)
        except ValueError as error:
            damaged[path] = str(error)
    return games, damaged


def first_few(lines: Sequence[str], others: str) -> list[str]:
    """The first few lines, and one that counts the `others`."""
    more = len(lines) - NAMED
    return [*lines[:NAMED], f"and {more:,} more {others}"] if more > 0 else list(lines)


def _root(folder: str | os.PathLike[str]) -> Path:
    root = Path(folder)
    if not root.is_dir():
        raise UserError(root, no_folder(root), "give a folder made by `prm-gym games` or an ALFWORLD_DATA folder")
    return root / "json_2.1.1" if (root / "json_2.1.1").is_dir() else root


def read_game(path: str | os.PathLike[str]) -> Source:
    """Read a game file. Raises a `UserError` that names the file and the field when it is missing or damaged."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(path, f"cannot read the game file ({error.strerror})", "check the path") from error
    return parse_game(path, content)


def parse_game(path: Path, content: bytes) -> Source:
    """The game file whose bytes are `content`. Raises `UserError` as `read_game` does."""
    try:
        data: Any = json.loads(content)
    except ValueError as error:
        raise UserError(path, f"not a game file ({error})", GET_AGAIN) from error
    for name in _FIELDS:
        if not isinstance(data, dict) or not isinstance(data.get(name), str):
            raise UserError(path, "missing or not text", GET_AGAIN, field=name)
    return Source(path, data["pddl_domain"], data["pddl_problem"], data["grammar"], digest(content))


def digest(content: bytes) -> str:
    """The digest of a game file's bytes (BLAKE2b, 16 bytes, hexadecimal)."""
    return blake2b(content, digest_size=16).hexdigest()


def game_id(path: str | os.PathLike[str]) -> str:
    """`<split>/<task>/<trial>`, or `<task>/<trial>` outside a split: the names of the last folders of the path."""
    *_, split, task, trial = ("", "", "", *Path(path).absolute().parts[1:-1])
    return well_formed("/".join(part for part in (split if split in SPLITS else "", task, trial) if part))


def _split(game_id: str) -> str:
    first = game_id.split("/", 1)[0]
    return first if first in SPLITS else ""


def task_type(path: str | os.PathLike[str]) -> str:
    """The task type by the name of the task's folder, or else by `traj_data.json`; empty if neither holds it."""
    path = Path(path).absolute()
    by_folder = path.parent.parent.name.split("-", 1)[0]
    if by_folder in TASK_TYPES:
        return by_folder
    try:
        by_file = json.loads((path.parent / "traj_data.json").read_bytes())["task_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return by_file if isinstance(by_file, str) else ""


def _game_files(root: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        inner.sort()
        if GAME_FILE in files:
            path = Path(folder, GAME_FILE)
            name = game_id(path)  # alfworld looks at the whole path, so it finds no game below /media/removable
            if "movable" not in name and "Sliced" not in name:
                yield path


def _is_playable(content: bytes) -> bool:
    """Whether the game is marked solvable. Raises ValueError when the file is cut off or lacks a field."""
    content = content.strip()
    if not (content.startswith(b"{") and content.endswith(b"}")):
        raise ValueError("not a whole JSON object")
    for name in _FIELDS:
        if f'"{name}"'.encode() not in content:
            raise ValueError(f"no field {name!r}")
    at = content.find(_KEY)  # 30 times faster than searching for the pattern, because of its lookbehind
    while at >= 0:
        if solvable := _SOLVABLE.match(content, at):
            return solvable[1] == b"true"
        at = content.find(_KEY, at + 1)
    return False
