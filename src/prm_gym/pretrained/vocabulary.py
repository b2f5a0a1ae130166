"""A BPE vocabulary reduced to the tokens that a corpus needs.

The kept tokens are those of the corpus, the special ones, those of the 256 bytes, and all tokens that these are merged
from. BPE repeatedly merges the pair that comes first in its list. On a text of the corpus, every pair that it merges is
kept and no pair is added, so the same pairs are merged in the same order: the tokens are those of the whole vocabulary.
Any other text is encoded in smaller pieces, if need be in bytes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prm_gym.errors import UserError

_POST_PROCESSORS = ("ByteLevel", "Sequence", "TemplateProcessing")


def cut(definition: str, used: Iterable[int], where: Any) -> tuple[str, list[int]]:
    """A tokenizer for texts made of the ids `used`.

    Parameters
    ----------
    definition
        A tokenizer.json.
    used
        Ids to keep: those of the corpus and of the special tokens.

    Returns the tokenizer.json of the cut vocabulary, and for each of its ids the id before, in ascending order.
    Raises `UserError` naming `where` for a tokenizer that is not BPE or cannot encode every byte.
    """
    tokenizer = json.loads(definition)
    model = tokenizer["model"]
    vocabulary: dict[str, int] = model["vocab"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _whole(where, "is no plain BPE")
    added = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    tokens = {index: token for token, index in vocabulary.items()}
    tokens |= {entry["id"]: token for token, entry in added.items()}
    kept = {tokens[index] for index in used} | _bytes(tokenizer, where)
    if model.get("unk_token"):
        kept.add(model["unk_token"])
    kept |= _parts(kept, model["merges"])

    old = sorted({vocabulary[token] if token in vocabulary else added[token]["id"] for token in kept})
    new = {tokens[index]: number for number, index in enumerate(old)}
    pairs = map(_pair, model["merges"])
    model["vocab"] = {token: new[token] for token in sorted(kept & vocabulary.keys(), key=new.__getitem__)}
    model["merges"] = [[one, two] for one, two in pairs if {one, two, one + two} <= kept]
    tokenizer["added_tokens"] = [
        {**entry, "id": new[token]} for token, entry in sorted(added.items(), key=lambda item: item[1]["id"])
        if token in kept
    ]  # fmt: skip
    _renumber(tokenizer.get("post_processor"), new, where)
    return json.dumps(tokenizer, ensure_ascii=False), old


def _bytes(tokenizer: Mapping[str, Any], where: Any) -> set[str]:
    """The tokens of the 256 bytes, which can encode any text."""
    vocabulary = tokenizer["model"]["vocab"]
    if tokenizer["model"].get("byte_fallback"):
        alphabet = {f"<0x{byte:02X}>" for byte in range(256)}
    elif any(step.get("type") == "ByteLevel" for step in _steps(tokenizer)):
        from tokenizers.pre_tokenizers import ByteLevel

        alphabet = set(ByteLevel.alphabet())
    else:
        raise _whole(where, "has no bytes to spell other texts with")
    if not alphabet <= vocabulary.keys():
        raise _whole(where, "lacks some of the 256 bytes")
    return alphabet


def _steps(tokenizer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Normalizers and pre-tokenizers, those in sequences too."""
    for name in ("normalizer", "pre_tokenizer"):
        step = tokenizer.get(name) or {}
        yield from [step, *step.get("normalizers", []), *step.get("pretokenizers", [])]


def _parts(tokens: set[str], merges: Iterable[Any]) -> set[str]:
    """All tokens that `tokens` can be merged from, in one step or several."""
    parts: dict[str, set[str]] = defaultdict(set)
    for one, two in map(_pair, merges):
        parts[one + two] |= {one, two}
    found, todo = set[str](), list(tokens)
    while todo:
        new = parts[todo.pop()] - found
        found |= new
        todo.extend(new)
    return found


def _pair(merge: Any) -> tuple[str, str]:
    """A merge, which older files write as one text."""
    one, two = merge.split(" ") if isinstance(merge, str) else merge
    return one, two


def _renumber(processor: dict[str, Any] | None, new: Mapping[str, int], where: Any) -> None:
    """Renumber the special tokens that the post-processor puts around every text."""
    if processor is None:
        return
    if processor["type"] not in _POST_PROCESSORS:
        raise _whole(where, f"has a post-processor {processor['type']}, whose ids cannot be renumbered")
    for inner in processor.get("processors", []):
        _renumber(inner, new, where)
    for entry in processor.get("special_tokens", {}).values():
        entry["ids"] = [new[token] for token in entry["tokens"]]


def _whole(where: Any, problem: str) -> UserError:
    return UserError(where, f"its tokenizer {problem}", "keep the whole vocabulary")
