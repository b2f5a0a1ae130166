"""A checkpoint folder from a pretrained model: dense weights, a chat template, a pad token, the vocabulary needed.

A model that brings a chat template keeps it. One without, a base model, gets the template below, which marks turns with
plain text and ends the assistant's with the eos token, both of which every base model knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from prm_gym.errors import UserError, first_line
from prm_gym.pretrained import vocabulary
from prm_gym.pretrained.packaged import PACKAGED, write_gguf
from prm_gym.prompts.chat import sequence_ids, template_of
from prm_gym.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}## {{ message.role }}\n"
    "{% if message.role == 'assistant' %}{{ message.content }}{{ eos_token }}\n"
    "{% else %}{{ message.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}## assistant\n{% endif %}"
)
PAD = "<|pad|>"  # of a tokenizer that has no pad token apart from eos
_RESPONSES = ("completion", "chosen", "rejected")


class Conversation(NamedTuple):
    """A prompt and the assistant's response to it."""

    prompt: list[Message]
    response: str


class Prepared(NamedTuple):
    """What was made: tokens in the vocabulary, of how many, and parameters of the model."""

    tokens: int
    of_tokens: int
    parameters: int


def prepare(source: str | Path, out: Path, corpus: Iterable[Conversation] | None = None) -> Prepared:
    """Write `source` to the folder `out` as a checkpoint.

    Parameters
    ----------
    source
        A checkpoint folder, a `.gguf` file, one of `PACKAGED`, or a model on the Hub.
    corpus
        Conversations that the vocabulary is cut to: they keep their tokens, and the model the logits of those tokens.
        None keeps the whole vocabulary.

    Raises `UserError` for a source that cannot be read, a vocabulary that cannot be cut, or an empty corpus.
    """
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out) as temporary:
        place: str | Path = write_gguf(str(source), Path(temporary)) if source in PACKAGED else source
        model, tokenizer = _load(place)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE
    template_of(tokenizer, source)
    of_tokens = len(tokenizer)
    definition: str = tokenizer.backend_tokenizer.to_str()
    kept = None
    if corpus is not None:
        used = {index for prompt, response in corpus for index in sequence_ids(tokenizer, prompt, response)}
        if not used:
            raise UserError(out, "no text to cut the vocabulary to", "collect demonstrations first")
        definition, kept = vocabulary.cut(definition, used | _special(model, tokenizer), source)
    new = _tokenizer(tokenizer, definition)
    if kept is not None or len(new) > model.get_input_embeddings().num_embeddings:
        _select(model, range(of_tokens) if kept is None else kept, len(new))
    _set_ids(model, tokenizer, new)
    model.save_pretrained(out)
    new.save_pretrained(out)
    return Prepared(len(new), of_tokens, model.num_parameters())


def conversations(folders: Iterable[Path]) -> Iterator[Conversation]:
    """Those in datasets that `prm-gym label` wrote. Raises `UserError` at once for a folder that holds none."""
    from datasets import load_dataset

    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(folder, "no such dataset folder", "run `prm-gym label` first")
        for rows in load_dataset(str(folder)).values():
            names = [name for name in _RESPONSES if name in rows.column_names]
            if not names or "prompt" not in rows.column_names:
                raise UserError(folder, "has no prompts with responses", "name a dataset of `prm-gym label sft`")
            found.append((rows, names))
    return (
        conversation
        for rows, names in found
        for row in rows
        for conversation in _turns(row["prompt"], [row[name] for name in names])
    )


def _turns(prompt: list[Message], answers: Iterable[list[Message]]) -> Iterator[Conversation]:
    """Every assistant's turn of each answer, after all that was said before it."""
    for answer in answers:
        for number, message in enumerate(answer):
            if message["role"] == "assistant":
                yield Conversation([*prompt, *answer[:number]], message["content"])


def _load(source: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, in the number format it is stored in (float32 from a GGUF file), and its fast tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from prm_gym.inference.model_location import check_policy

    path, options = Path(source), dict[str, Any]()
    if path.suffix == ".gguf" and path.is_file():
        path, options = path.parent, {"gguf_file": path.name}
    else:
        check_policy(source)
    place = str(path) if options else str(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model = AutoModelForCausalLM.from_pretrained(place, dtype="float32" if options else "auto", **options)
    except Exception as error:  # safetensors, tokenizers, gguf and torch each have errors of their own
        problem = f"cannot be loaded ({type(error).__name__}: {first_line(error)})"
        raise UserError(source, problem, "name a whole checkpoint") from error
    if not tokenizer.is_fast:
        raise UserError(source, "has no fast tokenizer", "save it as a tokenizer.json of the library tokenizers")
    if options:  # the weights are dense, but the model still says that they are quantised, and could not be saved
        model.hf_quantizer.remove_quantization_config(model)
    return model, tokenizer


def _ids(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value or [])


def _special(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of the tokens that the tokenizer or the model names, and of those that generation stops at."""
    named = [model.generation_config.eos_token_id, *(getattr(model.config, f"{n}_token_id", None) for n in _NAMES)]
    tokens = [token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)]
    return {index for value in named for index in _ids(value)} | set(tokenizer.convert_tokens_to_ids(tokens))


_NAMES = ("bos", "eos", "pad")


def _tokenizer(old: PreTrainedTokenizerBase, definition: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a tokenizer.json, with the special tokens and the chat template of `old`, and a pad token."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    named = {name: token for name, token in old.special_tokens_map.items() if isinstance(token, str)}
    if named.get("pad_token") in (None, named.get("eos_token")):
        named["pad_token"] = PAD
    new = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(definition),
        clean_up_tokenization_spaces=False,
        model_max_length=old.model_max_length,
        **named,
    )
    new.chat_template = old.chat_template
    return new


def _select(model: PreTrainedModel, kept: Iterable[int], size: int) -> None:
    """Keep the rows `kept` of the embeddings and of the output layer, in that order, in a vocabulary of `size`."""
    import torch

    index = torch.tensor(list(kept))
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    matrices = [matrix for layer in layers for matrix in (layer.weight, getattr(layer, "bias", None))]
    with torch.no_grad():
        for matrix in {id(each): each for each in matrices if each is not None}.values():  # tied ones once
            matrix[: len(index)] = matrix[index]
    model.resize_token_embeddings(size, mean_resizing=False)


def _set_ids(model: PreTrainedModel, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> None:
    """The ids of the special tokens in the model's configurations."""
    stops = old.convert_ids_to_tokens(_ids(model.generation_config.eos_token_id))
    for config in (model.config, model.generation_config):
        for name in _NAMES:
            setattr(config, f"{name}_token_id", getattr(new, f"{name}_token_id"))
    if len(stops) > 1:
        model.generation_config.eos_token_id = new.convert_tokens_to_ids(stops)
