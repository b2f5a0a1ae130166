"""The parser's documented rules, one example for each clause, and that it inverts `format_response`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_gym.prompts import format_response, parse


@pytest.mark.parametrize(
    ("text", "reason", "action"),
    [
        ("REASON: I look.\nACTION: go to desk 1", "I look.", "go to desk 1"),
        ("reason: I look.\naction: go to desk 1", "I look.", "go to desk 1"),
        ("**Reason:** I look.\n\n**Action:** `go to desk 1`", "I look.", "go to desk 1"),
        ("- **ACTION**: go to desk 1.", "", "go to desk 1"),
        ("## Reason: a\nb\n\nACTION:\ngo to  desk 1", "a b", "go to desk 1"),
        ("I think so.\nACTION: look", "I think so.", "look"),
        ("REASON: a\nACTION: look\nWait.\nREASON: b\nACTION: go to bed 1\nDone.", "b", "go to bed 1"),
        ("ACTION: look\nACTION:", "", "look"),
        ("REASON: a\ngo to bed 1", "a", "go to bed 1"),
        ("go to bed 1", "", "go to bed 1"),
        ("thinking\n\ngo to bed 1\n", "thinking", "go to bed 1"),
        ("REASON: only thoughts", "only thoughts", ""),
        ("", "", ""),
        ("ACTION: take Mug 1", "", "take Mug 1"),
    ],
)
def test_rule(text: str, reason: str, action: str) -> None:
    assert parse(text) == (reason, action)


@pytest.mark.parametrize(
    ("text", "reason", "action"),
    [
        ("> go to shelf 1", "", "go to shelf 1"),
        (">go to shelf 1", "", "go to shelf 1"),
        ("1. go to shelf 1", "", "go to shelf 1"),
        ("- go to shelf 1.", "", "go to shelf 1"),
        ("> 2) `go to shelf 1`", "", "go to shelf 1"),
        ("REASON: a\nACTION: > go to shelf 1", "a", "go to shelf 1"),
        ("I look.\n> **go to shelf 1**", "I look.", "go to shelf 1"),
        ("ACTION: 1. go to shelf 1", "", "go to shelf 1"),
        ("ACTION: <action>go to shelf 1</action>", "", "go to shelf 1"),
        ("put 1. in 2", "", "put 1. in 2"),  # no mark before it
        ("1.", "", "1"),  # nothing but a number, as ever
    ],
)
def test_marks_before_an_action_are_dropped(text: str, reason: str, action: str) -> None:
    assert parse(text) == (reason, action)


@pytest.mark.parametrize(
    ("text", "reason", "action"),
    [
        ("<action>go to shelf 1</action>", "", "go to shelf 1"),
        ("<think>a\nb</think><action>go to shelf 1</action>\n", "a b", "go to shelf 1"),
        ("<think>a</think>\n<Action>\n> go to shelf 1\n</Action>", "a", "go to shelf 1"),
        ("<action>look</action> No.\n<action>go to shelf 1</action>", "look No.", "go to shelf 1"),
        ("REASON: a\n<action>go to shelf 1</action>", "a", "go to shelf 1"),
        ("<action>look</action>\ngo to shelf 1", "<action>look</action>", "go to shelf 1"),  # not at the end
        ("ACTION: look\n<action>go to shelf 1</action>", "", "look"),  # a label comes first
        ("<action></action>", "", ""),
        ("<action>go to shelf 1", "", "go to shelf 1"),  # cut off at the response limit
    ],
)
def test_an_action_in_tags(text: str, reason: str, action: str) -> None:
    assert parse(text) == (reason, action)


OBJECT = '{"reason": "I look.", "action": "go to shelf 1"}'


@pytest.mark.parametrize(
    ("text", "reason", "action"),
    [
        (OBJECT, "I look.", "go to shelf 1"),
        ('{\n  "Action": "> go to shelf 1."\n}\n', "", "go to shelf 1"),
        (f"```json\n{OBJECT}\n```", "I look.", "go to shelf 1"),
        ('Let me think.\n```\n{"action": "go to shelf 1"}\n```', "Let me think.", "go to shelf 1"),
        (f"REASON: a\n{OBJECT}", "a", "go to shelf 1"),
        (f"{OBJECT}\nlook", OBJECT, "look"),  # not at the end
        (f"{OBJECT}\nACTION: look", OBJECT, "look"),  # a label comes first
        ('{"action": 1}', "", '{"action": 1}'),
        ('{"action": "go to', "", '{"action": "go to'),
        ('{"a":' * 20_000 + "}", "", '{"a":' * 20_000 + "}"),
    ],
)
def test_an_action_in_a_json_object(text: str, reason: str, action: str) -> None:
    assert parse(text) == (reason, action)


words = st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=6).map(" ".join)


@settings(deadline=None)
@given(words, words)
def test_inverts_format_response(reason: str, action: str) -> None:
    assert parse(format_response(reason, action)) == (reason, action)


pieces = st.sampled_from(
    [*'<>{}[]-1.:"`\n ', "action", "<action>", "</action>", '"action"', "ACTION:", "REASON:", "```"]
)


@settings(deadline=None)
@given(st.text() | st.lists(pieces | st.text(max_size=3)).map("".join))
def test_never_raises_and_gives_one_line(text: str) -> None:
    parsed = parse(text)
    assert "\n" not in parsed.action
    assert parsed.action == parsed.action.strip()
