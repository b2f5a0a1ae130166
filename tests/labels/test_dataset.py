"""Datasets as their readers see them: `datasets`, TRL, and a reader of the card."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import datasets
import pytest
from label_worlds import play, rows, straight, template, tree, write

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.labels import monte_carlo, preferences, prompts, sft, shaping, value
from prm_gym.prompts import load
from prm_gym.provenance.fingerprints import of_prompt

COLUMNS = {
    monte_carlo: ["prompt", "completion", "target", "count"],
    preferences: ["prompt", "chosen", "rejected", "margin"],
    value: ["prompt", "target", "count"],
    prompts: ["prompt", "exploration_prompt", "source"],
    sft: ["prompt", "completion"],
}
PROVENANCE = ["game_id", "turn", "iteration", "policy_id", "state_key"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "in", tree(80))


@pytest.mark.parametrize("kind", COLUMNS, ids=lambda kind: kind.__name__.rpartition(".")[2])
def test_load_dataset_reads_every_output(tmp_path: Path, folder: Path, kind: object) -> None:
    report = kind.label([folder], tmp_path / "out", prompt=template(tmp_path))  # type: ignore[attr-defined]
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(loaded[split]) for split in loaded} == report.rows
    assert loaded["train"].column_names == [*COLUMNS[kind], *PROVENANCE]  # type: ignore[index]
    assert not set(loaded["train"]["game_id"]) & set(loaded["test"]["game_id"])
    assert set(loaded["train"][0]["prompt"][0]) == {"role", "content"}
    assert len(loaded["train"][0]["state_key"]) == 16


def test_no_row_is_lost_or_doubled_where_a_batch_ends(tmp_path: Path) -> None:
    """Turns are read by 2,048, their choice by 4,096, and rows are written by 1,000."""
    episodes = [straight(number, 10, won=False, game=f"game-{number}") for number in range(420)]
    for episode in episodes:
        for turn in episode.turns:
            turn.admissible_commands = [turn.observation] * (turn.turn % 3)
    prompts.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt="general")
    shown = {repr(load("general").messages(e.state_at(t))) for e in episodes for t in range(10)}
    found = Counter(repr(row["prompt"]) for row in rows(tmp_path / "out"))
    assert len(shown) == found.total() == 4200
    assert not shown - found.keys()


def test_a_dataset_is_made_by_one_process_at_a_time(tmp_path: Path, folder: Path, monkeypatch: Any) -> None:
    """The second is refused, and the first goes on as if nothing had been."""
    begun, go_on = Event(), Event()
    action_values = monte_carlo.action_values

    def slow(*args: Any, **kwargs: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        action_values(*args, **kwargs)

    monkeypatch.setattr(monte_carlo, "action_values", slow)
    plain, out = template(tmp_path), tmp_path / "out"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(monte_carlo.label, [folder], out, prompt=plain)
        assert begun.wait(60)
        try:
            with pytest.raises(UserError, match=r"/out: another process is writing here"):
                monte_carlo.label([folder], out, prompt=plain)
        finally:
            go_on.set()
    assert sum(first.result().rows.values()) == len(rows(out)) > 0
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "data", "provenance.json"]
    monkeypatch.setattr(monte_carlo, "action_values", action_values)
    assert monte_carlo.label([folder], out, prompt=plain).rows == first.result().rows


def test_a_dataset_that_another_process_finished_meanwhile_is_not_lost(
    tmp_path: Path, folder: Path, monkeypatch: Any
) -> None:
    """The second begins while the first moves its folder into place, with other settings: it is refused."""
    plain, out = template(tmp_path), tmp_path / "out"
    refused: list[str] = []
    rename = Path.rename

    def slow(self: Path, target: Path) -> Path:
        if target == out:
            with pytest.raises(UserError) as told:
                monte_carlo.label([folder], out, prompt=plain, gamma=0.5)
            refused.append(str(told.value))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", slow)
    report = monte_carlo.label([folder], out, prompt=plain)
    assert len(refused) == 1
    assert "another process is writing here" in refused[0]
    assert sum(report.rows.values()) == len(rows(out))
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "data", "provenance.json"]


def test_a_full_disk_leaves_the_folder_free(tmp_path: Path, folder: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("prm_gym.labels.dataset._remove_all_but", full)
        with pytest.raises(OSError, match="No space"):
            monte_carlo.label([folder], tmp_path / "out", prompt=template(tmp_path))
    assert monte_carlo.label([folder], tmp_path / "out", prompt=template(tmp_path)).rows["train"]


def test_one_game_has_no_test_split(tmp_path: Path) -> None:
    report = value.label([write(tmp_path / "in", [play(3)])], tmp_path / "out", prompt=template(tmp_path))
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert report.rows == {"train": len(loaded["train"]), "test": 0}


@pytest.mark.parametrize("winner", [0, 1])
def test_there_is_always_a_train_split(tmp_path: Path, winner: int) -> None:
    """SFT reads wins alone: of two games, one of each split, one has no row."""
    lost = [play(number, policy="lost") for number in range(40) if not play(number, policy="lost").won]
    won = [play(number, policy="won") for number in range(80) if play(number, policy="won").won]
    games = ["game-0", "game-1"]
    played = [
        next(each for each in (won if place == winner else lost) if each.game_id == game)
        for place, game in enumerate(games)
    ]
    report = sft.label([write(tmp_path / "in", played)], tmp_path / "out", prompt=template(tmp_path))
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded["train"]["game_id"]) == {games[winner]}
    assert report.rows == {"train": len(loaded["train"]), "test": 0}
    assert report.games == {"train": 1, "test": 0}


def test_trl_takes_the_columns_as_conversations(tmp_path: Path, folder: Path) -> None:
    trl = pytest.importorskip("trl.data_utils")
    for kind in (sft, preferences, prompts):
        out = tmp_path / kind.__name__
        kind.label([folder], out, prompt="compact")
        row = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"][0]
        assert trl.is_conversational(row)


def test_the_card_says_how_it_was_made(tmp_path: Path, folder: Path) -> None:
    report = monte_carlo.label([folder], tmp_path / "out", prompt=template(tmp_path), task_types=["type-1", "type-2"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"prm-gym label monte_carlo --rollouts {folder} --out {tmp_path / 'out'}" in card
    assert "--task-types type-1 type-2" in card
    assert "duckdb" in card
    assert all(line in card for line in report.lines())
    assert sum(report.rows.values()) == len(rows(tmp_path / "out"))
    assert report.lines()[0].startswith("rows: train ")


def test_a_dataset_of_other_settings_or_of_another_kind_is_refused(tmp_path: Path, folder: Path) -> None:
    plain, out = template(tmp_path), tmp_path / "out"
    value.label([folder], out, prompt=plain)
    card = (out / "README.md").read_text()
    said = r"provenance.json: gamma: begun with 0.95, this command says 0.5; remove it or name another folder$"
    with pytest.raises(UserError, match=said):
        value.label([folder], out, prompt=plain, gamma=0.5)
    with pytest.raises(UserError, match=r"prompt: begun with '.*plain.jinja' \(\w+\), this command says 'compact' \("):
        value.label([folder], out, prompt="compact")
    with pytest.raises(UserError, match="is no monte_carlo dataset"):
        monte_carlo.label([folder], out, prompt=plain)
    with pytest.raises(UserError, match="is there"):
        value.label([folder], folder, prompt=plain)
    (out / provenance.FILE).unlink()
    with pytest.raises(UserError, match=r"is a value dataset without a provenance.json"):
        value.label([folder], out, prompt=plain)
    assert (out / "README.md").read_text() == card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "plain.jinja"]


def test_a_dataset_is_replaced_by_one_of_more_episodes_of_the_same_settings(tmp_path: Path) -> None:
    plain, folder, out = template(tmp_path), tmp_path / "in", tmp_path / "out"
    provenance.write(folder, {"kind": "collect", "policy": {"kind": "random"}, "seed": 4})
    episodes = tree(80)
    write(folder, episodes[:40])
    before = value.label([folder], out, prompt=plain)
    write(folder, episodes[40:])
    after = value.label([folder], out, prompt=plain)
    assert after.used["episodes"] > before.used["episodes"]
    assert len(rows(out)) == sum(after.rows.values())
    provenance.write(folder, {"kind": "collect", "policy": {"kind": "random"}, "seed": 5})
    with pytest.raises(UserError, match=r"rollouts\[0\]: begun with '.*in' \(\w+\), this command says '.*in' \("):
        value.label([folder], out, prompt=plain)


def test_a_folder_name_is_no_pattern_and_a_killed_label_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = write(tmp_path / "it's [a*b?]", tree(20))
    (tmp_path / ".out.unfinished").mkdir()
    (tmp_path / ".out.unfinished" / "left").write_bytes(b"left by a kill")
    value.label([folder], tmp_path / "out", prompt=template(tmp_path))
    shaping.label([folder], tmp_path / "[shaped]", values=tmp_path / "out", prompt=template(tmp_path))
    names = {"it's [a*b?]", "out", "[shaped]", "plain.jinja"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_dataset_says_which_episodes_and_settings_it_is_made_of(tmp_path: Path, folder: Path) -> None:
    made_with = {"kind": "collect", "seed": 4}
    provenance.write(folder, made_with)
    monte_carlo.label([folder], tmp_path / "out", prompt="compact", gamma=0.9)
    record = provenance.read(tmp_path / "out")
    assert record is not None
    [source] = record["settings"]["rollouts"]
    assert (source["name"], source["settings"]) == (str(folder), made_with)
    compact = load("compact")
    assert record["settings"]["prompt"] == {**of_prompt(compact), "source": compact.source}
    assert (record["settings"]["label"], record["settings"]["gamma"]) == ("monte_carlo", 0.9)
    write(tmp_path / "more", tree(81))
    monte_carlo.label([tmp_path / "more"], tmp_path / "other", prompt="compact", gamma=0.9)
    other = provenance.read(tmp_path / "other")
    assert other is not None
    assert other["settings"]["rollouts"][0]["fingerprint"] != source["fingerprint"]


def test_a_relative_folder_with_a_colon_is_no_uri(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = template(tmp_path)
    monkeypatch.chdir(tmp_path)
    monte_carlo.label([folder], Path("run:1") / "out", prompt=prompt)
    assert rows(tmp_path / "run:1" / "out")
