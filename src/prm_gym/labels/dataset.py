"""The dataset of a label: Parquet for `train` and `test`, a dataset card, a provenance.json, and a report.

`datasets.load_dataset(OUT)` reads it. A split without rows is left out; that is never `train`: if only games of `test`
have rows, these become `train`. Rows are streamed, so memory does not grow with the dataset, and the folder is renamed
into place when it is complete. Only an earlier dataset of the same settings is ever replaced (it may have been made
from fewer episodes). Data files are named by their content.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym import provenance
from prm_gym.atomic import write_text
from prm_gym.errors import UserError
from prm_gym.labels.sql_views import Rollouts
from prm_gym.prompts import load
from prm_gym.provenance.fingerprints import of_folder, of_prompt
from prm_gym.store.writer_lock import LOCK, WriterLock

SPLITS = ("train", "test")
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PROVENANCE = [
    ("game_id", pa.string()),
    ("turn", pa.int32()),
    ("iteration", pa.int32()),
    ("policy_id", pa.string()),
    ("state_key", pa.binary()),
]
_BATCH = 1000


@dataclass(frozen=True)
class LabelReport:
    """Summary of a dataset, for the command line and the dataset card."""

    kind: str
    out: Path
    rows: dict[str, int]  # by split
    games: dict[str, int]  # with rows, by split
    used: dict[str, int]  # episodes that count, wins, branches, games
    skipped: dict[str, int]  # episodes that do not count, and rows left out, by reason
    statistics: dict[str, Any]
    note: str = ""  # about resumed work, for the terminal alone

    def lines(self) -> list[str]:
        """The report as `name: value` lines."""
        tables = {"rows": self.rows, "games": self.games, "used": self.used, "skipped": self.skipped}
        found = {**tables, **self.statistics}
        return [f"{name}: {_show(value)}" for name, value in found.items()]


class Dataset:
    """Writes a dataset, one process at a time. A context manager: leaving it without `finish` removes everything.

    Parameters
    ----------
    out
        The folder to make.
    kind
        The label's name.
    columns
        The label's own columns; the origin of a row (`_PROVENANCE`) is added to them.
    settings
        The arguments of the label, for the card and for provenance.json.
    made_with
        Further settings for provenance.json, as JSON values.

    Raises
    ------
    UserError
        `out` exists and is not a dataset of this kind and these settings, or another process is making it.
    """

    def __init__(
        self,
        out: Path,
        kind: str,
        columns: Sequence[tuple[str, pa.DataType]],
        settings: Mapping[str, Any],
        made_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.out, self.kind, self._settings = Path(out), kind, dict(settings)
        self._made_with = {"kind": "labels", "label": kind, **_as_settings(settings), **(made_with or {})}
        self.work = self.out.absolute().parent / f".{self.out.name}.unfinished"
        self.work.mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(self.work, self.out)
        self._schema = schema = pa.schema([*columns, *_PROVENANCE])
        self._waiting: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        try:
            self._refuse_others()
            _remove_all_but(self.work, LOCK)
            (self.work / "data").mkdir()
            self._writers = {
                split: pq.ParquetWriter(self.work / "data" / f"{split}.parquet", schema, compression="zstd")
                for split in SPLITS
            }
        except BaseException:
            self._close()
            raise
        self._rows = dict.fromkeys(SPLITS, 0)
        self._games: dict[str, set[str]] = {split: set() for split in SPLITS}

    def add(self, origin: Mapping[str, Any], **values: Any) -> None:
        """Add a row with the label's `values`; `origin`, a row of `turn_texts.visits`, has its split and provenance."""
        split = origin["split"]
        for name, _ in _PROVENANCE:
            values[name] = origin[name]
        self._waiting[split].append(values)
        self._rows[split] += 1
        self._games[split].add(origin["game_id"])
        if len(self._waiting[split]) >= _BATCH:
            self._write(split)

    def finish(
        self, source: Rollouts, statistics: dict[str, Any], left_out: Mapping[str, int] | None = None
    ) -> LabelReport:
        """Write the card, rename the folder into place, and close `source`. `left_out` counts rows by reason.

        Raises
        ------
        UserError
            There is no row.
        """
        if not sum(self._rows.values()):
            used = _show({**source.counts(), **(left_out or {})})
            raise UserError(self.out, f"the selection has no row ({used})", "check the folders and the filters")
        for split, writer in self._writers.items():
            self._write(split)
            writer.close()
        if not self._rows["train"]:
            self._train_on_test()
        files: dict[str, str] = {}
        for split in SPLITS:
            written = self.work / "data" / f"{split}.parquet"
            if self._rows[split]:
                files[split] = f"data/{split}-{_digest(written)}.parquet"
                written.rename(self.work / files[split])
            else:  # `datasets` does not load a split without rows
                written.unlink()
        games = {split: len(found) for split, found in self._games.items()}
        skipped = {**source.skipped(), **{name: n for name, n in (left_out or {}).items() if n}}
        report = LabelReport(self.kind, self.out, self._rows, games, source.counts(), skipped, statistics)
        source.db.close()
        write_text(self.work / "README.md", _card(report, self._settings, files))
        provenance.write(self.work, self._made_with)
        _remove_all_but(self.work, "data", "README.md", provenance.FILE, LOCK)
        shutil.rmtree(self.out, ignore_errors=True)
        self.work.rename(self.out)
        (self.out / LOCK).unlink()
        self._lock.release()
        return report

    def _train_on_test(self) -> None:
        """Make `test` the `train` split: no other game of a small set has a row."""
        data = self.work / "data"
        (data / "test.parquet").replace(data / "train.parquet")
        (data / "test.parquet").touch()
        self._rows = {"train": self._rows["test"], "test": 0}
        self._games = {"train": self._games["test"], "test": set()}

    def _write(self, split: str) -> None:
        if self._waiting[split]:
            self._writers[split].write_table(pa.Table.from_pylist(self._waiting[split], schema=self._schema))
            self._waiting[split] = []

    def _refuse_others(self) -> None:
        """Raise `UserError` unless there is no folder, or an empty one, or a dataset of the same settings."""
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return
        card, remedy = self.out / "README.md", "remove it or name another folder"
        if not card.is_file() or _mark(self.kind) not in card.read_text(encoding="utf-8", errors="replace"):
            raise UserError(self.out, f"is there and is no {self.kind} dataset", remedy)
        record = provenance.read(self.out)
        if record is None:
            raise UserError(self.out, f"is a {self.kind} dataset without a {provenance.FILE}", remedy)
        former, now = _regardless_of_amount(record["settings"]), _regardless_of_amount(self._made_with)
        provenance.refuse_others(self.out / provenance.FILE, former, now, remedy)

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            if writer.is_open:
                writer.close()
        self._close()

    def _close(self) -> None:
        if not self._lock.released:
            shutil.rmtree(self.work, ignore_errors=True)
            self._lock.release()


