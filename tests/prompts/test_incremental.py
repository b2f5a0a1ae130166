"""Prompts made from frames and cached lines, against whole templates and whole texts, over many turns."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pytest
from chat_templates import CASES, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_gym import prompts
from prm_gym.prompts import chat, render
from prm_gym.prompts.chat_frames import ChatFrames
from prm_gym.prompts.frames import frame_of
from prm_gym.prompts.line_encoding import LineEncoder
from prm_gym.types import Message, State

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

# Words of games, and what may trip a template, a format string or a tokenizer.
PARTS = ["You see a mug 1", "shelf 4", ".", ",", "\n", "\n\n", " ", "  ", "\t", "\r\n", "-", "1234567", "%s",
         "{{ x }}", "<|end|>", "</think>", "<think>", "user", "Q0Q", "é", "中文", "😀", "\u0301", "▁", "Ġ", "\u200b",
         "\x85"]  # fmt: skip
TEXT = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join)

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "You see a mug 1, and a shelf 4.\nACTION: go to shelf 4\n\nREASON: it's there - 1234567!\n  It is.\t\n",
    "a\n\n\nb",
] * 9


def byte_level(*before: Any, use_regex: bool = False, **options: Any) -> Tokenizer:
    made = Tokenizer(models.BPE())
    end = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, end])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def llama_3() -> Tokenizer:
    return byte_level(pre_tokenizers.Split(Regex(LLAMA_3), "isolated"))


def gpt_2() -> Tokenizer:
    return byte_level(use_regex=True)


def dropping() -> Tokenizer:
    """Whole texts are merged, and unknown characters left out, so that those beside them meet."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return made


def gemma() -> Tokenizer:
    """Whole texts are merged, unknown characters are bytes, and of line breaks only runs are tokens."""
    trained = json.loads(dropping().to_str())["model"]
    vocabulary = {token.replace(" ", "▁"): index for token, index in trained["vocab"].items()}
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    merges = [tuple(part.replace(" ", "▁") for part in merge) for merge in trained["merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    return made


def across_lines() -> Tokenizer:
    """Whole texts are merged, line breaks and what follows them too."""
    made = Tokenizer(models.BPE())
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    return made


def prefixed() -> Tokenizer:
    """As Llama 2 has it: every text gets a space before it."""
    made = gemma()
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


def stripping() -> Tokenizer:
    made = gpt_2()
    made.normalizer = normalizers.Strip()
    return made


def by_line(made: Tokenizer, **end: Any) -> tuple[Any, LineEncoder]:
    made.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False, **end)])
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
    return whole, LineEncoder(whole, "<|end|>")


@pytest.fixture(scope="module", params=[llama_3, gpt_2, gemma, across_lines, dropping, prefixed, stripping])
def encoder(request: pytest.FixtureRequest) -> tuple[Any, LineEncoder]:
    return by_line(request.param())


def test_lines_are_encoded_one_by_one_where_no_token_and_no_rule_spans_them() -> None:
    made = (llama_3, gpt_2, gemma, across_lines, dropping, prefixed, stripping)
    assert [by_line(make())[1].by_line for make in made] == [True, True, True, False, False, False, False]
    _, swallowing = by_line(gpt_2(), rstrip=True)
    assert (swallowing.by_line, swallowing._end) == (True, "")
    _, lines = by_line(gpt_2())
    assert list(lines._pieces("a.\nb\n\nc \nd<|end|>\ne\nf<|end|>g")) == [
        "a.\n", "b\n\nc \nd<|end|>", "\ne\n", "f<|end|>", "g",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_ids_of_lines_are_those_of_the_whole_text(encoder: tuple[Any, LineEncoder], text: str) -> None:
    whole, lines = encoder
    assert lines.encode(whole, text) == whole.encode(text, add_special_tokens=False)


def test_truncation_and_padding_of_other_calls_do_not_count() -> None:
    whole, lines = by_line(gpt_2())
    wanted = whole.encode(CORPUS[0], add_special_tokens=False)
    whole.pad_token = "<|end|>"
    whole("a", truncation=True, max_length=2, padding="max_length")
    assert lines.encode(whole, CORPUS[0]) == wanted


def test_the_checks_of_a_tokenizer_are_short_texts(caplog: pytest.LogCaptureFixture) -> None:
    """transformers warns of texts that are longer than a model reads."""
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=llama_3(), model_max_length=48)
    assert LineEncoder(wrapped).by_line
    assert caplog.text == ""


@st.composite
def states(draw: st.DrawFn) -> State:
    turn = draw(st.integers(0, 3))
    texts = [draw(TEXT) for _ in range(2 * turn + 2)]
    if draw(st.integers(0, 3)) == 3:
        texts[draw(st.integers(0, len(texts) - 1))] = ""
    commands = draw(st.sampled_from([None, (), ("look",), ("look", "go %s"), ("a", "Q0Q", "{{ b }}")]))
    return State("g", texts[0], tuple(texts[1 : turn + 2]), tuple(texts[turn + 2 :]), commands)


