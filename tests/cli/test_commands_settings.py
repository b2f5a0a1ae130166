"""Commands on a model that carries its prompt: other settings are refused or reported, never applied silently.

Real tiny models and games, called as the command line calls them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("transformers")

from tiny_models import classifier, language_model

from prm_gym import prompts, provenance
from prm_gym.cli import main
from prm_gym.provenance.checkpoint_settings import READS, TrainedFor, trained_for
from prm_gym.provenance.fingerprints import of_prompt
from prm_gym.store import read_episodes


def carrying(source: Path, out: Path, prompt: prompts.Prompt | None = None) -> Path:
    """A checkpoint as `prm-gym iter` leaves one: trained for `compact`, 2 steps, temperature 0.3."""
    shutil.copytree(source, out)
    trained = TrainedFor(prompt or prompts.load("compact"), 2, 0.3)
    provenance.write(out, {"kind": "training", "trained_for": trained.as_dict(), "reads": READS})
    return out


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    return carrying(language_model(), tmp_path / "pi")


def evaluate(games: Path, policy: object, out: Path, *more: object) -> int:
    words = ["evaluate", "--games", games, "--split", "valid_unseen", "--policy", policy, "--out", out]
    tokens = [] if policy in ("expert", "random") else ["--max-new-tokens", "2"]
    return main([*map(str, words), *tokens, *map(str, more)])


def results(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "results.json").read_text())  # type: ignore[no-any-return]


def test_a_model_is_played_as_it_was_trained(games: Path, pi: Path, tmp_path: Path) -> None:
    assert evaluate(games, pi, tmp_path / "e") == 0
    [entry] = results(tmp_path / "e")
    assert (entry["prompt"], entry["temperature"], entry["max_episode_steps"]) == ("compact", 0.3, 2)


def test_a_model_that_says_nothing_is_played_by_the_defaults(games: Path, tmp_path: Path) -> None:
    assert evaluate(games, language_model(), tmp_path / "e", "--max-games", 1, "--max-episode-steps", 1) == 0
    [entry] = results(tmp_path / "e")
    assert (entry["prompt"], entry["temperature"], entry["max_episode_steps"]) == ("full", 0.3, 1)


@pytest.mark.parametrize(
    ("flag", "value", "before"),
    [("--prompt", "full", "compact"), ("--temperature", "1.0", "0.3"), ("--max-episode-steps", "3", "2")],
)
def test_another_way_to_play_is_an_error_unless_forced(
    games: Path, pi: Path, tmp_path: Path, capsys: Any, flag: str, value: str, before: str
) -> None:
    assert evaluate(games, pi, tmp_path / "e", flag, value) == 2
    said = capsys.readouterr().err
    assert f"error: {flag}: {pi} was trained for {before}, not {value}; leave {flag} out, or add --force" in said
    assert not (tmp_path / "e").exists()
    assert evaluate(games, pi, tmp_path / "e", flag, value, "--force", "--max-games", 1) == 0


def test_evaluations_under_other_settings_stand_beside_each_other(games: Path, pi: Path, tmp_path: Path) -> None:
    """The first example of the fault: a second prompt or temperature gave the first one's numbers at once."""
    out, forced = tmp_path / "e", ["--force", "--max-games", 1]
    ways = [[], ["--prompt", "full", *forced], ["--temperature", 1, *forced], ["--seed", 1], ["--max-games", 1]]
    for more in ways:
        assert evaluate(games, pi, out, *more) == 0
    entries = results(out)
    told = {(entry["prompt"], entry["temperature"], entry["seed"]) for entry in entries}
    assert told == {("compact", 0.3, 0), ("full", 0.3, 0), ("compact", 1.0, 0), ("compact", 0.3, 1)}
    assert len(entries) == len(list(out.glob("*/provenance.json"))) == 4
    for folder in out.glob("*/"):
        settings = provenance.read(folder)["settings"]  # type: ignore[index]
        [of_folder] = [entry for entry in entries if entry["settings"] == settings]
        assert of_folder["games"] == len(list(read_episodes(folder)))


