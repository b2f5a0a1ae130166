"""Small chat templates, each with one property of real models' templates, and the expected results."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from prm_gym import prompts
from prm_gym.hosts.tiny_model import make_tokenizer
from prm_gym.types import State

_KEPT = TemporaryDirectory()

WORDS = "You see a mug 1, a plate 2 and a desk 3. You arrive at shelf 4. Task: put a clean mug 1 in shelf 4."
REFUSE = "{{ raise_exception('no such role here') }}"
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def each(user: str, assistant: str, other: str = "{{ m.role }}: {{ m.content }}\n") -> str:
    """A template that shows messages one by one, by role."""
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + assistant + "{% elif m.role == 'user' %}" + user
        + "{% else %}" + other + "{% endif %}{% endfor %}"
    )  # fmt: skip


USER, ASSISTANT = "<user>{{ m.content }}", "<|assistant|>{{ m.content }}<|end|>"
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    + REFUSE
    + "{% endif %}{% endfor %}"
    + each(USER, ASSISTANT)
    + OPEN
)


class Case(NamedTuple):
    """`roles`: of (system, user, user, assistant, user), what is left where a template has not all of them.

    `after`: the ids of the template over a whole conversation that stand after the end of the turn; None where the
    template shows the last turn otherwise than it asks for it. `grows`: each prompt extends the turn before it.
    """

    source: str
    roles: str = "suuau"
    end: str = "<|end|>"
    after: str | None = ""
    grows: bool = True


CASES = {
    "plain": Case(each(USER, ASSISTANT) + OPEN),
    "refuses the system role": Case(each(USER, ASSISTANT, REFUSE) + OPEN, roles="uuau"),
    "leaves the system role out": Case(each(USER, ASSISTANT, "") + OPEN, roles="uuau"),
    "alternates": Case(ALTERNATE, roles="uau"),
    "system before the last user": Case(
        each(
            "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}" + USER,
            ASSISTANT,
            "",
        )
        + OPEN,
        after=None,
        grows=False,
    ),
    "drops earlier reasoning": Case(
        "{% set ns = namespace(last=0) %}{% for m in messages if m.role == 'user' %}{% set ns.last = loop.index0 %}"
        "{% endfor %}" + "{% set count = namespace(users=-1) %}"
        + each(
            "{% set count.users = count.users + 1 %}" + USER,
            "<|assistant|>{% if count.users < ns.last %}{{ m.content.split('</think>')[-1] }}{% else %}"
            "{{ m.content }}{% endif %}<|end|>",
        )
        + OPEN,
        grows=False,
    ),
    "opens reasoning in the generation prompt": Case(
        each(USER, ASSISTANT) + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}",
        after=None,
        grows=False,
    ),
    "adds an empty reasoning to the last turn": Case(
        each(
            USER,
            "<|assistant|>{% if loop.last %}<think></think>{% endif %}{{ m.content }}<|end|>",
        )
        + OPEN,
        after=None,
    ),
    "a line after the end": Case(each(USER, ASSISTANT + "\n") + OPEN, after="\n"),
    "two tokens at the end": Case(each(USER, "<|assistant|>{{ m.content }}<|turn|><|end|>") + OPEN),
    "an end that is not eos": Case(each(USER, "<|assistant|>{{ m.content }}<|turn|>") + OPEN, end="<|turn|>"),
    "eos after the conversation": Case(
        each(USER, "<|assistant|>{{ m.content }}<|turn|>\n")
        + "{% if add_generation_prompt %}<|assistant|>{% else %}<|end|>{% endif %}",
        end="<|turn|>",
        after="\n<|end|>",
    ),
    "spaces around a turn": Case(each(USER, "<|assistant|> {{ m.content }} <|end|>") + OPEN),
    "no end": Case(each(USER, "<|assistant|>{{ m.content }}\n") + OPEN, after=None, grows=False),
    "no generation prompt": Case(each(USER, "<|assistant|>{{ m.content }}<|end|>"), after=None, grows=False),
}  # fmt: skip


@lru_cache
def _made() -> Path:
    """The tokenizer of the embedded recipes, with one more special token."""
    from transformers import AutoTokenizer

    folder = Path(_KEPT.name, "tokenizer")
    asked = prompts.load("full").messages(State("g", WORDS, (WORDS,), (), ("look",)))
    make_tokenizer([WORDS, *(message["content"] for message in asked)] * 20, folder)
    made = AutoTokenizer.from_pretrained(folder)
    made.add_special_tokens({"additional_special_tokens": ["<|assistant|>", "<|turn|>"]})
    made.save_pretrained(folder)
    return folder


def tokenizer(source: str, folder: Path) -> Any:
    """A tokenizer under the template `source`, saved in `folder`."""
    from transformers import AutoTokenizer

    shutil.copytree(_made(), folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(source, "utf-8")
    return AutoTokenizer.from_pretrained(folder)


@lru_cache
def _trained() -> tuple[Path, Path]:
    """A random policy and a random Q, without a template."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    tokens = AutoTokenizer.from_pretrained(_made())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=4096, eos_token_id=tokens.eos_token_id, pad_token_id=0,
    )  # fmt: skip
    folders = Path(_KEPT.name, "policy"), Path(_KEPT.name, "q")
    LlamaForCausalLM(config).save_pretrained(folders[0])
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folders[1])
    return folders


def models(source: str, folder: Path) -> tuple[Path, Path]:
    """A random policy and a random Q under the template `source`, in `folder`."""
    made = folder / "policy", folder / "q"
    for ready, copy in zip(_trained(), made, strict=True):
        shutil.copytree(ready, copy)
        tokenizer(source, copy)
    return made
