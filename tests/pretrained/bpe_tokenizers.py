"""Small BPE tokenizers of the two kinds that language models have, and random models for them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = (
    "You arrive at cabinet 1. On the cabinet 1, you see a candle 2, and a spraybottle 1.\n"
    "You open the drawer 4. The drawer 4 is open. In it, you see nothing.\n\nTask: put a clean candle in cabinet.\n"
)
OTHERS = (
    "Quantum electrodynamics was the first theory where full agreement between mechanics and relativity is achieved.\n"
    "Naïve façades, 東京 and Zürich; 3.14159 is less than 22/7! def main(): return [x for x in range(10)]\n\n"
)


def sentencepiece() -> Tokenizer:
    """As Llama 2, Mistral and Gemma have it: spaces are pieces, whole texts are merged, bytes are the fallback.

    Its merges are all the ways to make a piece of two others, which is how files of SentencePiece are converted.
    """
    vocabulary = {token: index for index, token in enumerate(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))}
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained.train_from_iterator([WORDS, OTHERS] * 5, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    for token in sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [
        (token[:split], token[split:])
        for token in vocabulary
        for split in range(1, len(token))
        if not token.startswith("<0x") and {token[:split], token[split:]} <= vocabulary.keys()
    ]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()],
    )
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start>", "<end>", "<unused>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("\n\n", "\n\n\n")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return tokenizer


def byte_level(ignore_merges: bool = False) -> Tokenizer:
    """As GPT-2, Llama 3, Qwen and OLMo have it: words are split first, pieces are made of the 256 bytes."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=" ", behavior="merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([WORDS, OTHERS] * 5, trainer)
    added = ("<eos>", "<end>", "<start>", "<unused>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return tokenizer


KINDS = {
    "sentencepiece": sentencepiece,
    "byte level": byte_level,
    "byte level, whole words first": lambda: byte_level(ignore_merges=True),
}


def write_model(folder: Path, *, tied: bool = True, kind: str = "sentencepiece", template: str | None = None) -> None:
    """A random Gemma 3 of two layers and its tokenizer: the last layer sees all, the other a window of 8 tokens."""
    special = {"eos_token": "<eos>"}
    if kind == "sentencepiece":
        special |= {"bos_token": "<bos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=KINDS[kind](), **special)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=len(tokenizer) + 3,  # more rows than tokens, as many models have
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = transformers.Gemma3ForCausalLM(config)
    stops = tokenizer.convert_tokens_to_ids(["<eos>", "<end>"])
    model.generation_config = transformers.GenerationConfig(eos_token_id=stops)
    model.save_pretrained(folder)
