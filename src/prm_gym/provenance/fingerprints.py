"""Content fingerprints of checkpoints, prompts, games, datasets and episodes, independent of their location.

A fingerprint is 16 hex digits of a BLAKE2b hash. The functions return {"name": ..., "fingerprint": ...}: two things are
the same if their fingerprints are equal; the name is for people.

Large files are sampled. Up to 16 MiB all bytes are hashed; above that the size, the header of a safetensors file, and
4 KiB at the beginning, middle and end of every tensor (for another format: 256 evenly spaced blocks), so a checkpoint
of gigabytes takes milliseconds. A change that misses every sampled block goes unnoticed, but a training step changes
all tensors, and the config, the tokenizer and the chat template are hashed whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prm_gym.safetensors_header import read_header
from prm_gym.unicode import well_formed

if TYPE_CHECKING:
    from prm_gym.envs.contract import Task
    from prm_gym.prompts import Prompt

Identity = dict[str, Any]
"""{"name": for people, "fingerprint": what is compared}, and further facts for people."""

_WHOLE = 1 << 24  # bytes; a file up to this size is read to its end
_BLOCK = 4096
_BLOCKS = 256  # of a large file whose format is not known
# The files that a model's outputs depend on, without those of training (optimizer, logs, arguments).
_MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "adapter_model.bin",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*",
    "vocab.*",
    "merges.txt",
    "*.model",
)


def of_text(text: str) -> str:
    """The fingerprint of a text."""
    return blake2b(well_formed(text).encode(), digest_size=8).hexdigest()


def of_settings(name: str, settings: Mapping[str, Any]) -> Identity:
    """JSON values, such as those an environment is made with."""
    return {"name": name, "fingerprint": of_text(json.dumps(settings, sort_keys=True))}


def of_prompt(prompt: Prompt) -> Identity:
    """A prompt template, by its source."""
    return {"name": prompt.name, "fingerprint": of_text(prompt.source)}


def of_checkpoint(folder: str | PathLike[str]) -> Identity:
    """A model folder, by its weights, config, tokenizer and chat template. A name without a local folder (a model of a
    server) is fingerprinted as text.

    Raises `UserError` if a safetensors file is truncated or has no header.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return {"name": str(folder), "fingerprint": of_text(str(folder))}
    found = {file for pattern in _MODEL_FILES for file in folder.glob(pattern) if file.is_file()}
    return {"name": str(folder), "fingerprint": _of_files(folder, found)}


def of_games(games: Iterable[Task]) -> Identity:
    """Games, by their ids and their content, in any order. Files are read only if a game has no `digest`, which
    `find_games` sets.
    """
    lines = sorted(f"{game.game_id} {game.content()}\n" for game in games)
    splits = sorted({game.split for game in games})
    return {"name": ", ".join(splits), "count": len(lines), "fingerprint": of_text("".join(lines))}


def of_folder(folder: str | PathLike[str]) -> Identity:
    """A checkpoint if it has a config.json, else a dataset or episodes, by the Parquet files."""
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return of_checkpoint(folder)
    return {"name": str(folder), "fingerprint": _of_files(folder, folder.rglob("*.parquet"))}


def _of_files(folder: Path, files: Iterable[Path]) -> str:
    """By the relative paths, sizes and (sampled) bytes of the files."""
    state = blake2b(digest_size=8)
    for file in sorted(files):
        size = file.stat().st_size
        state.update(well_formed(f"{file.relative_to(folder).as_posix()} {size}\n").encode())
        with file.open("rb") as opened:
            if size <= _WHOLE:
                state.update(opened.read())
                continue
            blocks = _tensor_blocks(file) if file.suffix == ".safetensors" else _even_blocks(size)
            for start, length in blocks:
                opened.seek(start)
                state.update(opened.read(length))
    return state.hexdigest()


def _tensor_blocks(file: Path) -> Iterator[tuple[int, int]]:
    """(start, length) of the header and of the blocks to read of each tensor."""
    begin, tensors = read_header(file)
    yield 0, begin
    for first, end in (of["data_offsets"] for of in tensors.values()):
        for start in {first, max(first, (first + end - _BLOCK) // 2), max(first, end - _BLOCK)}:
            yield begin + start, min(_BLOCK, end - start)


def _even_blocks(size: int) -> Iterator[tuple[int, int]]:
    for block in range(_BLOCKS):
        yield (size - _BLOCK) * block // (_BLOCKS - 1), _BLOCK