def _remove_all_but(folder: Path, *names: str) -> None:
    for entry in list(folder.iterdir()):
        if entry.name not in names:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def name_of(settings: Mapping[str, Any] | None) -> str | None:
    """The model in the settings of a policy or a scorer, or in an identity, for the command on the card."""
    model = (settings or {}).get("model", settings) or {}
    return model.get("name") if isinstance(model, Mapping) else model


def _as_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a label as JSON values: folders by their content and settings, the prompt by its source."""

    def as_setting(value: Any) -> Any:
        if isinstance(value, Path):
            record = provenance.read(value)
            return {**of_folder(value), "settings": record and record["settings"]}
        return [as_setting(each) for each in value] if isinstance(value, list | tuple) else value

    def as_prompt(name: str) -> dict[str, Any]:
        prompt = load(name)
        return {
            **of_prompt(prompt),
            "source": prompt.source,
        }  # models trained on these labels record it

    return {
        name: as_prompt(value) if name == "prompt" else as_setting(value)
        for name, value in arguments.items()
        if name not in ("out", "concurrency")
    }


def _regardless_of_amount(settings: Any) -> Any:
    """The settings, with each input folder identified by its own settings: more episodes may have been added to it."""
    if isinstance(settings, Mapping):
        made_of = {name: _regardless_of_amount(value) for name, value in settings.items()}
        known = made_of.get("settings")
        return {"name": settings["name"], "fingerprint": provenance.digest(known)} if known else made_of
    return [_regardless_of_amount(each) for each in settings] if isinstance(settings, list | tuple) else settings


def _mark(kind: str) -> str:
    return f"# {kind} labels by prm_gym"


def _digest(path: Path) -> str:
    """16 hex digits of the file's content, for its name: `datasets` keys its cache by file and folder names, so with
    fixed names it would return an older dataset.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _card(report: LabelReport, settings: Mapping[str, Any], files: Mapping[str, str]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("prm-gym", "duckdb", "pyarrow"))
    facts = "\n".join(f"- {line}" for line in report.lines())
    data_files = "\n".join(f"  - split: {split}\n    path: {path}" for split, path in files.items())
    return f"""---
configs:
- config_name: default
  data_files:
{data_files}
---
{_mark(report.kind)}

Train and test are split by game.

    {_command(report.kind, settings)}

{versions}

{facts}
"""


def _command(kind: str, settings: Mapping[str, Any]) -> str:
    words = ["prm-gym", "label", kind]
    for name, value in settings.items():
        if value is None or value is False or value == ():
            continue
        words.append("--" + name.replace("_", "-"))
        if isinstance(value, (list, tuple)):
            words += [str(item) for item in value]
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_show(entry)}" for name, entry in value.items()) or "none"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
