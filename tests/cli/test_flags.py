"""Values and combinations of flags that are refused before any game, model or server is used."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from prm_gym.cli import main
from prm_gym.errors import UserError
from prm_gym.prompts.render import BUILT_IN

HUGE = "99999999999999999999"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Looks like a model and cannot be loaded: whoever tries does not print the line that is wanted."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("command", ["rollout", "evaluate"])
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seed", "-1"], "--seed: got -1; must be at least 0"),
        (["--max-episode-steps", HUGE], f"--max-episode-steps: got {HUGE}; must be at least 1 and at most 2147483647"),
        (["--max-episode-steps", "0"], "--max-episode-steps: got 0; must be at least 1"),
        (["--max-new-tokens", "0"], "--max-new-tokens: got 0; must be at least 1"),
        (["--temperature", "-0.1"], "--temperature: got -0.1; must be at least 0"),
        (["--temperature", "nan"], "--temperature: got nan; must be at least 0"),
        (["--temperature", "hot"], "--temperature: 'hot' is not a number"),
        (["--concurrency", "0"], "--concurrency: got 0; must be at least 1"),
        (["--max-games", "0"], "--max-games: got 0; must be at least 1"),
        (["--max-games", "3"], "--max-games: got 3, there are 2 games; must be 1 to 2"),
        (
            ["--prompt", "nope"],
            f"--prompt: no such prompt 'nope'; name one of {', '.join(BUILT_IN)} or the path",
        ),
        (["--random-actions", "0.4"], "--random-actions: has no effect without --policy expert; leave it out"),
        (["--served-model", "m"], "--served-model: has no effect without --server; leave it out"),
        (["--api-key-env", "KEY"], "--api-key-env: has no effect without --server; leave it out"),
        (["--server", "localhost:8000"], "--server: 'localhost:8000' is not an HTTP address"),
        (["--split", "test"], "GAMES: test: no game of split 'test'"),
        (["--split", ""], "--split: an empty name"),
        (["--policy-id", " "], "--policy-id: an empty name"),
    ],
)
def test_of_a_model(refusal, games, model, tmp_path, command, flags, said):
    line = refusal(command, "--games", games, "--policy", model, "--out", tmp_path / "out", *flags)
    assert line.startswith(said.replace("GAMES", str(games)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["rollout", "evaluate"])
@pytest.mark.parametrize("policy", ["expert", "random"])
@pytest.mark.parametrize(
    "flags",
    [
        ["--prompt", "nope"],
        ["--prompt", "full"],
        ["--temperature", "0.3"],
        ["--max-new-tokens", "256"],
        ["--server", "http://localhost:8000/v1"],
        ["--served-model", "m"],
        ["--api-key-env", "KEY"],
        ["--force"],
    ],
)
def test_a_scripted_policy_has_no_flags_of_models(refusal, games, tmp_path, command, policy, flags):
    line = refusal(command, "--games", games, "--policy", policy, "--out", tmp_path / "out", *flags)
    assert line == f"{flags[0]}: has no effect with --policy {policy}; leave it out"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--best-of", "4"], "--prm: best-of-N needs a PRM to choose by; name its folder, or leave out --best-of"),
        (
            ["--weight", "1"],
            "--prm: best-of-N needs a PRM to choose by; name its folder, or leave out --best-of, --weight",
        ),
        (["--prm", "MODEL", "--best-of", "0"], "--best-of: got 0; must be at least 1"),
        (["--prm", "MODEL", "--weight", "-1"], "--weight: got -1.0; must be at least 0"),
        (["--prm", "MODEL", "--weight", "nan"], "--weight: got nan; must be at least 0"),
        (["--prm", "nowhere/prm"], "--prm: 'nowhere/prm' is no folder here, and HF_HUB_OFFLINE is set"),
        (["--prm", "/nope"], "--prm: '/nope' is no folder; check the path"),
    ],
)
def test_of_best_of_n(refusal, games, model, tmp_path, monkeypatch, flags, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    flags = [str(model) if flag == "MODEL" else flag for flag in flags]
    line = refusal("evaluate", "--games", games, "--policy", model, "--out", tmp_path / "out", *flags)
    assert line.startswith(said)
    assert not (tmp_path / "out").exists()


def test_best_of_n_of_the_expert_is_refused_before_q_is_loaded(refusal, games, model, tmp_path):
    """The expert gives the same response N times; `random` does not, and Q may choose among its actions."""
    line = refusal("evaluate", "--games", games, "--policy", "expert", "--prm", model, "--out", tmp_path / "out")
    assert line == "--prm: has no effect with --policy expert; leave it out"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--iteration", "-1"], "--iteration: got -1; must be at least 0"),
        (["--rollouts-per-game", "0"], "--rollouts-per-game: got 0; must be at least 1"),
        (["--states-per-episode", "2"], "--states-per-episode: has no effect without --branch-from"),
        (["--actions-per-state", "3"], "--actions-per-state: has no effect without --branch-from"),
        (["--continuations", "1"], "--continuations: has no effect without --branch-from"),
        (["--branch-temperature", "1"], "--branch-temperature: has no effect without --branch-from"),
        (["--branch-from", "e", "--max-games", "1"], "--max-games: has no effect with --branch-from"),
        (["--branch-from", "e", "--rollouts-per-game", "1"], "--rollouts-per-game: has no effect with --branch-from"),
        (
            ["--branch-from", "e", "--branch-temperature", "1"],
            "--branch-temperature: has no effect with --policy expert",
        ),
        (["--branch-from", "nowhere"], "nowhere: no such folder of episodes"),
        (["--branch-from", ""], "--branch-from: an empty path"),
    ],
)
def test_of_rollout(refusal, games, tmp_path, flags, said):
    line = refusal("rollout", "--games", games, "--policy", "expert", "--out", tmp_path / "out", *flags)
    assert line.startswith(said)


def test_a_share_of_the_expert_needs_an_expert(refusal, tmp_path):
    line = refusal("label", "prompts", "--rollouts", tmp_path, "--out", tmp_path / "out", "--expert-fraction", "0.3")
    assert line == "--expert-fraction: has no effect without --expert; leave it out"


def test_more_actions_at_a_state_than_responses_are_sampled(refusal, capsys, games, tmp_path):
    played = ["rollout", "--games", str(games), "--policy", "expert"]
    assert main([*played, "--out", str(tmp_path / "e")]) == 0
    capsys.readouterr()
    branch = ["--branch-from", tmp_path / "e", "--out", tmp_path / "b", "--actions-per-state", 9]
    line = refusal(*played, *branch)
    assert line.startswith("--actions-per-state: 8 samples cannot show 9 different actions; must be at")


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollout", "--games", "", "--policy", "expert", "--out", "o"],
        ["rollout", "--games", "g", "--policy", "", "--out", "o"],
        ["rollout", "--games", "g", "--policy", "expert", "--out", ""],
        ["evaluate", "--games", "g", "--policy", "m", "--out", "o", "--prm", ""],
        ["label", "sft", "--rollouts", "", "--out", "o"],
        ["label", "sft", "--rollouts", "r", "--out", " "],
        ["label", "shaping", "--rollouts", "r", "--out", "o", "--values", ""],
        ["label", "shaping", "--rollouts", "r", "--out", "o", "--value-model", ""],
        ["label", "inverse", "--rollouts", "r", "--out", "o", "--expert", ""],
        ["label", "inverse", "--rollouts", "r", "--out", "o", "--expert", "e", "--policy", ""],
        ["games", ""],
        ["compile", ""],
        ["compile", "g", "--cache", ""],
        ["report", ""],
        ["report", "r", "--out", ""],
        ["iter", "1", "--recipe", ""],
        ["iter", "1", "--recipe", "r", "--run", ""],
        ["host", "prepare", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(refusal, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert ": an empty " in refusal(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_output_folder(refusal, games, model, tmp_path):
    (tmp_path / "out").write_text("")
    line = refusal("rollout", "--games", games, "--policy", model, "--out", tmp_path / "out")
    assert line == f"--out: {tmp_path / 'out'} is a file; name a folder"


@pytest.mark.parametrize("command", ["rollout", "evaluate", "model"])
def test_nothing_is_written_among_games(refusal, games, command):
    before = sorted(games.rglob("*"))
    flags = {"model": ["model", "anything", games]}
    play = [command, "--games", games, "--policy", "expert", "--out", games]
    assert refusal(*flags.get(command, play)) == f"{games}: holds games already; name another folder"
    assert sorted(games.rglob("*")) == before


def test_parents_of_other_games_leave_no_folder(refusal, capsys, games, tmp_path):
    assert main(["rollout", "--games", str(games), "--policy", "expert", "--out", str(tmp_path / "e")]) == 0
    capsys.readouterr()
    play = ["rollout", "--games", games, "--split", "valid_unseen", "--policy", "expert", "--out", tmp_path / "b"]
    line = refusal(*play, "--branch-from", tmp_path / "e")
    assert re.match(rf"--games: train/\S+ of the parents in {tmp_path}/e is not there; name its folder", line)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("train", "'train' is not NAME=COUNT; write train=200,valid_seen=50,valid_unseen=50"),
        ("train=\N{SUPERSCRIPT TWO}", "'train=\N{SUPERSCRIPT TWO}' is not NAME=COUNT"),
        ("train=1, train =2", "train stands twice; name each split once"),
    ],
)
def test_splits_of_games_are_names_with_counts(refusal, tmp_path, split, said):
    assert refusal("games", tmp_path / "g", "--split", split).startswith(f"--split: {said}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", [".", "../mine", "../mine/"])
@pytest.mark.parametrize("command", [["iter", "1", "--recipe"], ["plan"]])
def test_a_run_is_named_after_the_folder_of_its_recipe(refusal, tmp_path, monkeypatch, command, recipe):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")

    class Run:
        def __init__(self, recipe, folder, *options):
            raise UserError(folder, "is the folder", "end here")

    monkeypatch.setattr("prm_gym.runs.iteration.Run", Run)
    assert refusal(*command, recipe) == "runs/mine: is the folder; end here"