def test_two_prms_never_share_episodes(games: Path, pi: Path, tmp_path: Path, capsys: Any) -> None:
    one = carrying(classifier(), tmp_path / "prm")
    two = shutil.copytree(one, tmp_path / "other")
    config = json.loads((two / "config.json").read_text())
    (two / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    for prm, best_of in ((one, 2), (two, 2), (one, 3)):
        assert evaluate(games, pi, tmp_path / "e", "--prm", prm, "--best-of", best_of, "--max-games", 1) == 0
    entries = results(tmp_path / "e")
    assert [(entry["prm"], entry["best_of"]) for entry in entries] == [(str(one), 2), (str(two), 2), (str(one), 3)]
    models = [entry["settings"]["policy"]["scorer"]["model"]["fingerprint"] for entry in entries]
    assert models[0] == models[2] != models[1]
    assert len(list((tmp_path / "e").glob("*/provenance.json"))) == 3
    capsys.readouterr()
    full = carrying(classifier(), tmp_path / "full", prompts.load("full"))
    assert evaluate(games, pi, tmp_path / "e", "--prm", full, "--best-of", 2) == 2
    assert f"--prm: {full} was trained on the prompt full, and the policy reads compact;" in capsys.readouterr().err


def test_a_checkpoint_on_the_way_carries_what_its_training_does(pi: Path, tmp_path: Path) -> None:
    step = shutil.copytree(language_model(), pi / "checkpoint-20")
    trained = trained_for(step)
    assert trained is not None
    assert trained.prompt.name == "compact"
    assert trained_for(language_model()) is None


def test_a_prompt_is_carried_with_its_text(games: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(prompts.load("compact").source)
    pi = carrying(language_model(), tmp_path / "pi", prompts.load(str(file)))
    file.unlink()
    assert evaluate(games, pi, tmp_path / "e", "--max-games", 1) == 0
    assert results(tmp_path / "e")[0]["prompt"] == str(file)


def test_a_prm_over_random_actions_reads_its_own_prompt(games: Path, tmp_path: Path) -> None:
    prm = carrying(classifier(), tmp_path / "prm")
    few = ["--prm", prm, "--best-of", 2, "--max-games", 1, "--max-episode-steps", 1]
    assert evaluate(games, "random", tmp_path / "e", *few) == 0
    assert results(tmp_path / "e")[0]["prompt"] == "compact"
    assert evaluate(games, "random", tmp_path / "e", *few, "--prompt", "full") == 2


@pytest.mark.parametrize("policy", ["expert", "random"])
def test_a_policy_id_holds_for_scripted_policies(games: Path, tmp_path: Path, policy: str) -> None:
    assert evaluate(games, policy, tmp_path / "e", "--policy-id", "mine", "--max-episode-steps", 2) == 0
    assert results(tmp_path / "e")[0]["policy"] == "mine"
    [folder] = (tmp_path / "e").glob("mine_*/")
    assert {episode.policy_id for episode in read_episodes(folder)} == {"mine"}


def test_labels_are_rendered_with_the_prompt_of_their_rollouts(games: Path, pi: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text(prompts.load("compact").source + "{# mine #}")
    for number, (prompt, more) in enumerate({"compact": [], str(mine): ["--prompt", mine, "--force"]}.items()):
        rollouts, out = tmp_path / f"rollouts {number}", tmp_path / f"labels {number}"
        words = ["rollout", "--games", games, "--split", "valid_unseen", "--policy", pi, "--out", rollouts, *more]
        assert main([*map(str, words), "--max-new-tokens", "2"]) == 0
        assert main([*map(str, ["label", "monte_carlo", "--rollouts", rollouts, "--out", out])]) == 0
        record = provenance.read(out)
        assert record is not None
        assert record["settings"]["prompt"]["fingerprint"] == of_prompt(prompts.load(prompt))["fingerprint"]


def test_rollouts_of_two_prompts_have_no_prompt_of_their_own(tmp_path: Path, capsys: Any) -> None:
    for name in ("compact", "full"):
        prompt = {"name": name, "fingerprint": name}
        provenance.write(tmp_path / name, {"kind": "collect", "policy": {"prompt": prompt}})
    words = ["label", "monte_carlo", "--rollouts", tmp_path / "compact", tmp_path / "full", "--out", tmp_path / "out"]
    assert main([*map(str, words)]) == 2
    assert "--rollouts: were collected with several prompts (compact, full); say" in capsys.readouterr().err
