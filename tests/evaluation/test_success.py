"""Success rates against a brute-force interval, and the content of results.json."""

import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rollout_world import Corridor, Walker, content, make_games

from prm_gym.errors import UserError
from prm_gym.evaluation.intervals import wilson
from prm_gym.evaluation.results_file import add_result, read_results
from prm_gym.evaluation.results_table import table, told_apart
from prm_gym.evaluation.success import evaluate, summarise
from prm_gym.rollout import rollout
from prm_gym.types import Episode, State, Turn

WALKER = {"name": "w", "prm": None, "split": "train", "make_env": Corridor, "progress": False}


def episode(number: int, won: bool, actions: int, task_type: str = "pick_and_place_simple") -> Episode:
    turns = [Turn(t, "o", ["look"], action="look", reward=0.0) for t in range(actions)] + [Turn(actions, "o", [])]
    turns[-2].reward = float(won)
    stop = "won" if won else "step_limit"
    return Episode(f"e{number}", f"g{number}", "valid_unseen", "t", task_type, "pi_1", 1, 0, stop, turns)


@pytest.mark.parametrize(("wins", "n"), [(0, 10), (3, 10), (134, 200), (200, 200)])
def test_wilson_inverts_the_score_test(wins: int, n: int) -> None:
    """Both ends p solve (wins/n - p)^2 = z^2 p (1 - p) / n, the definition of the interval."""
    for p in wilson(wins, n):
        assert (wins / n - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / n, abs=1e-12)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_success_is_that_of_all_games(tmp_path: Path) -> None:
    """A game that failed is no game less: the evaluation is not done until the same command has played it."""
    games = make_games(30)

    async def fail(state: State) -> None:
        if state.game_id == games[3].game_id:
            raise RuntimeError("lost")

    with pytest.raises(UserError, match=r"1 of \d+ failed"):
        evaluate(games, Walker(fail), tmp_path, mode="policy", **WALKER)
    assert not (tmp_path / "results.json").exists()
    entry, _ = evaluate(games, Walker(), tmp_path, mode="policy", **WALKER)
    assert entry["games"] == 30


def test_several_rollouts_of_a_game_are_no_games(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^rollouts_per_game: an evaluation plays each game once"):
        evaluate(make_games(1), Walker(), tmp_path, mode="policy", rollouts_per_game=100, **WALKER)
    assert not list(tmp_path.iterdir())


def test_the_episodes_are_those_of_a_rollout_with_the_same_seed(tmp_path: Path) -> None:
    evaluate(make_games(8), Walker(), tmp_path / "out", mode="policy", seed=3, **WALKER)
    rollout(make_games(8), Walker(), tmp_path / "rollout", seed=3, make_env=Corridor, progress=False)
    [folder] = (tmp_path / "out").glob("*/")
    assert content(folder) == content(tmp_path / "rollout")


@pytest.mark.parametrize(
    ("mode", "spent"),
    [("policy", {"prompt_tokens": 240, "response_tokens": 120, "cost": 0.00408}), ("best_of_2", {})],
)
def test_tokens_and_cost_are_told_of_a_policy_alone(tmp_path: Path, mode: str, spent: dict[str, float]) -> None:
    """3 games of 8 actions, each of 10 prompt tokens and 5 response tokens."""
    policy = Walker(commands=["go left"])
    entry, _ = evaluate(make_games(3), policy, tmp_path, mode=mode, price=(2.0, 30.0), **WALKER)
    assert {field: entry[field] for field in ("prompt_tokens", "response_tokens", "cost") if field in entry} == spent


def test_summary_counts_by_task_type() -> None:
    episodes = [episode(0, True, 4), episode(1, False, 30), episode(2, True, 8, "look_at_obj_in_light")]
    result = summarise(episodes, policy="pi_1", prm=None, mode="policy", split="valid_unseen", seed=0)
    assert result["games"] == 3
    assert math.isclose(result["success"], 2 / 3)
    assert result["actions"] == 14
    assert result["by_task_type"] == {
        "look_at_obj_in_light": {"games": 1, "success": 1.0},
        "pick_and_place_simple": {"games": 2, "success": 0.5},
    }


def test_the_mean_return_is_shown_where_it_is_not_the_success() -> None:
    half = episode(1, False, 4)
    half.turns[0].reward, half.turns[2].reward = 0.25, 0.25
    result = summarise([episode(0, True, 3), half], policy="p", prm=None, mode="policy", split="s", seed=0)
    assert result["return"] == 0.75
    assert "0.750" in printed(result, 80)
    assert "Return" not in printed(
        summarise([episode(0, True, 3)], policy="p", prm=None, mode="policy", split="s", seed=0), 80
    )


def test_task_types_of_another_environment_are_columns() -> None:
    result = summarise([episode(0, True, 3, "maze")], policy="p", prm=None, mode="policy", split="s", seed=0)
    assert "maze" in printed(result, 80)
    assert "Clean" not in printed(result, 80)


def test_summary_of_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="no episode"):
        summarise([], policy="pi_1", prm=None, mode="policy", split="valid_unseen", seed=0)


