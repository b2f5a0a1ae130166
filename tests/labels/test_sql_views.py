"""Rules that all labels share: which episodes count, the division of games, one-line errors for unusable input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_worlds import counts, key_of, play, rows, template, text, tree, write

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.labels import monte_carlo
from prm_gym.labels.dataset import LabelReport
from prm_gym.labels.sql_views import divide
from prm_gym.prompts import Prompt, load
from prm_gym.provenance.fingerprints import of_prompt
from prm_gym.store import EpisodeWriter
from prm_gym.store.parquet import SCHEMA, VERSION_KEY, to_table
from prm_gym.types import Episode, StopReason


def label(tmp_path: Path, folders: list[Path], out: str = "out", **options: Any) -> LabelReport:
    return monte_carlo.label(folders, tmp_path / out, prompt=template(tmp_path), **options)


def by_hand(folder: Path, table: pa.Table, name: str = "by-hand.parquet") -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / name)
    return folder


def winner(number: int) -> Episode:
    return next(e for e in (play(n) for n in range(number * 50, 10_000)) if e.won)


def test_episodes_that_do_not_count_are_skipped_and_counted_by_reason(tmp_path: Path) -> None:
    good = [winner(n) for n in range(3)]
    failed = [replace(winner(n), episode_id=f"f{n}", stop_reason=StopReason.POLICY_ERROR) for n in range(3, 5)]
    spoilt = {
        "cut": replace(winner(5), turns=winner(5).turns[:-1]),
        "gap": replace(winner(6), turns=winner(6).turns[1:]),
        "endless": replace(winner(7), stop_reason=""),
        "strange": replace(winner(8), stop_reason="tired"),
    }
    broken = [replace(episode, episode_id=name) for name, episode in spoilt.items()]
    folder = by_hand(tmp_path / "in", to_table([*good, *failed, *broken]))
    report = label(tmp_path, [folder])
    assert report.skipped == {"failed": 2, "unknown stop_reason": 1, "without an end": 3}
    assert report.used == {"episodes": 3, "won": 3, "branches": 0, "games": len({e.game_id for e in good})}
    alone = tmp_path / "alone"
    monte_carlo.label([write(tmp_path / "good", good)], alone, prompt=template(tmp_path))
    assert rows(alone) == rows(tmp_path / "out")


def test_rows_that_lie_apart_are_no_episode(tmp_path: Path) -> None:
    table = to_table([winner(1), winner(2)])
    mixed = table.take(sorted(range(len(table)), key=lambda row: table["turn"][row].as_py()))
    folder = by_hand(tmp_path / "in", pa.concat_tables([to_table([winner(3)]), mixed]))
    assert label(tmp_path, [folder]).skipped == {"without an end": 2}


def test_rows_of_an_unfinished_episode_are_no_turns_of_the_one_before_it(tmp_path: Path) -> None:
    whole, cut = winner(1), winner(2)
    moved = [replace(turn, turn=len(whole.turns) + i) for i, turn in enumerate(cut.turns)]
    table = pa.concat_tables([to_table([whole]), to_table([replace(cut, turns=moved)])])
    report = label(tmp_path, [by_hand(tmp_path / "in", table)], "both")
    assert report.skipped == {"without an end": 1}
    label(tmp_path, [write(tmp_path / "alone", [whole])], "one")
    assert rows(tmp_path / "both") == rows(tmp_path / "one")


@pytest.mark.parametrize("size", [15, 17])
def test_keys_of_another_length_are_refused(tmp_path: Path, size: int) -> None:
    table = to_table([winner(1), winner(2)])
    keys = pa.array([bytes(size)] * len(table), pa.binary())
    table = table.set_column(table.schema.get_field_index("state_key"), "state_key", keys)
    with pytest.raises(UserError, match=rf"by-hand.parquet: state_key: has keys of {size} bytes, not 16; .*column out"):
        label(tmp_path, [by_hand(tmp_path / "in", table)])


def test_the_same_episode_in_two_places_counts_once(tmp_path: Path) -> None:
    episodes = tree(40)
    copy = by_hand(write(tmp_path / "a", episodes), to_table(episodes[:10]), "copy.parquet")
    other = write(tmp_path / "b", [*episodes[:5], *tree(40, policy="pi_1")])
    report = label(tmp_path, [copy, other])
    assert report.skipped["duplicate"] == 15
    label(tmp_path, [write(tmp_path / "together", [*episodes, *tree(40, policy="pi_1")])], "once")
    once = {key_of(row): (row["target"], row["count"]) for row in rows(tmp_path / "once")}
    assert {key_of(row): (row["target"], row["count"]) for row in rows(tmp_path / "out")} == once


def test_equal_ids_of_different_policies_are_different_episodes(tmp_path: Path) -> None:
    first = [winner(1)]
    second = [replace(winner(1), policy_id="pi_9")]
    report = label(tmp_path, [write(tmp_path / "a", first), write(tmp_path / "b", second)])
    assert report.used["episodes"] == 2


def test_equal_ids_of_one_policy_under_two_settings_are_different_episodes(tmp_path: Path) -> None:
    cool, hot = (replace(winner(n), episode_id="same") for n in (1, 2))
    folders = [write(tmp_path / "cool", [cool]), write(tmp_path / "hot", [hot])]
    report = label(tmp_path, folders)
    assert (report.used["episodes"], report.skipped) == (2, {})


def test_episodes_that_two_settings_of_a_policy_share_count_twice(tmp_path: Path) -> None:
    """The likely ones are the same at two temperatures: dropping them would count them too rarely."""
    folders = [write(tmp_path / name, [winner(1)]) for name in ("cool", "hot", "copy of hot")]
    for folder, temperature in zip(folders, (0.3, 1.0, 1.0), strict=True):
        provenance.write(folder, {"policy": {"temperature": temperature}})
    report = label(tmp_path, folders)
    assert (report.used["episodes"], report.skipped) == (2, {"duplicate": 1})


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_episode_in_two_folders_has_the_larger_of_their_weights(tmp_path: Path, order: tuple[int, int]) -> None:
    episodes = [e for e in tree(40) if counts(e)]
    folders, weights = [write(tmp_path / "part", episodes), write(tmp_path / "all", episodes)], [0.1, 1.0]
    report = label(tmp_path, [folders[i] for i in order], weights=[weights[i] for i in order])
    assert report.used["episodes"] == len(episodes)


def test_optional_columns_may_be_missing_and_widths_differ(tmp_path: Path) -> None:
    episodes = tree(60, branches=0)
    label(tmp_path, [write(tmp_path / "ours", episodes)], "expected")
    expected = rows(tmp_path / "expected")
    table = to_table(episodes).drop_columns(["state_key", "parent_id", "branch_turn"])
    wide = pa.schema([f.with_type(pa.int64()) if pa.types.is_integer(f.type) else f for f in table.schema])
    theirs = by_hand(tmp_path / "theirs", table.cast(wide).replace_schema_metadata(None))
    label(tmp_path, [theirs])
    assert rows(tmp_path / "out") == expected


def test_commands_that_are_all_unknown_need_no_type(tmp_path: Path) -> None:
    table = to_table(tree(60, branches=0))
    place = table.schema.names.index("admissible_commands")
    found = []
    for name, kind in (("typed", pa.list_(pa.string())), ("untyped", pa.null())):
        unknown = table.set_column(place, "admissible_commands", pa.nulls(len(table), kind))
        label(tmp_path, [by_hand(tmp_path / name, unknown)], f"{name}-out")
        found.append(rows(tmp_path / f"{name}-out"))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"gamma": 1.01}, "gamma: got 1.01; must be at least 0 and at most 1"),
        ({"gamma": -0.1}, "gamma: "),
        ({"gamma": float("nan")}, "gamma: "),
        ({"min_visits": 0}, "min_visits: "),
        ({"train_share": 0}, "train_share: "),
        ({"weights": [0.5, 0.5]}, "2 weights for 1 folders"),
        ({"weights": [0.0]}, "weights: "),
        ({"weights": [2.0]}, "weights: "),
        ({"task_types": ["type-0", "typo-1"]}, "task_types: no episode is of 'typo-1'; say type-0, type-1"),
        ({"min_visits": 1000}, "no row"),
    ],
)
def test_options_out_of_range_and_empty_selections(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    folder = write(tmp_path / "in", tree(20))
    with pytest.raises(UserError, match=problem) as caught:
        label(tmp_path, [folder], **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "plain.jinja"]


def test_a_prompt_file_that_has_changed_since_the_episodes_were_collected_is_refused(tmp_path: Path) -> None:
    folder, now = write(tmp_path / "in", tree(20)), load(template(tmp_path))
    provenance.write(folder, {"policy": {"prompt": of_prompt(Prompt(now.name, now.source + "{# a line more #}"))}})
    with pytest.raises(UserError, match=r"plain.jinja: has changed since .* with it; say which one with --prompt"):
        monte_carlo.label([folder], tmp_path / "out")
    provenance.write(folder, {"policy": {"prompt": of_prompt(now)}})
    monte_carlo.label([folder], tmp_path / "out")
    assert all(text(row["prompt"]).startswith("task of game-") for row in rows(tmp_path / "out"))


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", tree(20))
    table = to_table([winner(1)])
    (tmp_path / "empty").mkdir()
    truncated = by_hand(tmp_path / "truncated", table)
    (truncated / "by-hand.parquet").write_bytes((truncated / "by-hand.parquet").read_bytes()[:-9])
    for folders, problem in (
        ([], "no folder given"),
        ([tmp_path / "none"], "no such folder"),
        ([tmp_path / "empty"], "holds no episodes"),
        ([folder, folder / "../in"], "given twice"),
        ([folder, truncated], "not a whole Parquet file"),
        ([folder, by_hand(tmp_path / "foreign", pa.table({"x": [1]}))], "no column episode_id"),
        ([folder, by_hand(tmp_path / "short", table.drop_columns(["reward"]))], "no column reward"),
        ([folder, by_hand(tmp_path / "old", table.replace_schema_metadata({VERSION_KEY: b"0"}))], "schema version 0"),
    ):
        with pytest.raises(UserError, match=problem) as caught:
            label(tmp_path, folders)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["state_key", "observation", "reward", "episode_id"])
def test_a_damaged_page_gives_no_dataset(tmp_path: Path, column: str) -> None:
    folder = write(tmp_path / "in", tree(100))
    (part,) = folder.glob("*.parquet")
    group = pq.read_metadata(part).row_group(0)
    (chunk,) = (c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
    content = bytearray(part.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0x55
    part.write_bytes(bytes(content))
    with pytest.raises(UserError):
        label(tmp_path, [folder])
    assert not (tmp_path / "out").exists()


def test_a_folder_being_written_is_refused(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "in") as writer:
        writer.add(winner(1))
        writer.flush()
        with pytest.raises(UserError, match="is being written"):
            label(tmp_path, [tmp_path / "in"])
    label(tmp_path, [tmp_path / "in"])


def test_returns_outside_0_and_1_are_refused(tmp_path: Path) -> None:
    for number, reward in enumerate((-0.5, 0.7)):
        spoilt = next(e for e in (play(n) for n in range(1000)) if e.won and e.actions > 1)
        spoilt.turns[0].reward = reward
        with pytest.raises(UserError, match="reward: rewards from"):
            label(tmp_path, [write(tmp_path / str(number), [spoilt])])


def test_every_game_is_on_one_side_and_stays_there(tmp_path: Path) -> None:
    games = [f"g{n}" for n in range(2000)]
    sides = divide(games, 0, 0.85)
    assert 0.82 < sum(side == "train" for side in sides.values()) / len(sides) < 0.88
    assert divide(games[::-1], 0, 0.85) == sides
    assert all(sides[game] == side for game, side in divide(games[:500], 0, 0.85).items())
    assert divide(games, 1, 0.85) != sides
    for size in range(2, 9):
        assert set(divide(games[:size], 0, 0.85).values()) == {"train", "test"}
    assert divide(["alone"], 0, 0.1) == {"alone": "train"}
    assert set(divide(games, 0, 1.0).values()) == {"train"}


def test_schema_of_the_store_is_the_contract() -> None:
    assert SCHEMA.field("state_key").type == pa.binary(16)
    assert SCHEMA.field("admissible_commands").type == pa.list_(pa.string())
    assert SCHEMA.metadata[VERSION_KEY] == b"1"
