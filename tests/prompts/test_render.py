"""The renderer: a function of observations and executed actions, prefix-stable where it claims so."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from prm_gym.errors import UserError
from prm_gym.prompts import load, parse
from prm_gym.types import State

OBSERVATIONS = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room.\n\nYour task is to: put a mug in desk.",
    "On the desk 1, you see nothing.",
    "On the shelf 1, you see a mug 1.",
)
ACTIONS = ("go to desk 1", "go to shelf 1")


def state(turn: int) -> State:
    return State(
        "g", "put a mug in desk.", OBSERVATIONS[: turn + 1], ACTIONS[:turn], ("look", "take mug 1 from shelf 1")
    )


@pytest.mark.parametrize("name", ["compact", "full"])
def test_history_holds_every_observation_and_action(name: str) -> None:
    text = "\n".join(message["content"] for message in load(name).messages(state(2)))
    for entry in ("middle of a room", *OBSERVATIONS[1:], *ACTIONS):
        assert entry in text


@pytest.mark.parametrize("name", ["compact", "full"])
def test_ends_with_the_user(name: str) -> None:
    assert load(name).messages(state(2))[-1]["role"] == "user"


def test_multi_turn_prompt_extends_the_one_before() -> None:
    prompt = load("compact")
    before, after = prompt.messages(state(1)), prompt.messages(state(2))
    assert after[: len(before)] == before
    assert after[len(before)] == {"role": "assistant", "content": prompt.response("", ACTIONS[1])}


def test_full_prompt_lists_the_admissible_commands() -> None:
    assert "- take mug 1 from shelf 1" in load("full").messages(state(1))[-1]["content"]


@pytest.mark.parametrize("name", ["compact", "full"])
def test_the_parser_reads_the_response(name: str) -> None:
    assert parse(load(name).response("I need a mug.", "go to shelf 1")).action == "go to shelf 1"


def test_exploration_changes_the_last_message_alone() -> None:
    prompt = load("full")
    plain, steered = prompt.messages(state(2)), prompt.exploration_messages(state(2))
    assert plain[:-1] == steered[:-1]
    assert steered[-1]["content"].startswith(plain[-1]["content"])
    assert len(steered[-1]["content"]) > len(plain[-1]["content"])


def test_exploration_changes_each_user_message_of_a_conversation_alike() -> None:
    prompt = load("compact")
    plain, steered = prompt.messages(state(2)), prompt.exploration_messages(state(2))
    [mark] = {
        theirs["content"].removeprefix(ours["content"]) for ours, theirs in zip(plain[::2], steered[::2], strict=True)
    }
    assert mark.strip()
    assert plain[1::2] == steered[1::2]  # what the assistant wrote
    before = prompt.exploration_messages(state(1))
    assert steered[: len(before)] == before, "a steered prompt extends the one before"


def test_template_text_in_an_observation_is_data() -> None:
    hostile = State("g", "t", ("{{ 7 * 7 }}",), (), ())
    assert "{{ 7 * 7 }}" in load("full").messages(hostile)[-1]["content"]


def test_unknown_prompt_is_named() -> None:
    with pytest.raises(UserError, match="no such prompt"):
        load("nonesuch")


def test_incomplete_template_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{% set multi_turn = false %}")
    with pytest.raises(UserError, match="system, user, response"):
        load(str(path))


TEMPLATE = """{% set multi_turn = false %}{% macro system() %}{% endmacro %}
{% macro user(task, history, observation, admissible_commands, turn, explore) %}{{ observation }}{% endmacro %}
{% macro response(reason, action) %}{{ action }}{% endmacro %}"""


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        (", explore)", ")", "macro 'user' takes no keyword argument 'explore'"),
        ("{{ observation }}", "{{ observatoin }}", "'observatoin' is undefined"),
        ("{{ observation }}", "{% if explore %}{{ plann }}{% endif %}", "'plann' is undefined"),
        ("{{ observation }}", "{% for o, a in history %}{{ b }}{% endfor %}", "'b' is undefined"),
        ("{{ action }}", "{{ acton }}", "'acton' is undefined"),
        ("system() %}", "system() %}{{ task }}", "'task' is undefined"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_one_line_before_work(
    tmp_path: Path, right: str, wrong: str, problem: str
) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(TEMPLATE.replace(right, wrong))
    with pytest.raises(UserError, match=f"^{path}: cannot be rendered \\({problem}\\); ") as told:
        load(str(path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "use", ["{% for c in admissible_commands %}{{ c }}{% endfor %}", "{{ admissible_commands[0] }}"]
)
def test_a_template_that_needs_the_commands_says_so_where_they_are_unknown(tmp_path: Path, use: str) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(TEMPLATE.replace("{{ observation }}", use))
    known = State("g", "t", ("o",), (), ("look",))
    assert load(str(path)).messages(known)[-1]["content"] == "look"
    with pytest.raises(UserError, match="lists the admissible commands, which this environment does not tell"):
        load(str(path)).messages(replace(known, admissible_commands=None))


def test_a_template_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_bytes(TEMPLATE.encode() + "é".encode("latin-1"))
    with pytest.raises(UserError, match=f"^{path}: is not UTF-8 text .*; save it as UTF-8$"):
        load(str(path))


def test_a_past_turn_reads_the_same_whatever_is_admissible_now(tmp_path: Path) -> None:
    path = tmp_path / "commands.jinja"
    path.write_text(
        "{% set multi_turn = true %}{% macro system() %}{% endmacro %}"
        "{% macro user(task, history, observation, admissible_commands, turn, explore) %}"
        "{{ observation }} {{ admissible_commands | join(' ') }}{% endmacro %}"
        "{% macro response(reason, action) %}{{ action }}{% endmacro %}"
    )
    prompt = load(str(path))
    one = State("g", "t", OBSERVATIONS, ACTIONS, ("look",))
    other = State("g", "t", OBSERVATIONS, ACTIONS, ("inventory", "help"))
    assert prompt.messages(one)[:-1] == prompt.messages(other)[:-1]
    assert prompt.messages(one)[-1] != prompt.messages(other)[-1]


@pytest.mark.parametrize("name", ["compact", "full"])
def test_another_process_gets_the_same_prompt(name: str) -> None:
    prompt = load(name)
    again = pickle.loads(pickle.dumps(prompt))
    assert (again.name, again.messages(state(2))) == (name, prompt.messages(state(2)))
