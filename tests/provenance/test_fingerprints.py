"""Fingerprints: independent of the place of files, and different for every change that matters to a model or a game."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from prm_gym.envs.games import find_games
from prm_gym.errors import UserError
from prm_gym.prompts import load
from prm_gym.provenance import fingerprints

MEGABYTES = 1 << 20


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = {name: np.arange(6, dtype=np.float32) + n for n, name in enumerate("abc")}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def of(folder: Path) -> str:
    return str(fingerprints.of_checkpoint(folder)["fingerprint"])


def test_a_checkpoint_that_was_moved_is_the_same(checkpoint: Path, tmp_path: Path) -> None:
    assert of(shutil.copytree(checkpoint, tmp_path / "elsewhere")) == of(checkpoint)


def one_weight(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        one_weight,
        lambda folder: (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLN"]}'),
        lambda folder: (folder / "tokenizer.json").write_text("[]"),
        lambda folder: (folder / "chat_template.jinja").write_text("{{ massages }}"),
        lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": 3}'),
    ],
    ids=["weight", "config", "tokenizer", "chat template", "generation config"],
)
def test_a_change_of_the_same_size_is_seen(checkpoint: Path, change: Callable[[Path], object]) -> None:
    before = of(checkpoint)
    change(checkpoint)
    assert of(checkpoint) != before


def test_what_training_leaves_beside_a_checkpoint_does_not_count(checkpoint: Path) -> None:
    before = of(checkpoint)
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", "manifest.json", "README.md"):
        (checkpoint / name).write_text("{}")
    assert of(checkpoint) == before


def test_a_step_in_any_tensor_of_a_large_file_is_seen_without_reading_all_of_it(tmp_path: Path) -> None:
    """64 tensors of 1 GiB in a sparse file, which nothing could read to its end in the time of a test."""
    file, gigabyte = tmp_path / "model.safetensors", 1 << 30
    places = {f"w{n}": [n * gigabyte, (n + 1) * gigabyte] for n in range(64)}
    header = {name: {"dtype": "F32", "shape": [gigabyte // 4], "data_offsets": span} for name, span in places.items()}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    begin = 8 + len(text)
    with file.open("r+b") as opened:
        opened.truncate(begin + 64 * gigabyte)
    seen = {of(tmp_path)}
    for number, name in enumerate(("w0", "w31", "w63"), 1):
        with file.open("r+b") as opened:
            opened.seek(begin + sum(places[name]) // 2)
            opened.write(b"\x01")
        seen.add(of(tmp_path))
        assert len(seen) == number + 1, name


def test_a_large_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"w": np.zeros(5 * MEGABYTES, np.float32)}, file)
    with file.open("r+b") as opened:
        opened.truncate(18 * MEGABYTES)
    with pytest.raises(UserError, match=r"model.safetensors: is cut off or no safetensors file; copy or train"):
        of(tmp_path)


def test_a_prompt_is_its_text_and_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(load("compact").source)
    load.cache_clear()
    copied = fingerprints.of_prompt(load(str(path)))
    assert copied["fingerprint"] == fingerprints.of_prompt(load("compact"))["fingerprint"]
    path.write_text(load("compact").source + "{# mine #}")
    load.cache_clear()
    assert fingerprints.of_prompt(load(str(path)))["fingerprint"] != copied["fingerprint"]


def write_game(folder: Path, name: str, problem: str = "p") -> None:
    place = folder / "train" / "pick_and_place_simple-Mug-None-Shelf-1" / name
    place.mkdir(parents=True)
    game = {"pddl_domain": "d", "grammar": "g", "pddl_problem": problem, "solvable": True}
    (place / "game.tw-pddl").write_text(json.dumps(game))


def of_games(folder: Path) -> dict[str, object]:
    return fingerprints.of_games(find_games(folder, "train"))


def test_games_are_their_ids_and_content_wherever_they_lie(tmp_path: Path) -> None:
    for folder in ("a", "b", "other id", "other content", "one more"):
        write_game(tmp_path / folder, "trial_2")
        write_game(tmp_path / folder, "trial_X" if folder == "other id" else "trial_1", folder[:7])
    write_game(tmp_path / "one more", "trial_3")
    a, b = of_games(tmp_path / "a"), None
    shutil.copytree(tmp_path / "a", tmp_path / "moved" / "a")
    b = of_games(tmp_path / "moved" / "a")
    assert a == b == {"name": "train", "count": 2, "fingerprint": a["fingerprint"]}
    others = {of_games(tmp_path / folder)["fingerprint"] for folder in ("b", "other id", "other content", "one more")}
    assert len(others | {a["fingerprint"]}) == 5


def test_the_order_of_games_does_not_count(tmp_path: Path) -> None:
    for n in range(3):
        write_game(tmp_path, f"trial_{n}")
    games = find_games(tmp_path)
    assert fingerprints.of_games(games) == fingerprints.of_games(games[::-1])
