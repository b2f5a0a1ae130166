"""A small Llama and its tokenizer made from scratch, so that the embedded recipes need no model hub.

The tokenizer has a token for every word of its training texts, for every object (" mug 1"), for every phrase between
objects ("You arrive at"), and for every byte, so that any text survives encoding and decoding. An object is one token
so that a small model copies it in one step, and does not confuse the type in the task (" mug") with an object that it
has seen. Its embedding begins as the sum of those of its type and its number, so that the model need not learn for each
object what it is. Role marks, the end of a turn and padding have tokens of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prm_gym.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PAD, ASSISTANT, END = "<|pad|>", "<|assistant|>", "<|end|>"
# Observations have no mark: they stand between END and ASSISTANT. So a model trained on whole conversations learns to
# predict at END the outcome of an action, and a PRM made from it reads its score at END. Past responses end with END
# too, so each prompt extends the previous one. TRL's `assistant_only_loss` needs the generation marks.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message.content }}<|end|>{% endgeneration %}{% else %}{{ message.content }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_PIECE = re.compile(r" ?[A-Za-z]+| ?\d|[^A-Za-z\d]")
_NAME = re.compile(r" ?([A-Za-z]+)(?= \d)")
_OFTEN = 20  # occurrences in all texts
_THING = re.compile(r" [A-Za-z]+ \d+")


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Words, objects, and the phrases between names and digits that occur often."""
    words: Counter[str] = Counter()
    texts = list(texts)
    phrases = Counter(thing for text in texts for thing in _THING.findall(text))
    names = {match[1] for text in texts for match in _NAME.finditer(text)}
    for text in texts:
        stretch: list[str] = []
        for piece in [*_PIECE.findall(text), "0"]:
            words[piece] += 1
            if piece.strip() in names or piece.strip().isdigit():
                if len(stretch) > 1:
                    phrases["".join(stretch)] += 1
                stretch = []
            else:
                stretch.append(piece)
    kept = {piece for piece, count in (words + phrases).items() if count >= _OFTEN}
    for name in names:  # with and without a space before it
        kept |= {name, f" {name}"}
    return sorted(kept | {digit for n in range(10) for digit in (str(n), f" {n}")})


def make_tokenizer(texts: Iterable[str], out: Path) -> int:
    """Write a tokenizer for `texts` to the folder `out`; returns the size of its vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = vocabulary(texts)
    # Unigram takes the segmentation with the highest sum of scores; with equal scores, the one with the fewest tokens.
    scores = [(PAD, 0.0)]
    scores += [(piece, -1.0) for piece in pieces]
    # Byte tokens score so low that literal text such as "<0x41>" is spelt in characters instead.
    scores += [(character, -4.0) for character in "<>xABCDEF" if character not in pieces]
    scores += [(f"<0x{byte:02X}>", -60.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, ASSISTANT, END)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)
    return len(fast)


def make_tiny_model(
    out: Path, texts: Iterable[str], *, hidden_size: int = 128, layers: int = 3, heads: int = 4, seed: int = 0
) -> None:
    """Write a randomly initialised Llama and a tokenizer for `texts` to the folder `out`.

    Raises `UserError` if there is no text to make a vocabulary from.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = list(texts)
    if not texts:
        raise UserError(out, "no text to make a tokenizer from", "collect demonstrations first")
    vocab_size = make_tokenizer(texts, out)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=hidden_size**-0.5,  # the default 0.02 is for widths above 2,000; narrow models learn slower
        bos_token_id=None,
        eos_token_id=vocab_size - 1,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    _compose_objects(model.get_input_embeddings().weight.data, PreTrainedTokenizerFast.from_pretrained(out).get_vocab())
    model.save_pretrained(out)


def _compose_objects(embeddings: Tensor, vocabulary: dict[str, int]) -> None:
    """Set the rows of objects in `embeddings`, [vocabulary, width], to the sum of their parts at the usual scale:

    E(" mug 12") = (E(" mug") + E(" 1") + E("2")) / sqrt(3)
    """
    for token, place in vocabulary.items():
        if _THING.fullmatch(token):
            parts = [vocabulary[piece] for piece in _PIECE.findall(token)]
            embeddings[place] = embeddings[parts].sum(0) / len(parts) ** 0.5
