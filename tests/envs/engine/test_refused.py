"""Unsupported games: played by stock with a warning, or refused where stock would evaluate their text as code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("alfworld")

from kitchen import write_kitchen

from prm_gym.envs import engine
from prm_gym.envs.engine.grammar import expression
from prm_gym.envs.engine.unsupported import Unsafe
from prm_gym.envs.stock import StockGame, StockPlay
from prm_gym.errors import UserError


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


HELP = '"rhs": "\\nAvailable'  # the beginning of the text of `help`

UNPROVEN = {
    "reads what a conditional effect changes": {
        "grammar": replaced("toggleable(o:object) & istoggled(o:object)", "toggleable(o:object) & ison(o:object)"),
    },
    "a command that changes": {
        "grammar": replaced('"use {o}"', '"use {o} [{r.name | inreceptacle(o:object, r:receptacle)}]"'),
    },
    "several actions, one command": {"grammar": replaced('"clean {o} with {r}"', '"examine {r}"')},
    "no production may apply": {
        "grammar": replaced(
            '"help.feedback": [\n                {',
            '"help.feedback": [\n                {"condition": "holdsany(a:agent)",',
        ),
    },
    "a rule that calls itself": {"grammar": replaced(HELP, '"rhs": "#help.feedback#\\nAvailable')},
    "a rule that is not there": {"grammar": replaced(HELP, '"rhs": "#nobody#\\nAvailable')},
    "a variable that is not bound": {"grammar": replaced(HELP, '"rhs": "{o.name}\\nAvailable')},
    "a text with too many cases": {
        "grammar": replaced(
            HELP,
            '"rhs": "{x.name | inreceptacle(x:object, r:receptacle) & inreceptacle(y:object, s:receptacle)'
            " & inreceptacle(z:object, t:receptacle)}\\nAvailable",
        ),
    },
    "a predicate named like a negation": {
        "domain": replaced("(examined ?l - location)", "(examined ?l - location) (not_clean ?o - object)"),
        "problem": replaced("(:init", "(:init (not_clean apple_bar_1)"),
    },
    "an action the grammar lacks": {"grammar": replaced("action help {", "action helpless {")},
}


@pytest.mark.parametrize("changes", UNPROVEN.values(), ids=UNPROVEN.keys())
def test_what_is_not_proven_is_left_to_stock(
    tmp_path: Path, fresh_engine: None, changes: dict[str, Callable[[str], str]]
) -> None:
    path = write_kitchen(tmp_path, **changes)
    with pytest.warns(UserWarning, match="is played by stock"):
        game = engine.load(path)
    assert isinstance(game, StockGame)


def test_the_warning_comes_once_and_stock_plays(
    tmp_path: Path, fresh_engine: None, recwarn: pytest.WarningsRecorder
) -> None:
    path = write_kitchen(tmp_path, **UNPROVEN["reads what a conditional effect changes"])
    for _ in range(3):
        play = engine.load(path).start()
    assert sum("is played by stock" in str(warning.message) for warning in recwarn) == 1
    assert isinstance(play, StockPlay)
    assert play.step("go to desk 1").startswith("You arrive at desk 1.")


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').mkdir('evaluated')",
        "o.name.upper()",
        "len(o.name)",
        "o.__class__",
        "o.name + 1",
        "o.name if o else 1",
        "'a' + o",
        "context",
        "o.name or",
        "o.name o.name",
        "f'{o}'",
        "'a\\x41'",
        "lambda",
    ],
)
def test_expressions_beyond_the_small_language_are_unsafe(code: str) -> None:
    with pytest.raises(Unsafe):
        expression(code)


def test_the_small_language() -> None:
    assert expression("o.indefinite + ' ' + o.name") == [[["o", "indefinite"], " ", ["o", "name"]]]
    assert expression(" r.name or r.id") == [[["r", "name"]], [["r", "id"]]]
    assert expression("r") == [[["r", "name"]]]


@pytest.mark.parametrize("where", ["a rule that is used", "a rule that is not used", "beside another fault"])
def test_nothing_of_a_game_file_is_evaluated(
    tmp_path: Path, fresh_engine: None, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    code = "{__import__('os').mkdir('evaluated')}"
    change = {
        "a rule that is used": replaced(HELP, f'"rhs": "{code}\\nAvailable'),
        "a rule that is not used": replaced('"intro": [', f'"unused": [{{"rhs": "{code}"}}], "intro": ['),
        "beside another fault": replaced(HELP, f'"rhs": "{code}#nobody#\\nAvailable'),
    }[where]
    path = write_kitchen(tmp_path, grammar=change)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # compiled, then from the cache
        engine.set_limits()
        with pytest.raises(UserError, match="only if you trust the file"):
            engine.load(path).start().step("help")
    assert not (tmp_path / "evaluated").exists()
