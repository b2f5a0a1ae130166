"""A conversation as token ids, against the tokenizer's own template over all of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from chat_templates import CASES, OPEN, USER, Case, each, tokenizer

from prm_gym.errors import UserError
from prm_gym.hosts.demonstrations import demonstrations
from prm_gym.prompts.chat import adapted, prompt_ids, scored_ids, sequence_ids, template_of
from prm_gym.types import Message

transformers = pytest.importorskip("transformers")

SYSTEM, FIRST, SECOND, ACTION, SEEN = "You act.", "You see a mug 1.", "Task: put it in desk 3.", "take mug 1", "Done."
RESPONSES = ["look", "", "take mug 1 from desk 3", "\nlook\n", "<think>a mug\n</think>look"]


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


CHAT = [
    message("system", SYSTEM), message("user", FIRST), message("user", SECOND), message("assistant", ACTION),
    message("user", SEEN),
]  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Case, Any]:
    found = CASES[request.param]
    return found, tokenizer(found.source, tmp_path)


def stock(tokens: Any, chat: list[Message], *, open_turn: bool) -> list[int]:
    return list(tokens.apply_chat_template(chat, add_generation_prompt=open_turn, return_dict=False))


def with_roles(roles: str) -> list[Message]:
    """CHAT by hand, in the roles that a template has."""
    if roles == "suuau":
        return CHAT
    if roles == "uuau":
        return [message("user", f"{SYSTEM}\n\n{FIRST}"), *CHAT[2:]]
    return [message("user", f"{FIRST}\n\n{SECOND}"), *CHAT[3:]]


def test_a_prompt_is_the_template_over_roles_it_has(case: tuple[Case, Any]) -> None:
    about, tokens = case
    given = CHAT[1:] if about.roles == "uau" else CHAT
    wanted = with_roles(about.roles)
    assert adapted(tokens, given) == wanted
    assert prompt_ids(tokens, given) == stock(tokens, wanted, open_turn=True)


def test_nothing_that_was_said_is_lost(case: tuple[Case, Any]) -> None:
    _, tokens = case
    given = CHAT[1:] if case[0].roles == "uau" else CHAT
    text = tokens.decode(prompt_ids(tokens, given))
    assert all(each["content"] in text for each in given)


@pytest.mark.parametrize("response", RESPONSES)
def test_a_sequence_is_the_template_over_the_whole_conversation_up_to_its_end(
    case: tuple[Case, Any], response: str
) -> None:
    about, tokens = case
    chat = with_roles(about.roles)
    ids = sequence_ids(tokens, chat, response)
    prompt = stock(tokens, chat, open_turn=True)
    assert ids[: len(prompt)] == prompt
    assert ids[-1] == tokens.convert_tokens_to_ids(about.end)
    if about.after is None:
        assert tokens.decode(ids[len(prompt) :]) == response + about.end
    else:
        whole = stock(tokens, [*chat, message("assistant", response)], open_turn=False)
        assert ids == whole[: len(ids)]
        assert tokens.decode(whole[len(ids) :]) == about.after


@pytest.mark.parametrize("response", RESPONSES)
def test_q_reads_the_whole_turn_but_for_the_token_that_ends_it(case: tuple[Case, Any], response: str) -> None:
    about, tokens = case
    chat = with_roles(about.roles)
    end = tokens.convert_tokens_to_ids(about.end)
    assert [*scored_ids(tokens, chat, response), end] == sequence_ids(tokens, chat, response)


def test_a_response_is_read_as_it_was_sampled(case: tuple[Case, Any]) -> None:
    """Ids to text and back: what a policy samples and says, Q reads as the ids that were sampled."""
    _, tokens = case
    prompt, ids = prompt_ids(tokens, CHAT[1:2]), sequence_ids(tokens, CHAT[1:2], ACTION)
    text = tokens.decode(ids[len(prompt) : -1], skip_special_tokens=True)
    assert sequence_ids(tokens, CHAT[1:2], text) == ids


EPISODE = [
    message("assistant", "<think>a</think>look"), message("user", SEEN), message("assistant", "<think>b</think>go"),
    message("user", FIRST), message("assistant", "<think>c</think>take mug 1"),
]  # fmt: skip


def test_a_demonstration_shows_each_turn_as_the_policy_meets_it(case: tuple[Case, Any]) -> None:
    about, tokens = case
    first = with_roles(about.roles)[:1]
    found = demonstrations(tokens, first, EPISODE)
    assert (len(found) == 1) == about.grows
    shown = [(part.ids[:start], part.ids[start:end]) for part in found for start, end in part.responses]
    wanted = []
    for turn in (0, 2, 4):
        before = [*first, *EPISODE[:turn]]
        prompt = stock(tokens, before, open_turn=True)
        wanted.append((prompt, sequence_ids(tokens, before, EPISODE[turn]["content"])[len(prompt) :]))
    assert shown == wanted


def test_the_loss_is_where_the_recipe_says(tmp_path: Path) -> None:
    tokens = tokenizer(CASES["plain"].source, tmp_path)
    [made] = demonstrations(tokens, CHAT[1:2], EPISODE[:3])
    prompt = prompt_ids(tokens, CHAT[1:2])
    text = {
        counted: tokens.decode([i for i in made.labels(counted) if i != -100])
        for counted in ("all", "completion", "responses")
    }
    said = [f"{turn['content']}<|end|>" for turn in (EPISODE[0], EPISODE[2])]
    assert text["all"] == tokens.decode(made.ids)
    assert text["completion"] == tokens.decode(made.ids[len(prompt) :])
    assert text["responses"] == "".join(said)


def test_a_word_piece_never_joins_prompt_and_response(tmp_path: Path) -> None:
    """A prompt that ends in text: the policy cannot sample a token that covers both."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE({"a": 0, "\n": 1, "\n\n": 2, "<end>": 3}, [("\n", "\n")]))
    tokens = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    tokens.chat_template = (
        "{% for m in messages %}{{ m.content }}{{ '<end>' if m.role == 'assistant' }}{% endfor %}"
        "{{ '\n' if add_generation_prompt }}"
    )
    shown = [message("user", "a")]
    assert tokens.encode("a\n\na") == [0, 2, 0], "the trap is set"
    assert prompt_ids(tokens, shown) == [0, 1]
    assert sequence_ids(tokens, shown, "\na") == [0, 1, 1, 0, 3]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "the tokenizer has no chat template"),
        (each(USER, "") + OPEN, "the chat template leaves out what the assistant said"),
        (each("", "{{ m.content }}") + OPEN, "the chat template leaves out what the user said"),
        ("{{ raise_exception('tools only') }}", r"the chat template cannot show a conversation \(tools only\)"),
        ("{% for m in messages %}", "the chat template cannot show a conversation"),
        ("{{ messages[0].content[0].text }}", "the chat template leaves out what the user said"),  # lists of parts
    ],
)
def test_a_template_that_cannot_show_a_conversation_is_named_once_and_early(
    source: str | None, problem: str, tmp_path: Path
) -> None:
    from prm_gym.prompts.tokenizer import load_tokenizer

    tokens = tokenizer(CASES["plain"].source, tmp_path)
    tokens.chat_template = source
    (tmp_path / "chat_template.jinja").unlink()
    tokens.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}: chat_template: {problem}") as told:
        load_tokenizer(tmp_path)
    assert "\n" not in str(told.value)
    assert told.value.remedy
    with pytest.raises(UserError, match=f"model_name_or_path: {problem}"):
        load_tokenizer(str(tmp_path), "model_name_or_path", padding=False)


