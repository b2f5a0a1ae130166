"""A text as token ids, line by line, with the ids of known lines from a cache.

A prompt repeats the lines of the one before and adds its own, so its ids cost what the new lines cost. The text is cut
after a line break between two visible characters, and after the token that ends a turn. The ids are those of the whole
text if no token spans a cut and no rule looks across it. `LineEncoder` checks this once per tokenizer. Where it does
not hold, whole texts are encoded:

- The model is BPE without dropout, or Unigram with integer scores (sums of others are rounded, and ties broken, by what
  stands before). No token has a line break before another character. If the pre-tokenizer does not cut at line breaks,
  the model does not look up whole words (`ignore_merges`) and has a token for every byte (without, it drops unknown
  characters, and their neighbours meet).
- No added token strips white space on its left. Cuts after the end token need one that strips none at all, and no
  longer token that contains it.
- For visible characters of every kind around a line break, and around the end token, the parts give the ids of the
  whole. This finds prefixes that are added to every text, normalisers that strip, and rules that look ahead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_KEPT = 32_768  # lines
_WORD = "w"
_COMMON = "a7.-"
_KINDS = [*_COMMON, "Z", "é", "中", "я", "\u0301", "😀", "\u200b", "\ufffd", "▁", *"!\"#$%&'()*+,/:;<=>?@[]^_`{|}~"]
# A line break (Ċ in byte-level vocabularies) before a visible character (Ġ, ĉ and č are a space, a tab and a return).
_SPANNING = re.compile(r"[\nĊ](?=[^\sĊĠĉč\0])")


class LineEncoder:
    """Encodes texts with `tokenizer`; `end` is the token that ends a turn, or ""."""

    def __init__(self, tokenizer: Any, end: str = "") -> None:
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._line = lru_cache(_KEPT)(self._encode)
        self._end = ""
        self.by_line = self._backend is not None and _keeps_lines_apart(tokenizer, self._backend)
        self.by_line = self.by_line and self._agree(tokenizer, "\n")
        if self.by_line and end and _stands_alone(self._backend, end) and self._agree(tokenizer, end):
            self._end = end

    def encode(self, tokenizer: Any, text: str) -> list[int]:
        """The ids of `text` without special tokens around it, by `tokenizer` as it was given to the constructor."""
        if not self.by_line:
            return _encode_whole(tokenizer, text)
        ids: list[int] = []
        for piece in self._pieces(text):
            ids += self._line(piece)
        return ids

    def _pieces(self, text: str) -> Iterator[str]:
        turns = text.split(self._end) if self._end else [text]
        for turn in turns[:-1]:
            yield from _lines(turn + self._end)
        if turns[-1]:
            yield from _lines(turns[-1])

    def _encode(self, text: str) -> list[int]:
        backend = self._backend
        if backend.truncation is not None:  # left by another call of the tokenizer
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    def _agree(self, tokenizer: Any, border: str) -> bool:
        """Whether texts cut after `border` give the ids of the whole, and the backend those of the tokenizer."""
        return all(
            self._encode(one) + self._encode(other)
            == self._encode(one + other)
            == _encode_whole(tokenizer, one + other)
            for one, other in _around(border)
        )


def _lines(text: str) -> Iterator[str]:
    first, *rest = text.split("\n")
    line = first
    for part in rest:
        if line and part and not line[-1].isspace() and not part[0].isspace():
            yield line + "\n"
            line = part
        else:
            line += "\n" + part
    yield line


def _encode_whole(tokenizer: Any, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]


def _around(border: str) -> Iterator[tuple[str, str]]:
    """Short texts on both sides of a cut after `border`."""
    for kind in _KINDS:
        for common in _COMMON:
            yield f"{_WORD}{kind}{border}", f"{common}{_WORD}"
            yield f"{_WORD}{common}{border}", f"{kind}{_WORD}"


def _keeps_lines_apart(tokenizer: Any, backend: Any) -> bool:
    """Whether no token spans a line break and what follows it (see the module)."""
    model = backend.model
    kind = type(model).__name__
    if getattr(tokenizer, "split_special_tokens", False) or getattr(model, "dropout", None):
        return False
    if kind == "Unigram":
        stored = json.loads(backend.to_str())["model"]
        if any(score != int(score) for _, score in stored["vocab"]):
            return False
        spells_bytes = stored["byte_fallback"]
    elif kind == "BPE":
        spells_bytes = model.byte_fallback
    else:
        return False
    known = backend.get_vocab(with_added_tokens=True)
    if not _cuts_at_line_breaks(backend):
        complete = spells_bytes and all(f"<0x{byte:02X}>" in known for byte in range(256))
        if not complete or getattr(model, "ignore_merges", False):
            return False
    if any(token.lstrip for token in backend.get_added_tokens_decoder().values()):
        return False
    return not _SPANNING.search("\0".join(known))


def _cuts_at_line_breaks(backend: Any) -> bool:
    if backend.pre_tokenizer is None:
        return False
    words = backend.pre_tokenizer.pre_tokenize_str("a\nb")
    return any(end == 2 for _, (_, end) in words)


def _stands_alone(backend: Any, end: str) -> bool:
    """Whether `end` is an added token that is always matched as it is, whatever stands around it."""
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    token = added.get(end)
    if token is None or not token.special or token.normalized or token.rstrip or token.single_word:
        return False
    return not any(end in content for content in added if content != end)
