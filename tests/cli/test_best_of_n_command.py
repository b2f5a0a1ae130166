"""`prm-gym evaluate` with a PRM: each way of choosing has a row and a folder of its own."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("transformers")

from tiny_models import classifier

from prm_gym.cli import main


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    folder = tmp_path_factory.mktemp("games") / "g"
    assert main(["games", str(folder), "--split", "valid_seen=2", "--seed", "3"]) == 0
    return folder


def evaluate(games, out, *options):
    shared = ["--split", "valid_seen", "--policy", "random", "--max-episode-steps", "2"]
    prompt = ["--prompt", "compact"] if "--prm" in options else []  # it is Q that reads it
    return main(["evaluate", "--games", str(games), "--out", str(out), *shared, *prompt, *options])


def test_each_way_of_choosing_has_its_own_row(games, tmp_path):
    prm = ["--prm", str(classifier()), "--best-of", "3"]
    planned = [*prm, "--depth", "1", "--width", "2", "--world", "engine"]
    for options in ([], prm, [*prm, "--weight", "1"], [*prm, "--weight", "0.5", "--among", "admissible"], planned):
        assert evaluate(games, tmp_path, *options) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    modes = ["policy", "best_of_3", "best_of_3_weight1", "best_of_3_weight0.5_admissible"]
    modes += ["best_of_3_depth1_width2_last_in_engine"]
    assert [(row["mode"], row["prm"]) for row in rows] == [
        (mode, None if mode == "policy" else str(classifier())) for mode in modes
    ]
    folders = [folder.name.rpartition("_") for folder in tmp_path.iterdir() if folder.is_dir()]
    assert sorted(name for name, _, _ in folders) == sorted(f"random_{mode}_valid_seen_0" for mode in modes)
    assert len({digest_of_settings for _, _, digest_of_settings in folders}) == len(modes)