def stock(name: str, state: State, explore: bool) -> str:
    """The user message of a prompt without history messages, by jinja itself."""
    source = files(prompts).joinpath(f"{name}.jinja").read_text("utf-8")
    module = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source).module
    history = tuple(zip(state.observations, state.actions, strict=False))
    return str(
        module.user(  # type: ignore[attr-defined]
            state.task, history, state.observations[-1], state.admissible_commands, state.turn, explore
        )
    ).strip()


@pytest.mark.parametrize("name", ["full", "general"])
def test_a_prompt_from_its_frame_is_what_jinja_makes(name: str) -> None:
    prompt = prompts.load(name)
    assert prompt._frames

    @settings(max_examples=60, deadline=None)
    @given(state=states(), explore=st.booleans())
    def check(state: State, explore: bool) -> None:
        if name == "full" and state.admissible_commands is None:
            return
        messages = prompt.exploration_messages(state) if explore else prompt.messages(state)
        assert messages[-1]["content"] == stock(name, state, explore)

    check()
    assert sum(frame is not None for frame in prompt._frames._frames.values()) > 5


USER = "{%- macro user(task, history, observation, admissible_commands, turn, explore) -%}"
PROMPT = "{% set multi_turn = false %}{% macro system() %}{% endmacro %}{% macro response(r, a) %}{% endmacro %}" + USER


@pytest.mark.parametrize(
    ("plain", "body"),
    [
        (True, "{{ task }}{% for o, a in history %}{{ loop.index }}{% if loop.last %}{{ a }}{% endif %}{% endfor %}"),
        (True, "{% if task and not history %}!{% endif %}{% for c in admissible_commands %}{{ c }}{% endfor %}"),
        (True, "{{ turn * 2 }}{{ observation }}{% if explore %}{{ observation }}{% endif %}"),
        (False, "{{ observation | truncate(40) }}"),
        (False, "{{ observation[:40] }}{{ task }}"),
        (False, "{{ task }}{{ observation.removeprefix('You') }}"),
        (False, "{% for o, a in history[-2:] %}{{ o }}{{ a }}{% endfor %}{{ observation }}"),
        (False, "{% for o, a in history %}{% if o == 'x' %}{{ a }}{% endif %}{% endfor %}{{ observation }}"),
        (False, "{% for o, a in history if a %}{{ a }}{% endfor %}{{ observation }}"),
        (False, "{% set x = observation %}{{ x }}"),
        (False, "{% for c in admissible_commands %}{{ loop.index }}. {{ c }}{% endfor %}"),
        (False, "{{ admissible_commands | join(', ') }}"),
        (False, "{% for o, a in history %}{{ loop.previtem | default('') }}{% endfor %}"),
    ],
)  # fmt: skip
def test_a_template_is_plain_if_it_only_prints_what_it_is_given(plain: bool, body: str) -> None:
    prompt = render.Prompt("mine", PROMPT + body + "{% endmacro %}")
    assert (prompt._frames is not None) == plain
    module = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(prompt.source).module
    for turn, commands in ((0, ("a",)), (3, ("a", "b %s", "c"))):
        shown = tuple(f"You see {'a mug, ' * 20}{t}." for t in range(turn + 1))
        state = State("g", "put it", shown, tuple(f"go {t}" for t in range(turn)), commands)
        history = tuple(zip(state.observations, state.actions, strict=False))
        wanted = module.user(state.task, history, shown[-1], commands, turn, False)  # type: ignore[attr-defined]
        assert prompt.messages(state)[-1]["content"] == str(wanted).strip()


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", prompts.render.BUILT_IN)
def test_growing_prompts_have_the_ids_of_the_whole_template(name: str, case: str, tmp_path: Path) -> None:
    tokens, prompt = tokenizer(CASES[case].source, tmp_path), prompts.load(name)
    shown = ["You see a mug 1.\nIt is <b>.", "On the desk 3, you see nothing.", "</think> is said", "  Done.\n"]
    for turn in range(len(shown)):
        actions = ("take mug 1", "look", "<think>a</think>go")[:turn]
        messages = prompt.messages(State("g", "put it in desk.", tuple(shown[: turn + 1]), actions, ("look", "go")))
        adapted = chat.adapted(tokens, messages)
        wanted = tokens.apply_chat_template(adapted, add_generation_prompt=True, return_dict=False)
        assert chat.prompt_ids(tokens, messages) == list(wanted)


def rendered(source: str, chat: list[Message]) -> str:
    return jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).from_string(source).render(messages=chat)


