"""The KV cache of many sequences, kept between calls: a prompt that extends an earlier one costs only its new tokens.

A slot is one row of the per-layer tensors [slots, heads, columns, size]. Token p of a sequence is in column p, rotated
for position p, so any prefix of a slot is valid by itself. A batch runs in place: its slots are swapped until they are
adjacent, and the model reads and writes a slice of the tensors. A batch of the same sequences again, as in a rollout,
copies nothing. A sequence takes over the slot that shares the longest prefix with it, unless that would discard more
than it keeps; then the prefix is copied to the least recently used slot, as for a branch.

Left out: which columns a layer may see (`attention_masks`).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache

from prm_gym.inference.kv_shapes import KVShape

Tokens = NDArray[np.int32]
Index = NDArray[np.int64]

_FIRST_COLUMNS = 512
_FIRST_BLOCK = 32


@dataclass(slots=True)
class Placement:
    """The slots of a batch: batch item i is in slot `start + row[i]`.

    Row r < len(leaders) belongs to item `leaders[r]`, whose first `cached[r]` tokens are cached. The rows after them
    belong to items equal to a leader, and are to be copied from the rows `copied_from`.
    """

    start: int
    row: Index
    leaders: Index
    cached: Index
    copied_from: Index

    @property
    def source(self) -> Index:
        """For every row, the row that computes its prompt."""
        return np.append(np.arange(len(self.leaders)), self.copied_from)


class KVCache(Cache):  # type: ignore[misc]
    """At most `max_slots` sequences of up to `max_length` tokens, in at most `memory_bytes` unless one alone is larger.

    `shapes` has an entry for each layer. Columns are allocated for the longest sequence so far (doubling), and the more
    columns, the fewer slots fit. As a transformers `Cache` it reads and writes the slots of the last `point_at`.
    """

    def __init__(
        self,
        shapes: Sequence[KVShape],
        *,
        max_slots: int,
        max_length: int,
        memory_bytes: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(layers=[])
        self._max_slots = max_slots
        self._max_columns = max_length + 1  # padding is written to the last column
        self._memory_bytes = memory_bytes
        self._stores = [  # keys and values of layer l at 2l and 2l + 1
            torch.empty(0, heads, 0, size, device=device, dtype=dtype)
            for heads, key_size, value_size in shapes
            for size in (key_size, value_size)
        ]
        self._tokens: Tokens = np.zeros((0, 0), np.int32)
        self._length: Index = np.zeros(0, np.int64)
        self._used: Index = np.zeros(0, np.int64)
        self._clock = 0

    # Sequences and slots

    def reserve(self, columns: int) -> int:
        """Make room for sequences of `columns` tokens; returns how many of them fit at once, at least one.

        If fewer slots remain than before, the least recently used are evicted.
        """
        old = int(self._tokens.shape[1])
        if columns < old:
            return len(self._length)
        columns = min(self._max_columns, max(columns + 1, 2 * old, _FIRST_COLUMNS))
        token_bytes = sum(store.shape[1] * store.shape[3] * store.dtype.itemsize for store in self._stores)
        slots: int = max(1, min(self._max_slots, self._memory_bytes // (columns * token_bytes)))
        keep = np.argsort(-self._used, kind="stable")[:slots]
        keep.sort()
        for i, store in enumerate(self._stores):
            grown = _zeros((slots, store.shape[1], columns, store.shape[3]), store)
            grown[: len(keep), :, :old] = store[torch.from_numpy(keep).to(store.device)]
            self._stores[i] = grown
        tokens = np.zeros((slots, columns), np.int32)
        tokens[: len(keep), :old] = self._tokens[keep]
        self._tokens = tokens
        self._length = np.append(self._length[keep], np.zeros(slots - len(keep), np.int64))
        self._used = np.append(self._used[keep], np.zeros(slots - len(keep), np.int64))
        return slots

    def place(self, prompts: Sequence[Tokens]) -> Placement:
        """Assign a slot to each prompt, after `reserve` for as many of their length.

        Equal prompts have one leader. At least one token of a leader is left to compute. The slots count as empty
        until `commit`.
        """
        self._clock += 1
        first_of: dict[bytes, int] = {}
        leader_of = [first_of.setdefault(prompt.tobytes(), i) for i, prompt in enumerate(prompts)]
        leaders = np.array(sorted(first_of.values()))
        followers = np.array([i for i, leader in enumerate(leader_of) if i != leader], np.int64)

        slot = np.full(len(prompts), -1)
        cached = np.zeros(len(prompts), np.int64)
        taken = np.zeros(len(self._length), bool)
        copies: list[tuple[int, int]] = []  # (slot to read, item)
        for i in leaders:
            source, cached[i] = self._longest_prefix(prompts[i][:-1], taken)
            if not cached[i]:
                continue
            self._used[source] = self._clock
            if taken[source] or self._length[source] > 2 * cached[i]:
                copies.append((source, i))
            else:
                slot[i], taken[source] = source, True
        new = np.flatnonzero(slot < 0)
        slot[new] = np.argsort(np.where(taken, np.iinfo(np.int64).max, self._used), kind="stable")[: len(new)]
        if copies:
            sources, items = np.array(copies).T
            self._copy(sources, slot[items], int(cached[items].max()))
        self._length[slot[new]] = cached[new]
        start = self._make_adjacent(slot, leaders, followers)
        self._length[slot] = 0
        self._used[slot] = self._clock

        row = slot - start
        leaders = leaders[np.argsort(row[leaders])]
        followers = followers[np.argsort(row[followers])]
        copied_from = np.array([row[leader_of[i]] for i in followers], np.int64)
        return Placement(start, row, leaders, cached[leaders], copied_from)

    def cached(self, tokens: Tokens) -> int:
        """How many of the first `tokens` are cached."""
        return self._longest_prefix(tokens, np.zeros(len(self._length), bool))[1]

    def commit(self, slot: int, tokens: Tokens) -> None:
        """Record that `slot` now holds the keys and values of `tokens`."""
        self._tokens[slot, : len(tokens)] = tokens
        self._length[slot] = len(tokens)

    def copy_to(self, start: int, sources: Index, columns: int) -> None:
        """Copy the first `columns` columns of the slots `sources` to the slots from `start` on."""
        self._copy(sources, np.arange(start, start + len(sources)), columns)

    def swap(self, first: Index, second: Index, columns: int | None = None) -> None:
        """Exchange slots `first[i]` and `second[i]`, all different, up to `columns`; by default their sequences."""
        there, here = np.concatenate([first, second]), np.concatenate([second, first])
        if columns is None:
            full = self._length[there] > 0
            self._copy(there[full], here[full], int(self._length[there].max()))
        else:
            self._copy(there, here, columns)
        for record in (self._tokens, self._length, self._used):
            record[here] = record[there]

    def _longest_prefix(self, tokens: Tokens, taken: NDArray[np.bool_]) -> tuple[int, int]:
        """The slot with the longest common prefix, and its length; of equals one not `taken`, then the shortest."""
        candidates = np.flatnonzero(self._length)
        shared, block = 0, _FIRST_BLOCK
        while len(candidates) and shared < len(tokens):
            piece = tokens[shared : shared + block]
            equal = self._tokens[candidates, shared : shared + len(piece)] == piece
            run = np.where(equal.all(1), len(piece), equal.argmin(1))
            run = np.minimum(run, self._length[candidates] - shared)
            most = int(run.max())
            candidates = candidates[run == most]
            shared += most
            block *= 2
            if most < len(piece):
                break
        if not shared:
            return -1, 0
        order = np.lexsort((self._length[candidates], taken[candidates]))
        return int(candidates[order[0]]), shared

    def _make_adjacent(self, slot: Index, leaders: Index, followers: Index) -> int:
        """Swap slots until the leaders, then the followers, are adjacent. Updates `slot`; returns the first of them."""
        led = np.zeros(len(self._length) + 1, np.int64)
        led[slot[leaders] + 1] = 1
        led = np.cumsum(led)
        starts = len(self._length) - len(slot) + 1
        start = int((led[len(leaders) : len(leaders) + starts] - led[:starts]).argmax())
        for group, begin in ((leaders, start), (followers, start + len(leaders))):
            places = np.arange(begin, begin + len(group))
            away = np.setdiff1d(slot[group], places)
            holes = np.setdiff1d(places, slot[group])
            if len(away):
                self.swap(away, holes)
                moved = np.arange(len(self._length))
                moved[away], moved[holes] = holes, away
                slot[:] = moved[slot]
        return start

    def _copy(self, sources: Index, targets: Index, columns: int) -> None:
        if not columns:
            return
        device = self._stores[0].device
        if device.type == "cpu":  # numpy copies the blocks three to four times as fast as torch
            for store in self._stores:
                blocks = store.view(torch.uint8).numpy()
                blocks[targets, :, :columns] = blocks[sources, :, :columns]
        else:
            read, write = (torch.from_numpy(slots).to(device) for slots in (sources, targets))
            for store in self._stores:
                store[write, :, :columns] = store[read, :, :columns]

    # The interface of a transformers cache

    @property
    def spare_column(self) -> int:
        """The column for the keys of padding; no sequence uses it."""
        return int(self._tokens.shape[1]) - 1

    def point_at(self, slots: slice | torch.Tensor, columns: torch.Tensor, width: int) -> None:
        """Set where the next forward pass writes, `slots` at `columns` [rows, T], and that it reads them up to `width`.

        A slice of slots is read in place, an index tensor copies them.
        """
        self._read = slots
        rows = torch.arange(slots.start, slots.stop, device=columns.device) if isinstance(slots, slice) else slots
        self._write = (rows[:, None], slice(None), columns)
        self._width = width

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys and values [B, heads, T, size] of one layer; returns those of the whole sequences."""
        keys, values = self._stores[2 * layer_idx : 2 * layer_idx + 2]
        keys[self._write] = key_states.transpose(1, 2)
        values[self._write] = value_states.transpose(1, 2)
        return keys[self._read, :, : self._width], values[self._read, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Always 0: positions and masks are given to the model explicitly."""
        return 0


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros, since a masked column has weight 0, which does not hide a NaN. On a CPU a page takes no memory until
    written, and pages are small: numpy asks for huge ones, so that a few columns would take those of many slots.
    """
    size = math.prod(shape) * like.dtype.itemsize
    if like.device.type != "cpu" or not size:
        return like.new_zeros(shape)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # some systems have no huge pages
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(pages, dtype=like.dtype).view(shape)
