"""A conversation as token ids: the same ids wherever the policy or Q reads them.

A prompt is the tokenizer's chat template over the messages, open for the assistant's turn. The response follows as the
policy samples it: its text, then the token that ends the turn. Rollouts, SFT, PRM training, online DPO and best-of-N
all take their ids from here. They are the ids of the template over the whole conversation up to that token, if the
template only adds text after it. If the template renders a finished turn differently from its generation prompt (which
may open a reasoning block, or drop earlier reasoning), they are the ids that a policy reads and writes.

The abilities of a template are found by rendering a few small conversations, once for each tokenizer. Without a system
role, the system text is put before the first user message. Where roles must alternate, consecutive messages of one role
are merged.

A prompt costs what it adds to those before it: the text around the messages comes from `chat_frames`, the ids of known
lines from `line_encoding`. Both use the whole template and text where parts would not give the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from prm_gym.errors import UserError, first_line
from prm_gym.prompts.chat_frames import ChatFrames
from prm_gym.prompts.line_encoding import LineEncoder
from prm_gym.types import Message

_SYSTEM, _USER, _REPLY, _OTHER = "Qsystem", "Quser", "Qreply", "Qother"  # no template holds these words
_PARAGRAPH = "\n\n"


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any: ...

    def encode(self, text: str, **options: Any) -> Any: ...

    def convert_tokens_to_ids(self, tokens: str) -> Any: ...


class Template(NamedTuple):
    """The abilities of a chat template, and the text that it writes around a response.

    `lead` is white space before the text of a response, `tail` the text between it and `end`. `end` is the token that
    ends the turn: the template's own (eos if it writes several), else the tokenizer's eos, else "".
    """

    system_role: bool
    alternates: bool  # refuses or drops one of two consecutive messages of one role
    lead: str
    tail: str
    end: str

    def written(self, response: str) -> str:
        """`response` as the policy writes it, to the end of its turn."""
        lead = "" if self.lead and response.startswith(self.lead) else self.lead
        tail = "" if self.tail and response.endswith(self.tail) else self.tail
        return lead + response + tail + self.end


class _Known(NamedTuple):
    """What is cached of a tokenizer, while its template is `source` and it has `tokens` tokens."""

    source: Any
    tokens: int
    template: Template
    frames: ChatFrames
    lines: LineEncoder


_known: WeakKeyDictionary[Tokenizer, _Known] = WeakKeyDictionary()


def template_of(tokenizer: Tokenizer, where: Any = None, field: str = "chat_template") -> Template:
    """The properties of the tokenizer's chat template, cached.

    Raises `UserError` naming `where` (by default the tokenizer's folder) and `field` if there is no template, or it
    cannot show a conversation.
    """
    return _known_of(tokenizer, where, field).template


def _known_of(tokenizer: Tokenizer, where: Any = None, field: str = "chat_template") -> _Known:
    source = tokenizer.chat_template
    known = _known.get(tokenizer)
    if known is None or known.source != source or known.tokens != _size(tokenizer):
        where = where or getattr(tokenizer, "name_or_path", None) or "tokenizer"
        if source is None:
            remedy = "set tokenizer.chat_template and save it there"
            raise UserError(where, "the tokenizer has no chat template", remedy, field=field)
        template = _probe(tokenizer, where, field)
        lines = LineEncoder(tokenizer, template.end)
        known = _known[tokenizer] = _Known(source, _size(tokenizer), template, ChatFrames(source), lines)
    return known


def _size(tokenizer: Any) -> int:
    """The number of tokens, if the tokenizer tells."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return 0 if backend is None else int(backend.get_vocab_size())


def adapted(tokenizer: Tokenizer, messages: Iterable[Message]) -> list[Message]:
    """`messages` with the roles that the chat template supports, unchanged if it supports all of them."""
    template = template_of(tokenizer)
    chat = list(messages)
    if not template.system_role and chat and chat[0]["role"] == "system":
        chat[0] = {"role": "user", "content": chat[0]["content"]}
        chat = _merged(chat[:2]) + chat[2:]
    return _merged(chat) if template.alternates else chat


def prompt_ids(tokenizer: Tokenizer, messages: Iterable[Message]) -> list[int]:
    """The ids of `messages`, open for the assistant's turn."""
    return _encode_cached(tokenizer, _open(tokenizer, messages))


def turn_ids(
    tokenizer: Tokenizer, messages: Iterable[Message], responses: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """The ids of `messages`, open for the assistant's turn, and those of each of `responses` to the end of the turn."""
    text = _open(tokenizer, messages)
    prompt = _encode_cached(tokenizer, text)
    template, answers = template_of(tokenizer), []
    for response in responses:
        written = template.written(response)
        ids = _encode_cached(tokenizer, text + written)
        # A policy cannot sample a token that spans the end of the prompt and the start of the response.
        answers.append(ids[len(prompt) :] if ids[: len(prompt)] == prompt else _encode_cached(tokenizer, written))
    return prompt, answers


def sequence_ids(tokenizer: Tokenizer, messages: Iterable[Message], response: str) -> list[int]:
    """The ids of `messages` and the assistant's `response` to them, to the end of its turn."""
    prompt, [answer] = turn_ids(tokenizer, messages, [response])
    return prompt + answer


def scored_turn_ids(
    tokenizer: Tokenizer, messages: Iterable[Message], responses: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """What Q reads: `turn_ids` without the token that ends the turn. Q is the output at the last token that is left.

    SFT trains a policy's state at that token, where it predicts the end of the turn. A loss on the responses alone says
    nothing of the state at the end token, and Q starts from the policy.
    """
    prompt, answers = turn_ids(tokenizer, messages, responses)
    end = template_of(tokenizer).end
    last = tokenizer.convert_tokens_to_ids(end) if end else None
    return prompt, [answer[:-1] if answer and answer[-1] == last else answer for answer in answers]


def scored_ids(tokenizer: Tokenizer, messages: Iterable[Message], response: str) -> list[int]:
    """The prompt and the response of `scored_turn_ids` in one sequence."""
    prompt, [answer] = scored_turn_ids(tokenizer, messages, [response])
    return prompt + answer


def _probe(tokenizer: Tokenizer, where: Any, field: str) -> Template:
    def chat(*messages: tuple[str, str]) -> list[Message]:
        return [{"role": role, "content": content} for role, content in messages]

    def shows(*messages: tuple[str, str]) -> bool:
        try:
            text = _render(tokenizer, chat(*messages))
        except Exception:  # templates may raise anything
            return False
        return all(content in text for _, content in messages)

    system, user, reply = ("system", _SYSTEM), ("user", _USER), ("assistant", _REPLY)
    try:
        prompt = _render(tokenizer, chat(user), open_turn=True)
        history = _render(tokenizer, chat(user, reply, ("user", _OTHER)), open_turn=True)
        ids = tokenizer.apply_chat_template(chat(user), add_generation_prompt=True, tokenize=True, return_dict=False)
    except Exception as error:
        problem = f"the chat template cannot show a conversation ({first_line(error)})"
        raise UserError(where, problem, "give the tokenizer another chat_template", field=field) from error
    for role, content, text in (("user", _USER, prompt), ("assistant", _REPLY, history)):
        if content not in text:
            problem = f"the chat template leaves out what the {role} said"
            raise UserError(where, problem, "give the tokenizer another chat_template", field=field)
    if list(ids) != _encode(tokenizer, prompt):
        problem = "the tokenizer makes other ids of a conversation than of its text"
        raise UserError(where, problem, "save it as a tokenizer.json of the library tokenizers", field=field)
    try:
        whole = _render(tokenizer, chat(user, reply))
    except Exception:  # a template for open conversations only
        whole = prompt + _REPLY
    before, _, last = whole.rpartition(_REPLY)
    earlier = history.rpartition(_REPLY)[2]
    lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
    both = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(last, earlier, strict=False)))
    end = _end_of_turn(tokenizer, both) or _end_of_turn(tokenizer, last)
    end = end or getattr(tokenizer, "eos_token", None) or ""
    return Template(
        system_role=shows(system, user),
        alternates=not (shows(user, ("user", _OTHER)) and shows(user, reply, ("assistant", _OTHER), user)),
        lead=lead if lead.isspace() else "",
        tail=last.partition(end)[0] if end and end in last else "",
        end=end,
    )


def _end_of_turn(tokenizer: Any, after: str) -> str:
    """The token in `after`, the text after a response, that ends its turn: eos, else the first special one, else ""."""
    eos = getattr(tokenizer, "eos_token", None)
    if eos and eos in after:
        return str(eos)
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = [token.content for token in added if token.special and token.content in after]
    return min(special, key=lambda token: (after.index(token), -len(token)), default="")


def _merged(messages: Sequence[Message]) -> list[Message]:
    chat: list[Message] = []
    for message in messages:
        if chat and chat[-1]["role"] == message["role"]:
            both = chat[-1]["content"] + _PARAGRAPH + message["content"]
            chat[-1] = {"role": message["role"], "content": both}
        else:
            chat.append(message)
    return chat


def _open(tokenizer: Tokenizer, messages: Iterable[Message]) -> str:
    """The text of `messages`, open for the assistant's turn."""

    def render(chat: list[Message]) -> str:
        return _render(tokenizer, chat, open_turn=True)

    return _known_of(tokenizer).frames.text(adapted(tokenizer, messages), True, render)


def _encode_cached(tokenizer: Tokenizer, text: str) -> list[int]:
    return _known_of(tokenizer).lines.encode(tokenizer, text)


def _render(tokenizer: Tokenizer, chat: list[Message], *, open_turn: bool = False) -> str:
    text: str = tokenizer.apply_chat_template(chat, add_generation_prompt=open_turn, tokenize=False, return_dict=False)
    return text


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]
