"""The parser's written rule, one example a clause, and that it inverts `format_response`."""

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


words = st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=6).map(" ".join)


@settings(deadline=None)
@given(words, words)
def test_inverts_format_response(reason: str, action: str) -> None:
    assert parse(format_response(reason, action)) == (reason, action)


@settings(deadline=None)
@given(st.text())
def test_never_raises_and_gives_one_line(text: str) -> None:
    parsed = parse(text)
    assert "\n" not in parsed.action
    assert parsed.action == parsed.action.strip()
