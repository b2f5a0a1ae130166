"""The tokenizer made locally: it loses nothing, names are one token, each prompt extends the one before it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_gym.errors import UserError
from prm_gym.prompts import load
from prm_gym.types import State

torch = pytest.importorskip("torch", reason="needs the extra 'trl'")
transformers = pytest.importorskip("transformers", reason="needs the extra 'trl'")
from prm_gym.hosts.tiny_model import make_tiny_model  # noqa: E402

TEXTS = [
    "On the shelf 1, you see a mug 1, and a pen 12. Task: put a mug in desk.",
    "The desk 1 is closed. Task: put a clean mug in shelf.",
    "You are in the middle of a room. Looking quickly around you, you see a desk 1. Task: put a mug in desk.",
    "go to shelf 1",
] * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    make_tiny_model(out, TEXTS, hidden_size=32, layers=1, heads=2)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> transformers.PreTrainedTokenizerFast:
    return transformers.AutoTokenizer.from_pretrained(folder)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60).filter(lambda text: "<|" not in text))
def test_any_text_survives(text: str, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def test_text_that_looks_like_a_byte_piece_survives(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(tokenizer("a <0x41> b")["input_ids"]) == "a <0x41> b"


@pytest.mark.parametrize(
    ("text", "piece"), [("you see a mug 1.", " mug 1"), ("take mug 1 from desk 1", " mug 1"), ("put a mug in", " mug")]
)
def test_a_thing_is_one_piece_and_its_kind_another(
    text: str, piece: str, tokenizer: transformers.PreTrainedTokenizerFast
) -> None:
    assert piece in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_the_embedding_of_a_thing_begins_as_the_sum_of_its_parts(
    folder: Path, tokenizer: transformers.PreTrainedTokenizerFast
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    of = tokenizer.get_vocab()
    embeddings = model.get_input_embeddings().weight.detach()
    for thing, parts in ((" mug 1", (" mug", " 1")), (" pen 12", (" pen", " 1", "2"))):
        whole = sum(embeddings[of[part]] for part in parts)
        assert torch.allclose(embeddings[of[thing]] * len(parts) ** 0.5, whole)
    assert embeddings.std() == pytest.approx(32**-0.5, rel=0.1)


def test_what_always_stands_between_things_is_one_piece(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    fixed = "You are in the middle of a room. Looking quickly around you, you see a"
    assert tokenizer.convert_ids_to_tokens(tokenizer(f"{fixed} mug 1")["input_ids"]) == [fixed, " mug 1"]


def test_pad_and_end_differ(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    assert tokenizer.pad_token_id is not None
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_each_prompt_extends_the_one_before_and_its_answer(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    prompt = load("compact")
    observations, actions = ("You see a shelf 1.", "On the shelf 1, you see a mug 1."), ("go to shelf 1",)
    before = State("g", "put a mug in desk.", observations[:1], (), ("look",))
    after = State("g", "put a mug in desk.", observations, actions, ("look",))

    def ids(messages: list[dict[str, str]], generation: bool) -> list[int]:
        return list(
            tokenizer.apply_chat_template(messages, add_generation_prompt=generation, return_dict=True)["input_ids"]
        )

    answered = [*prompt.messages(before), {"role": "assistant", "content": prompt.response("", actions[0])}]
    first, scored, second = ids(prompt.messages(before), True), ids(answered, False), ids(prompt.messages(after), True)
    assert scored[: len(first)] == first
    assert scored[-1] == tokenizer.eos_token_id  # where a PRM reads its score
    assert second[: len(scored)] == scored


def test_the_same_texts_give_the_same_model(folder: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path, TEXTS, hidden_size=32, layers=1, heads=2)
    for name in ("tokenizer.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="collect demonstrations first"):
        make_tiny_model(tmp_path, [])
