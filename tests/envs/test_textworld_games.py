"""TextWorld's generated games against TextWorld itself: its walkthrough wins, and the texts are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prm_gym.envs.contract import CheckedEnvironment
from prm_gym.envs.named import NamedEnvironment
from prm_gym.envs.textworld_games import TextWorldGames
from prm_gym.errors import UserError
from prm_gym.policies.random import RandomPolicy
from prm_gym.rollout import rollout, rollout_branches
from prm_gym.store import read_episodes

textworld = pytest.importorskip("textworld", reason="needs the extra 'textworld'")
from textworld.challenges import CHALLENGES  # noqa: E402
from textworld.generator.chaining import QuestGenerationError  # noqa: E402


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> NamedEnvironment:
    kwargs = {
        "challenge": "tw-treasure_hunter",
        "settings": {"level": 4},
        "grammar": {"only_last_action": True},
        "folder": str(tmp_path_factory.mktemp("games")),
    }
    return NamedEnvironment(factory="prm_gym.envs.textworld_games:TextWorldGames", kwargs=kwargs)


def game_file(env: NamedEnvironment, seed: int | None) -> Path:
    [path] = Path(env.kwargs["folder"]).glob(f"*/{seed}.z8")
    return path


def test_the_walkthrough_of_the_game_wins_and_its_last_step_is_paid(env: NamedEnvironment) -> None:
    for task in env.tasks("train")[:2]:
        playing = env()
        shown = playing.reset(task)
        assert "-=" in shown.observation
        walkthrough = textworld.Game.load(str(game_file(env, task.seed).with_suffix(".json"))).walkthrough
        assert 1 < len(walkthrough) < 10
        for number, command in enumerate(walkthrough, 1):
            assert command in (shown.admissible_commands or ())
            shown, reward, terminated, _ = playing.step(command)
            assert (reward, terminated, shown.info["won"]) == (
                (1.0, True, True) if number == len(walkthrough) else (0.0, False, False)
            )
        assert "RESTART" not in shown.observation
        playing.close()


def test_the_expert_wins_after_a_detour(env: NamedEnvironment) -> None:
    playing = env()
    shown = playing.reset(env.tasks("train")[0])
    for _ in range(3):
        away = [command for command in shown.admissible_commands or () if command.startswith("go ")]
        shown, *_ = playing.step(next(command for command in away if command != shown.info["expert_action"]))
    for _ in range(12):
        shown, _, terminated, _ = playing.step(shown.info["expert_action"])
        if terminated:
            break
    assert shown.info["won"]
    playing.close()


@pytest.mark.filterwarnings("ignore:Game .* is not fully supported")
def test_texts_are_textworlds_own(env: NamedEnvironment) -> None:
    task, playing = env.tasks("train")[0], env()
    shown = playing.reset(task)
    plain = textworld.start(str(game_file(env, task.seed)), textworld.EnvInfos(description=True, objective=True))
    state = plain.reset()
    assert (shown.observation, shown.info["task"]) == (state.description.strip(), state.objective.strip())
    for command in ("inventory", "dance", "go north", "go south", "look"):
        shown, *_ = playing.step(command)
        state, *_ = plain.step(command)
        assert shown.observation == state.feedback.partition("\n>")[0].strip() != ""
    playing.close()


def test_no_action_crashes_hangs_or_asks_the_interpreter(env: NamedEnvironment) -> None:
    """Frotz crashes at \\x11 and waits for ever at \\0 and \\x0e, so this runs in a process of its own."""
    program = (
        "import json, os, sys; from prm_gym.envs.textworld_games import TextWorldGames\n"
        "os.chdir(sys.argv[3]); env = TextWorldGames(**json.loads(sys.argv[1])); env.reset(seed=0)\n"
        "said = {action: env.step(action)[0] for action in json.loads(sys.argv[2])}\n"
        "print(json.dumps([said, env.step('look')[0]]))"
    )
    refused = [
        "quit",
        "Restart",
        "save",
        "look. save",
        "restore",
        "transcripts",
        "tw-trace-actions",
        "look then script",
    ]
    actions = [*map(chr, range(32)), "look\x11", "\x7f", "é" * 99 + "x", "日本", "x" * 500, *refused]
    run = [sys.executable, "-c", program, json.dumps(env.kwargs), json.dumps(actions), env.kwargs["folder"]]
    found = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120)
    said, looked = json.loads(found.stdout)
    assert [said[action] for action in refused] == ["That's not a verb I recognise."] * len(refused)
    assert said["look\x11"] == looked
    assert {path.suffix for path in Path(env.kwargs["folder"]).iterdir()} == {""}  # no saved game, no transcript


def test_a_thing_may_be_named_like_a_command_of_the_interpreter() -> None:
    playing = TextWorldGames("tw-simple")
    playing._state = SimpleNamespace(admissible_commands=["take script"])
    assert not playing._outside_the_game("take script")
    assert playing._outside_the_game("script")


def test_a_seed_gives_the_same_game_in_every_process(env: NamedEnvironment, tmp_path: Path) -> None:
    program = (
        "import sys; from prm_gym.envs.textworld_games import TextWorldGames\n"
        "env = TextWorldGames('tw-treasure_hunter', {'level': 2}, folder=sys.argv[1])\n"
        "print(env.reset(seed=3))"
    )
    said = set()
    for number in (0, 1):
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        run = [sys.executable, "-c", program, str(tmp_path / str(number))]
        said.add(subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(said) == 1


def test_rollouts_and_their_branches(env: NamedEnvironment, tmp_path: Path) -> None:
    tasks = env.tasks("valid_unseen")[:2]
    options = {"make_env": env, "progress": False, "max_episode_steps": 6, "concurrency": 4}
    assert rollout(tasks, RandomPolicy(), tmp_path / "a", rollouts_per_game=2, **options).episodes == 4
    for episode in read_episodes(tmp_path / "a"):
        assert episode.task_type == "tw-treasure_hunter"
        assert all(turn.action_valid for turn in episode.turns[:-1])
    assert rollout_branches(tmp_path / "a", tasks, RandomPolicy(), tmp_path / "b", **options).episodes > 4


def test_an_unknown_challenge_or_setting_is_told(env: NamedEnvironment) -> None:
    with pytest.raises(UserError, match="no challenge 'chess'; say one of tw-"):
        NamedEnvironment(factory=env.factory, kwargs={"challenge": "chess"}).make()
    odd = NamedEnvironment(factory=env.factory, kwargs={**env.kwargs, "settings": {"level": 99}})
    playing = CheckedEnvironment(odd.make(), "odd")
    with pytest.raises(UserError, match=r"odd: reset raised ValueError: Expected level to be within \[1-30\]"):
        playing.reset(odd.tasks("train")[0])


def test_a_seed_without_a_game_takes_the_next_of_its_series(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A seed's map may have no way of the length asked for."""

    def game(name: str, seed: int) -> tuple[str, dict[str, Any]]:
        return TextWorldGames("tw-treasure_hunter", {"level": 2}, folder=str(tmp_path / name)).reset(seed=seed)

    expected = game("plain", 10_000_003)
    describe, make, parser = CHALLENGES["tw-treasure_hunter"]
    first = textworld.GameOptions()
    first.seeds = 3

    def refusing(settings: dict[str, Any], options: Any) -> Any:
        if options.seeds == first.seeds:
            raise QuestGenerationError
        return make(settings, options)

    monkeypatch.setitem(CHALLENGES, "tw-treasure_hunter", (describe, refusing, parser))
    assert game("refused", 3) == expected

    def never(settings: dict[str, Any], options: Any) -> Any:
        raise QuestGenerationError

    monkeypatch.setitem(CHALLENGES, "tw-treasure_hunter", (describe, never, parser))
    with pytest.raises(UserError, match="no game of these settings for seed 3 and 9 more; ask for fewer rooms"):
        game("none", 3)
