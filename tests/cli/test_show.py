"""`prm-gym show`: the list of episodes, and one episode turn by turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prm_gym.cli import main
from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, StopReason, Turn


def episode(name: str, game: str, won: bool, policy: str = "pi_0") -> Episode:
    turns = [
        Turn(0, "You see a desk 1.", ["look"], "look", "[bold]I look\x1b[2J", "look", True, 0.0),
        Turn(1, "Nothing new.", ["look"], "sing", "", "sing", False, float(won)),
        Turn(2, "The end.", ["look"]),
    ]
    stop = StopReason.WON if won else StopReason.STEP_LIMIT
    return Episode(name, game, "train", "find a mug", game.partition("-")[0], policy, 0, 0, stop.value, turns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with EpisodeWriter(tmp_path / "e") as writer:
        writer.add(episode("aaaaaaaa-1", "look-1", True))
        writer.add(episode("aaaaaaaa-2", "look-2", False))
        writer.add(episode("bbbbbbbb-1", "pick-1", False, "pi_1"))
    return tmp_path / "e"


@pytest.fixture
def lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def run(*arguments: str) -> list[str]:
        assert main(["show", str(folder), *arguments]) == 0
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return run


def test_the_list_tells_episodes_apart_and_counts_them(lines) -> None:
    *table, last = lines()
    assert [line.split()[:3] for line in table[2:]] == [
        ["aaaaaaaa-1", "won", "2"], ["aaaaaaaa-2", "step_limit", "2"], ["bbbbbbbb-1", "step_limit", "2"],
    ]  # fmt: skip
    assert last == "3 episodes, 1 won"


@pytest.mark.parametrize(
    ("flags", "ids", "last"),
    [
        (["--outcome", "won"], ["aaaaaaaa"], "1 episodes, 1 won"),
        (["--outcome", "lost", "--game", "look"], ["aaaaaaaa"], "1 episodes, 0 won"),
        (["--task-type", "pick"], ["bbbbbbbb"], "1 episodes, 0 won"),
        (["--policy-id", "pi_1"], ["bbbbbbbb"], "1 episodes, 0 won"),
        (["--limit", "1"], ["aaaaaaaa"], "3 episodes, 1 won, 2 more than listed"),
        (["--game", "none"], [], "0 episodes, 0 won"),
    ],
)
def test_filters(lines, flags: list[str], ids: list[str], last: str) -> None:
    *table, end = lines(*flags)
    assert [line.split()[0] for line in table[2:]] == ids
    assert end == last


def test_an_episode_is_shown_turn_by_turn_as_plain_text(lines) -> None:
    assert lines("--episode", "b") == [
        "bbbbbbbb-1 of pi_1 in pick-1", "Task: find a mug", "",
        "You see a desk 1.", "[bold]I look\\x1b[2J", "> look", "",
        "Nothing new.", "> sing (not admissible)", "",
        "The end.", "", "step_limit after 2 actions",
    ]  # fmt: skip


@pytest.mark.parametrize(("wanted", "problem"), [("aaa", "2 episodes 'aaa'"), ("zz", "0 episodes 'zz'")])
def test_one_episode_must_be_meant(folder: Path, refusal, wanted: str, problem: str) -> None:
    assert refusal("show", folder, "--episode", wanted).startswith(f"--episode: {problem}; ")


def test_a_folder_without_episodes_is_refused(tmp_path: Path, refusal) -> None:
    assert str(tmp_path) in refusal("show", tmp_path)
