"""The observation space: a `gymnasium.spaces.Text` that works with the shared memory of `AsyncVectorEnv`.

Gymnasium's own functions for Text read the memory once, before the first reset, so all later observations are blank.
Here the memory holds the length and the UTF-8 bytes of each text. Reading gives a view; `AsyncVectorEnv` copies it at
every step, and the copy holds the texts of that step.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, overload

from gymnasium.spaces import Text
from gymnasium.vector.utils import shared_memory as memory

_LENGTH = struct.Struct("<q")
_BYTES_PER_CHARACTER = 4  # at most, in UTF-8


class ObservationText(Text):
    """`Text` whose shared memory works."""


class SharedTexts(Sequence[str]):
    """A view of the texts in the shared memory. A deep copy is a tuple of the current texts."""

    def __init__(self, buffer: memoryview, count: int) -> None:
        self._buffer, self._count = buffer, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._count)))
        size = len(self._buffer) // self._count
        start = range(self._count)[index] * size
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        start += _LENGTH.size
        return bytes(self._buffer[start : start + length]).decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


def _size(space: Text) -> int:
    return _LENGTH.size + _BYTES_PER_CHARACTER * space.max_length


def _bytes(shared: Any) -> memoryview:
    return memoryview(shared.get_obj()).cast("B")


@memory.create_shared_memory.register(ObservationText)
def _create(space: ObservationText, n: int = 1, ctx: Any = None) -> Any:
    return ctx.Array("b", n * _size(space))


@memory.read_from_shared_memory.register(ObservationText)
def _read(space: ObservationText, shared_memory: Any, n: int = 1) -> SharedTexts:
    return SharedTexts(_bytes(shared_memory), n)


@memory.write_to_shared_memory.register(ObservationText)
def _write(space: ObservationText, index: int, value: str, shared_memory: Any) -> None:
    encoded = value.encode("utf-8", "surrogatepass")
    if len(value) > space.max_length:
        raise ValueError(f"an observation of {len(value):,} characters; the space holds {space.max_length:,}")
    buffer, start = _bytes(shared_memory), index * _size(space)
    _LENGTH.pack_into(buffer, start, len(encoded))
    start += _LENGTH.size
    buffer[start : start + len(encoded)] = encoded
