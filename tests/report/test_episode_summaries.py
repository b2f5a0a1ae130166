"""Summaries of episodes, against the episodes themselves; unreadable files are reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_world import make_run

from prm_gym.cli import main
from prm_gym.report.episode_summaries import stores
from prm_gym.report.gather import gather
from prm_gym.store import read_episodes


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), best_of=(4,))


def test_counts_are_those_of_the_episodes(run) -> None:
    stores = gather(run, "a")["stores"]
    assert [(s.who, s.folder.parent.name) for s in stores] == [
        (("pi_0", "policy"), "iter1"),
        (("pi_0", "policy"), "pi_0_policy"),
        (("pi_1", "policy"), "pi_1_policy"),
        (("pi_1", "best_of_4"), "pi_1_best_of_4"),
    ]
    for found in stores:
        episodes = list(read_episodes(found.folder))
        turns = [turn for episode in episodes for turn in episode.turns if turn.reward is not None]
        assert found.total("actions") == found.total("judged") == len(turns)
        assert found.total("inadmissible") == sum(not turn.action_valid for turn in turns) > 0
        assert found.total("won") == sum(episode.won for episode in episodes)
        for game, played in found.games.items():
            of = [episode for episode in episodes if episode.game_id == game]
            assert played.won == sum(episode.won for episode in of) / len(of)
            assert played.actions == sum(episode.actions for episode in of) / len(of)


def test_results_are_matched_with_the_episodes_that_they_were_measured_on(run) -> None:
    for entry in gather(run, "a")["results"]:
        [played] = entry["played"].values()
        assert sum(game.won for game in played.values()) == round(entry["success"] * entry["games"])


def test_results_of_other_episodes_stay_without(run, tmp_path) -> None:
    shutil.copytree(run, tmp_path / "run")
    results = tmp_path / "run" / "results.json"
    entries = json.loads(results.read_text())
    results.write_text(json.dumps([{**entry, "games": entry["games"] + 1} for entry in entries]))
    assert [entry["played"] for entry in gather(tmp_path / "run", "a")["results"]] == [{}, {}, {}]


def test_a_folder_beside_the_iterations_has_no_number(run, tmp_path) -> None:
    for name in ("iter1", "iter²", "iterations"):
        shutil.copytree(run / "iter1" / "rollouts", tmp_path / name / "rollouts")
    assert sorted(str(store.n) for store in stores(tmp_path, set())) == ["1", "None", "None"]


def test_a_part_of_another_writer_counts_with_the_others(run, tmp_path) -> None:
    """All unknown, its column has no type; integers are wide."""
    shutil.copytree(run, tmp_path / "run")
    before = gather(run, "a")["stores"][0]
    [file] = before.folder.glob("*.parquet")
    table = pq.read_table(file)
    ids = [f"again-{name}" for name in table["episode_id"].to_pylist()]
    table = table.set_column(table.schema.names.index("episode_id"), "episode_id", pa.array(ids))
    table = table.set_column(table.schema.names.index("action_valid"), "action_valid", pa.nulls(len(table)))
    wide = table["response_tokens"].cast(pa.int64())
    table = table.set_column(table.schema.names.index("response_tokens"), "response_tokens", wide)
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "run" / before.folder.relative_to(run) / "b.parquet")
    found = gather(tmp_path / "run", "a")["stores"][0]
    assert (found.total("actions"), found.total("judged")) == (2 * before.total("actions"), before.total("judged"))


def speed(run: Path, tmp_path: Path, lines: list[tuple[object, ...]]) -> float | None:
    """Lines of older versions have no share."""
    shutil.copytree(run, tmp_path / "run")
    log = [dict(zip(("time", "seconds", "response_tokens", "share"), line, strict=False)) for line in lines]
    text = "".join(json.dumps(line) + "\n" for line in log)
    (tmp_path / "run" / "iter1" / "rollouts" / "metrics.jsonl").write_text(text + '{"time": 1')
    return gather(tmp_path / "run", "a")["stores"][0].tokens_per_s


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(110, 10, 500), (120, 20, 1200)], 1200 / 20),  # counts only grow: the last line is the total
        ([(120, 20, 1200), (510, 10, 900)], 2100 / 30),  # a run, and one that went on later
        ([(120, 20, 1000), (115, 15, 1000)], 2000 / 20),  # two processes side by side
        ([(120, 20, 1000, [0, 2]), (121, 21, 1000, [1, 2])], 2000 / 21),  # the longer one is the last
        ([(110, 10, 500, [0, 2]), (120, 20, 1000, [0, 2]), (121, 21, 900, [1, 2])], 1900 / 21),
        ([(105, 5, 500, [0, 1]), (210, 10, 700, [0, 1])], 1200 / 15),  # the run that goes on is the longer one
        ([], None),
        ([(120, 20, 0)], None),  # a policy without tokens
    ],
)
def test_tokens_per_second_are_over_the_time_that_was_played(run, tmp_path, lines, expected) -> None:
    assert speed(run, tmp_path, lines) == expected


@pytest.mark.parametrize("size", [0, 200])
@pytest.mark.parametrize("where", ["rollouts", "eval/pi_0_policy/episodes", "dataset/prm/data"])
def test_an_unreadable_parquet_file_is_one_line_that_names_it(run, tmp_path, capsys, where, size) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = sorted((tmp_path / "run" / "iter1" / where).glob("*.parquet"))[0]
    file.write_bytes(file.read_bytes()[:size])
    assert main(["report", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "report.html").exists()


def test_damaged_pages_are_one_line_too(run, tmp_path, capsys) -> None:
    shutil.copytree(run, tmp_path / "run")
    [file] = (tmp_path / "run" / "iter1" / "rollouts").glob("*.parquet")
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 3] = bytes(len(content) // 3 - 4)
    file.write_bytes(content)
    assert main(["report", str(tmp_path / "run")]) == 2
    assert str(file) in capsys.readouterr().err


def test_a_run_that_holds_nothing_is_refused(tmp_path, capsys) -> None:
    (tmp_path / "iter1").mkdir()
    assert main(["report", str(tmp_path)]) == 2
    assert "holds nothing to report" in capsys.readouterr().err