def test_a_result_replaces_the_one_of_the_same_kind(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for won, seed in [(False, 0), (False, 1), (True, 0)]:
        add_result(path, summarise([episode(0, won, 3)], policy="pi_1", prm=None, mode="policy", split="s", seed=seed))
    assert [(entry["seed"], entry["success"]) for entry in read_results(path)] == [(1, 0.0), (0, 1.0)]


def test_a_result_of_more_games_can_be_kept(tmp_path: Path) -> None:
    path, large, small = tmp_path / "results.json", [episode(i, True, 3) for i in range(3)], [episode(0, False, 3)]
    for episodes in (large, small):
        result = summarise(episodes, policy="pi_1", prm=None, mode="policy", split="s", seed=0)
        add_result(path, result, keep_larger=True)
    assert [entry["games"] for entry in read_results(path)] == [3]


def test_a_model_that_was_trained_again_takes_the_place_of_more_games_of_its_predecessor(tmp_path: Path) -> None:
    path, settings = tmp_path / "results.json", of()["settings"]
    for model, won in (("old", [True] * 3), ("new", [False])):
        policy = {**settings["policy"], "model": {"name": "pi_1", "fingerprint": model}}
        episodes = [episode(i, each, 3) for i, each in enumerate(won)]
        made = {**settings, "policy": policy}
        result = summarise(episodes, policy="pi_1", prm=None, mode="policy", split="s", seed=0, settings=made)
        add_result(path, result, keep_larger=True)
    assert [(entry["games"], entry["success"]) for entry in read_results(path)] == [(1, 0.0)]


def test_evaluations_that_end_together_lose_no_entry(tmp_path: Path) -> None:
    path, seeds = tmp_path / "results.json", range(40)

    def add(seed: int) -> None:
        add_result(path, summarise([episode(0, True, 3)], policy="p", prm=None, mode="policy", split="s", seed=seed))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, seeds))
    assert sorted(entry["seed"] for entry in read_results(path)) == list(seeds)


@pytest.mark.parametrize("lacking", ["policy", "games", "by_task_type", None])
def test_a_damaged_results_file_is_left_alone(tmp_path: Path, lacking: str | None) -> None:
    path = tmp_path / "results.json"
    whole = summarise([episode(0, False, 3)], policy="pi_1", prm=None, mode="policy", split="s", seed=0)
    path.write_text(json.dumps([{k: v for k, v in whole.items() if k != lacking}] if lacking else {}))
    with pytest.raises(UserError, match="not a results file"):
        read_results(path)


def printed(result: dict[str, Any], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(table([result]))
    return captured.get()


def test_table_shows_success_and_best_of_n() -> None:
    result = summarise([episode(0, True, 3)], policy="pi_1", prm="Q_0", mode="best_of_16", split="valid_unseen", seed=0)
    text = printed(result, 160)
    assert "Bo16(pi_1, Q_0)" in text
    assert "100.0" in text


def test_an_environment_without_task_types_has_no_column_of_them() -> None:
    played = episode(0, True, 3)
    played.task_type = ""
    result = summarise([played], policy="pi_1", prm=None, mode="policy", split="train", seed=0)
    assert [str(column.header) for column in table([result]).columns] == [
        "Policy and split",
        "Games",
        "All %",
        "95%",
        "Actions",
    ]


def test_a_long_name_takes_no_number_out_of_80_columns() -> None:
    result = summarise([episode(0, True, 3)], policy="runs/" * 20, prm=None, mode="policy", split="valid_seen", seed=0)
    row = printed(result, 80).splitlines()[3].split()
    assert row == ["runs/" * 4, "1", "100.0", "21-100", "3.0", "100", "-", "-", "-", "-", "-"]


def of(won: bool = True, **changes: Any) -> dict[str, Any]:
    """An entry of pi_1 on one game, under conditions with `changes`."""
    policy = {"kind": "transformers", "prompt": {"name": "compact", "fingerprint": "c"}, "temperature": 0.3}
    of_policy = ("prompt", "temperature", "max_new_tokens", "react", "search")
    policy |= {"max_new_tokens": 24, **{key: value for key, value in changes.items() if key in of_policy}}
    settings = {"policy": policy, "games": {"fingerprint": "0123456789abcdef"}, "max_episode_steps": 16}
    settings |= {key: value for key, value in changes.items() if key in ("max_episode_steps", "games")}
    seed = changes.get("seed", 0)
    return summarise(
        [episode(0, won, 3)], policy="pi_1", prm=None, mode="policy", split="s", seed=seed, settings=settings
    )


def test_an_entry_says_its_conditions() -> None:
    entry = of()
    assert (entry["prompt"], entry["temperature"], entry["max_new_tokens"]) == ("compact", 0.3, 24)
    assert (entry["max_episode_steps"], entry["best_of"]) == (16, None)
    assert entry["settings"]["policy"]["prompt"]["fingerprint"] == "c"


OTHERS: list[dict[str, Any]] = [
    {"prompt": {"name": "full", "fingerprint": "f"}},
    {"temperature": 1.0},
    {"max_new_tokens": 48},
    {"max_episode_steps": 8},
    {"react": {"shots": 2}},
    {"search": "as_listed"},
    {"seed": 1},
    {"games": {"fingerprint": "fedcba9876543210"}},
]


@pytest.mark.parametrize("changes", OTHERS)
def test_entries_of_other_conditions_stand_beside_each_other(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "results.json"
    for entry in (of(False), of(True, **changes), of(True)):
        add_result(path, entry)
    assert [entry["success"] for entry in read_results(path)] == [1.0, 1.0]


def test_an_older_entry_of_unknown_conditions_stays(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    old = summarise([episode(0, False, 3)], policy="pi_1", prm=None, mode="policy", split="s", seed=0)
    for entry in (old, of()):
        add_result(path, entry)
    assert told_apart(read_results(path), ["pi_1", "pi_1"])[0] == "settings unknown"


def test_names_say_what_differs_and_nothing_else() -> None:
    entries = [of(), of(temperature=1.0), of(temperature=1.0, seed=1), of(max_episode_steps=8)]
    assert told_apart(entries, ["pi_1"] * 4) == [
        "T 0.3, 16 steps, seed 0",
        "T 1, 16 steps, seed 0",
        "T 1, 16 steps, seed 1",
        "T 0.3, 8 steps, seed 0",
    ]
    assert told_apart(entries[:2], ["pi_0", "pi_1"]) == ["", ""]