@pytest.mark.parametrize(
    ("again", "source", "content"),
    [
        (False, "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}", "You see a mug 1."),
        (True, "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}", " You see a mug 1."),
        (True, "{% for m in messages %}{% if 'mug' in m.content %}!{% endif %}{{ m.content }}{% endfor %}", "a mug"),
        (False, "{% for m in messages %}{% if 'mug' in m.content %}!{% endif %}{{ m.content }}{% endfor %}", "a cup"),
        (True, "{% for m in messages %}{{ m.content.split('mug')[-1] }}{% endfor %}", "a mug 1"),
        (True, "{% for m in messages %}{% if m.content[:3] == 'mug' %}{% endif %}{{ m.content }}{% endfor %}", "mug 1"),
        (True, "{% for m in messages %}{% if m.content == 'mug' %}!{% endif %}{{ m.content }}{% endfor %}", "mug"),
        (True, "{% for m in messages %}{{ m.content | replace('mug', 'cup') }}{% endfor %}", "a mug"),
        (True, "{% for m in messages %}{{ m.content | truncate(90) }}{% endfor %}", "a cup"),
        (True, "{% for m in messages %}{{ m.content | upper }}{% endfor %}", "a cup"),
        (True, "{{ strftime_now('%H:%M') }}{% for m in messages %}{{ m.content }}{% endfor %}", "a cup"),
    ],
)  # fmt: skip
def test_a_template_runs_again_where_it_looks_into_the_contents(again: bool, source: str, content: str) -> None:
    calls = []

    def render(chat: list[Message]) -> str:
        calls.append(chat)
        return rendered(source.replace("{{ strftime_now('%H:%M') }}", ""), chat)

    frames, asked = ChatFrames(source), [message("user", "Hello."), message("assistant", content)]
    frames.text(asked, True, render)
    del calls[:]
    assert frames.text(asked, True, render) == rendered(source.replace("{{ strftime_now('%H:%M') }}", ""), asked)
    assert bool(calls) == again


@pytest.mark.parametrize(
    ("before", "condition", "content"),
    [
        ("{% set mark = 'mug' %}", "mark in m.content", "a mug 1"),
        ("{% set mark = 'mug' %}", "m.content.split(mark) | length > 1", "a mug 1"),
        ("{% set ns = namespace(mark='mug') %}", "ns.mark in m.content", "a mug 1"),
        ("{% for mark in ['mug', 'cup'] %}", "mark in m.content", "a mug 1"),
        ("", "m.content[0] == '<'", "<b>"),
        ("", "m.content[0] in ['<', '[']", "<b>"),
        ("", "m.content | first == '<'", "<b>"),
        ("", "(m.content | last) == '>'", "<b>"),
        ("{% set c = messages[1].content[:1] %}", "c == '<'", "<b>"),
        ("", "'mug' in m.content | lower", "Mug 1"),
    ],
)
def test_a_text_that_the_template_names_or_finds_at_a_place_is_looked_for(
    before: str, condition: str, content: str
) -> None:
    source = before + "{% for m in messages %}{{ m.content }}{% if " + condition + " %}!{% endif %}{% endfor %}"
    source += "{% endfor %}" * before.count("{% for")
    asked = [message("user", "Hello."), message("assistant", content)]
    assert ChatFrames(source).text(asked, True, lambda chat: rendered(source, chat)) == rendered(source, asked)


def test_words_that_are_compared_with_roles_are_not_looked_for() -> None:
    source = (
        "{% set role = 'model' %}{% for m in messages %}"
        "{% if messages[0].role == 'system' or m.role in ['tool', role] %}{% endif %}{{ m.content }}{% endfor %}"
    )
    frames, asked = ChatFrames(source), [message("user", "the model of a system and a tool")]
    frames.text(asked, True, lambda chat: rendered(source, chat))
    assert frames.text(asked, True, lambda chat: pytest.fail("ran again")) == asked[0]["content"]


def test_a_date_is_shown_for_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    from prm_gym.prompts import chat_frames

    class Day:
        shown = "26 Jul 2024"

        @classmethod
        def today(cls) -> str:
            return cls.shown

    monkeypatch.setattr(chat_frames, "date", Day)
    frames, asked = ChatFrames("{{ strftime_now('%d %b %Y') }}"), [message("user", "Hello.")]
    for Day.shown in ("26 Jul 2024", "27 Jul 2024"):
        assert frames.text(asked, True, lambda chat: Day.shown + chat[0]["content"]) == f"{Day.shown}Hello."


def test_a_frame_has_every_content_where_the_template_puts_it() -> None:
    frame = frame_of(lambda texts: f"%s {texts[1]}|{texts[0]}|{texts[1]}%", 2)
    assert frame is not None
    assert frame.fill(["a%d", "Q1Q"]) == "%s Q1Q|a%d|Q1Q%"
    assert frame_of(lambda texts: texts[0], 2) is None
    assert frame_of(lambda texts: texts[0][:100], 1) is None
