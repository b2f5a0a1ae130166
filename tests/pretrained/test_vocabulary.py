"""A cut vocabulary: the corpus is encoded as before, and any other text can still be encoded."""

from __future__ import annotations

import json
import random
from functools import cache

import pytest

pytest.importorskip("transformers", reason="needs the extra 'trl'")

import tokenizers
from bpe_tokenizers import KINDS, OTHERS, WORDS, byte_level, sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_gym.errors import UserError
from prm_gym.pretrained.vocabulary import cut

WHOLE = {kind: make() for kind, make in KINDS.items()}


@cache
def cut_to(kind: str, *texts: str) -> tuple[tokenizers.Tokenizer, list[int]]:
    used = {index for text in texts for index in WHOLE[kind].encode(text).ids}
    definition, old = cut(WHOLE[kind].to_str(), used, "a model")
    return tokenizers.Tokenizer.from_str(definition), old


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_texts_of_the_corpus_keep_their_tokens(kind: str, seed: int) -> None:
    rng, words = random.Random(seed), [*WORDS.split(" "), *OTHERS.split(" "), "\n\n\n", "<start>"]
    texts = [" ".join(rng.choices(words, k=8)) for _ in range(4)]
    small, old = cut_to(kind, *texts)
    assert small.get_vocab_size() == len(old) < 0.9 * WHOLE[kind].get_vocab_size()
    for text in texts:
        ids = small.encode(text).ids
        assert [old[index] for index in ids] == WHOLE[kind].encode(text).ids
        assert [small.id_to_token(index) for index in ids] == WHOLE[kind].encode(text).tokens


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40).filter(lambda text: "<" not in text and "▁" not in text))
def test_any_text_can_be_written(kind: str, text: str) -> None:
    small, _ = cut_to(kind, "You arrive at cabinet 1.")
    ids = small.encode(text, add_special_tokens=False).ids
    assert small.decode(ids) == text
    assert small.token_to_id("<unk>") not in ids


def test_parts_of_kept_tokens_are_kept_and_nothing_else() -> None:
    small, _ = cut_to("sentencepiece", "cabinet")
    named = {"<unk>", "<bos>"}  # the unknown token, and the one put before every text
    pieces = {token for token in small.get_vocab() if not token.startswith("<0x")} - named
    assert set(sentencepiece().encode("cabinet", add_special_tokens=False).tokens) <= pieces
    assert all(piece in "cabinet" for piece in pieces)
    assert {token for token in small.get_vocab() if token.startswith("<0x")} == {f"<0x{b:02X}>" for b in range(256)}


def test_special_tokens_stay_special_and_around_every_text() -> None:
    small, _ = cut_to("sentencepiece", "You<start> see<bos>")
    first = small.token_to_id("<bos>")
    assert small.encode("see").ids[0] == first != 2
    assert small.token_to_id("<unused>") is None
    assert small.decode(small.encode("You<start> see").ids, skip_special_tokens=True) == "You see"


def test_tokenizers_that_cannot_be_cut_are_refused() -> None:
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram([("a", 0.0)], 0, False))
    with pytest.raises(UserError, match=r"^a model: its tokenizer is no plain BPE; keep the whole vocabulary$"):
        cut(unigram.to_str(), {0}, "a model")
    with pytest.raises(UserError, match="has no bytes to spell other texts with"):
        cut(tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])).to_str(), {0}, "a model")
    without = json.loads(byte_level().to_str())
    without["model"]["vocab"] = {k: v for k, v in without["model"]["vocab"].items() if k not in "XY"}
    with pytest.raises(UserError, match="lacks some of the 256 bytes"):
        cut(json.dumps(without), {0}, "a model")