def test_a_template_is_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokenizer(CASES["plain"].source, tmp_path)
    before = template_of(tokens)
    render = type(tokens).apply_chat_template
    calls = []

    def spy(self: Any, *given: Any, **options: Any) -> Any:
        calls.append(options)
        return render(self, *given, **options)

    monkeypatch.setattr(type(tokens), "apply_chat_template", spy)
    assert template_of(tokens) is before
    prompt_ids(tokens, CHAT)
    assert len(calls) == 2, "the text around a new sequence of roles"
    prompt_ids(tokens, [*CHAT[:-1], message("user", "Other words.")])
    assert len(calls) == 2
    tokens.chat_template = CASES["refuses the system role"].source
    assert not template_of(tokens).system_role


def assert_ids_of_any_tokenizer(tokens: Any) -> None:
    """What holds for every tokenizer: the prompt is the template's, a turn follows it, and reads back as it was."""
    template = template_of(tokens)
    chat = adapted(tokens, [CHAT[0], CHAT[1], CHAT[3], CHAT[4]])
    prompt = stock(tokens, chat, open_turn=True)
    assert prompt_ids(tokens, chat) == prompt
    text = tokens.decode(prompt)
    assert all(said in text for said in (SYSTEM, FIRST, ACTION, SEEN))
    ids = sequence_ids(tokens, chat, ACTION)
    assert ids[: len(prompt)] == prompt
    assert tokens.convert_ids_to_tokens(ids[-1]) == template.end
    said = tokens.decode(ids[len(prompt) :], skip_special_tokens=True)
    assert said.strip() == ACTION
    assert sequence_ids(tokens, chat, said) == ids
    whole = stock(tokens, [*chat, message("assistant", ACTION)], open_turn=False)
    shown = tokens.decode(whole[len(prompt) :], skip_special_tokens=True).strip()
    if whole[: len(prompt)] == prompt and shown == ACTION and template.end in tokens.decode(whole[len(prompt) :]):
        assert whole[: len(ids)] == ids
    parts = demonstrations(tokens, chat[:-2], [chat[-2], chat[-1], message("assistant", SEEN)])
    assert [part.ids[start] for part in parts for start, _ in part.responses]


FOLDERS = os.environ.get("PRM_GYM_TOKENIZERS")


@pytest.mark.parametrize(
    "folder", sorted(Path(FOLDERS).iterdir()) if FOLDERS else [None], ids=lambda path: path and path.name
)
def test_a_real_tokenizer(folder: Path | None) -> None:
    if folder is None:
        pytest.skip("PRM_GYM_TOKENIZERS names no folder of model or tokenizer folders")
    assert_ids_of_any_tokenizer(transformers.AutoTokenizer.from_pretrained(folder))


def families() -> list[Any]:
    """The chat templates of model families that the installed TRL holds; those for pictures take no plain text."""
    try:
        import trl
    except ImportError:
        return [pytest.param(None, marks=pytest.mark.skip(reason="needs the extra 'trl'"))]
    pictures = ("idefics3", "llava_next", "smolvlm")
    found = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    return [pytest.param(path, id=path.stem) for path in found if not path.name.startswith(pictures)]


@pytest.mark.parametrize("path", families())
def test_the_template_of_a_model_family(path: Path) -> None:
    """Under a tokenizer of single bytes, in which whatever the template writes in brackets is a special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    source = path.read_text("utf-8")
    marks = re.findall(r"<\|?[\w/ ]+\|?>|\[/?[A-Z_]+\]|<｜[^｜]*｜>", source)  # noqa: RUF001
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(alphabet, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", bos_token="<bos>")
    tokens.add_special_tokens({"additional_special_tokens": sorted({m for m in marks if "think" not in m})})
    tokens.chat_template = source
    assert_ids_of_any_tokenizer(tokens)
