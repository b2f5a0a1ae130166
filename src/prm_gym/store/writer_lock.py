"""One writer a folder, by a lock that the operating system releases when the process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from prm_gym.errors import UserError

LOCK = ".writer.lock"
_held: set[Path] = set()  # POSIX locks do not exclude writers of the same process


class WriterLock:
    """Lock `folder` until `release`, or as a context manager.

    `of` is the folder that errors name, if another. Raises `UserError` if a writer of this process or another has it.
    """

    def __init__(self, folder: Path, of: Path | None = None) -> None:
        refusal = UserError(of or folder, "another process is writing here", "wait for it, or choose another folder")
        self._folder = folder.resolve()
        if self._folder in _held:
            raise refusal
        try:
            self._file = (folder / LOCK).open("wb")
        except FileNotFoundError:  # its writer has just moved the folder away
            raise refusal from None
        try:
            # Child processes do not inherit a POSIX record lock, so the workers of a killed rollout do not keep it.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._file.fileno()), (folder / LOCK).stat()):
                raise BlockingIOError  # moved away between the two
        except OSError:
            self._file.close()
            raise refusal from None
        _held.add(self._folder)

    @property
    def released(self) -> bool:
        return self._file.closed

    def release(self) -> None:
        """Let another writer have the folder. A second call does nothing."""
        if not self.released:
            _held.discard(self._folder)
            self._file.close()

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def being_written(folder: str | Path) -> bool:
    """Whether a writer, of this process or another, has the folder open."""
    folder = Path(folder)
    if folder.resolve() in _held:  # first, since closing the lock file below would release this process's lock
        return True
    try:
        file = (folder / LOCK).open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return False
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
