"""Convert label folders to `.jsonl` files, named by their content, for the host.

The host opens local data only as `.jsonl` with the split "train", and keys its cache of tokenised data by file name,
not content. So each folder written by `prm-gym label` (or `.jsonl` file) is written to `<split>-<hash>.jsonl` with the
columns of the stage; new labels get a new name. Each row is checked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from socket import gethostname
from typing import Any

from prm_gym.errors import UserError

Row = dict[str, Any]


def is_local(source: str) -> bool:
    return Path(source).exists() or source.endswith((".jsonl", ".json")) or source.startswith((".", "/", "~"))


def read_rows(source: str, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of one split of a label folder, or of a `.jsonl` file whatever the split; `UserError` if it has none."""
    from datasets import load_dataset

    if not Path(source).exists():
        raise UserError(source, "no such data set", "run `prm-gym label` first, or check the path")
    try:
        if Path(source).is_dir():
            dataset = load_dataset(source, split=split)
        else:
            dataset = load_dataset("json", data_files=source, split="train")
    except (ValueError, FileNotFoundError) as error:  # an unknown split, an empty folder
        raise UserError(source, f"cannot read split '{split}' ({error})", "check the folder and the split") from error
    missing = [name for name in columns if name not in dataset.column_names]
    if missing:
        raise UserError(source, f"has no column {', '.join(missing)}", "use the label kind that this stage reads")
    if not len(dataset):
        raise UserError(source, f"split '{split}' is empty", "collect more games, or another share of test games")
    yield from dataset.select_columns(list(columns))


def read_local(sources: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
    """The rows of the local `sources` of a localised mixer."""
    for source in sources:
        if is_local(source):
            yield from read_rows(source, "train", columns)


def write_jsonl(rows: Iterator[Row], folder: Path, split: str) -> tuple[str, int]:
    """Write `rows` atomically to `folder/<split>-<hash of the content>.jsonl`; returns its path and number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    digest, count = blake2b(digest_size=8), 0
    partial = (
        folder / f".{split}-{gethostname()}-{os.getpid()}.partial"
    )  # several processes, or nodes, may do this at once
    with partial.open("wb") as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            file.write(line)
            count += 1
    path = folder / f"{split}-{digest.hexdigest()}.jsonl"
    os.replace(partial, path)
    return str(path.resolve()), count


def localise(
    mixer: Sequence[tuple[str, Any]],
    splits: Sequence[str],
    columns: Sequence[str],
    folder: Path,
    check: Callable[[Row, str], list[Row]],
    where: str,
    field: str,
) -> tuple[list[tuple[str, Any]], list[str], int]:
    """Each (data set, share) of a mixer with its path replaced by a `.jsonl` file; the splits; the rows in all.

    `check(row, source)` returns the rows to write, or raises. Other names are left to the host, which looks them up on
    the Hub; their rows are not counted.
    """
    if not mixer:
        raise UserError(where, "no data set", "name a folder written by `prm-gym label`, with its share", field=field)
    splits = list(splits) * len(mixer) if len(splits) == 1 else list(splits)
    if len(splits) != len(mixer):
        problem = f"{len(splits)} splits for {len(mixer)} data sets"
        raise UserError(where, problem, "give one split for each", field=field)
    local: list[tuple[str, Any]] = []
    new_splits, total = [], 0
    for (source, share), split in zip(mixer, splits, strict=True):
        if not is_local(source):
            local.append((source, share))
            new_splits.append(split)
            continue
        source = os.path.expanduser(source)
        rows = (each for row in read_rows(source, split, columns) for each in check(row, source))
        checked = ({**row, "row": total + i} for i, row in enumerate(rows))
        path, count = write_jsonl(checked, folder, split)
        local.append((path, share))
        new_splits.append("train")
        total += count
    return local, new_splits, total


def localise_list(
    args: Any, field: str, columns: Sequence[str], check: Callable[[Row, str], list[Row]], recipe: Path, *, default: str
) -> int:
    """`localise` for the host's flat lists: [data set, share, ...] in `args.<field>`, splits in `args.<field>_splits`.

    Without splits, `default` is read. Returns the number of rows.
    """
    flat, splits = getattr(args, field), getattr(args, f"{field}_splits") or [default]
    if len(flat) % 2:
        raise UserError(recipe, "must alternate data sets and shares", 'as in [FOLDER, "1.0"]', field=field)
    mixer = list(zip(flat[::2], flat[1::2], strict=True))
    folder = Path(args.dataset_local_cache_dir)
    local, splits, rows = localise(mixer, splits, columns, folder, check, str(recipe), field)
    setattr(args, field, [word for name, share in local for word in (name, str(share))])
    # The host looks a split up at the place of its data set in the flat list.
    setattr(args, f"{field}_splits", [split for split in splits for _ in range(2)])
    return rows
