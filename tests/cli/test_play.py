"""`prm-gym play`: typed commands against the environment played directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("alfworld")

from prm_gym.cli import main
from prm_gym.cli.console import console
from prm_gym.envs.alfworld import ALFWorldEnv
from prm_gym.envs.games import find_games


@pytest.fixture
def game(games: Path) -> Path:
    return find_games(games, "train")[0].path


Play = Callable[..., list[str]]


@pytest.fixture
def play(game: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Play:
    """What is shown before each line that is typed, and after the last of them."""

    def run(*typed: str, flags: tuple[str, ...] = (), where: Path = game) -> list[str]:
        lines: Iterator[str] = iter(typed)
        shown: list[str] = []

        def read(prompt: str) -> str:
            shown.append(capsys.readouterr().out)
            try:
                return next(lines)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(console, "input", read)
        assert main(["play", str(where), *flags]) == 0
        return shown

    return run


def texts(game: Path, *commands: str) -> list[str]:
    """The observations of the game."""
    env = ALFWorldEnv([game])
    return [env.reset()[0], *(env.step(command)[0] for command in commands)]


def test_commands_and_their_numbers_are_carried_out(game: Path, play: Play) -> None:
    env = ALFWorldEnv([game])
    start, info = env.reset()
    second = info["admissible_commands"][1]
    seen = texts(game, second, "fly")
    shown = play("2", "fly")
    assert start in shown[0]
    assert f" 2 {second}" in shown[0]
    assert seen[1] in shown[1]
    assert shown[2].startswith("\nNothing happens.\n")


def test_undo_returns_to_the_state_before_as_often_as_there_is_one(game: Path, play: Play) -> None:
    first, second = ALFWorldEnv([game]).reset()[1]["admissible_commands"][:2]
    shown = play(first, second, "undo", "undo", "undo", second)
    assert shown[3] == shown[1]
    start = shown[0].partition("quit`.\n")[2]
    assert shown[4] == shown[5] == start
    assert texts(game, second)[1] in shown[6]


def test_the_limit_ends_the_game_and_undo_goes_on_from_before_it(play: Play) -> None:
    shown = play("look", "help", "look", "undo", "quit", flags=("--max-episode-steps", "2"))
    assert "Not won after 2 actions; `undo` or `quit`" in shown[2]
    assert shown[3] == ""  # `look` is not taken any more
    assert shown[4] == shown[1]


def test_input_that_is_no_listed_number_costs_no_step(play: Play) -> None:
    assert play("0", "99", "9" * 5000, "")[1:] == [""] * 4


def test_a_game_of_a_folder_is_drawn_by_the_seed(games: Path, play: Play) -> None:
    drawn = {play(where=games / "train", flags=("--seed", str(seed)))[0].splitlines()[0] for seed in range(8)}
    assert len(drawn) == 2


def test_q_of_every_command_is_shown(game: Path, play: Play) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'trl'")
    from tiny_models import classifier

    from prm_gym.prm.in_process import PRMScorer
    from prm_gym.prompts import load
    from prm_gym.types import State

    start, info = ALFWorldEnv([game]).reset()
    state = State(info["game_id"], info["task"], (start,), (), tuple(info["admissible_commands"]))
    prompt = load("compact")
    chats = [
        [*prompt.messages(state), {"role": "assistant", "content": command}] for command in state.admissible_commands
    ]
    expected = PRMScorer(classifier(), prompt=prompt).score_messages(chats)
    [shown] = play(flags=("--prm", str(classifier()), "--prompt", "compact"))
    for command, q in zip(state.admissible_commands, expected, strict=True):
        assert f"{command}  Q {q:.3f}" in shown


def test_a_prompt_without_a_prm_is_refused(game: Path, refusal) -> None:
    assert refusal("play", game, "--prompt", "full").startswith("--prompt: has no effect without --prm")
