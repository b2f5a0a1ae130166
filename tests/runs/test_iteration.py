"""A whole run in miniature: real alfworld games, real TRL, two iterations."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from miniature import write_miniature
from rich.console import Console

from prm_gym import prompts, provenance
from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import BestOf
from prm_gym.provenance.checkpoint_settings import trained_for
from prm_gym.provenance.fingerprints import of_checkpoint
from prm_gym.runs import stage
from prm_gym.runs.iteration import Run
from prm_gym.store import read_episodes

for package in ("alfworld", "trl"):
    pytest.importorskip(package, reason=f"needs the extra '{package}'")


def prm_gym(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prm_gym.cli", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


@pytest.fixture
def run(miniature_run: Path) -> Path:
    return miniature_run


def test_results_hold_every_policy_and_best_of_n(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert [(entry["policy"], entry["prm"], entry["mode"]) for entry in results] == [
        ("pi_0", None, "policy"),
        ("pi_1", None, "policy"),
        ("pi_1", "Q_0", "best_of_2"),
        ("pi_1", "Q_0", "best_of_2_weight1_admissible"),
        ("pi_2", None, "policy"),
        ("pi_2", "Q_1", "best_of_2"),
        ("pi_2", "Q_1", "best_of_2_weight1_admissible"),
    ]
    assert all(entry["games"] == 3 and entry["split"] == "valid_unseen" for entry in results)


def test_plain_best_of_n_has_the_settings_of_folders_made_before_there_was_a_choice(miniature: Path) -> None:
    iteration = Run(miniature, Path("runs/x"), 1)
    plain, weighted = (iteration.evaluation(1, best_of=choice) for choice in (BestOf(2), BestOf(2, 1.0)))
    assert plain.settings["best_of"] == 2
    assert not {"weight", "among"} & plain.settings.keys()
    assert weighted.settings == {**plain.settings, "weight": 1.0, "among": "all"}
    assert plain.name == "evaluation of Bo2(pi_1, Q_0)"


def test_each_way_of_best_of_n_keeps_its_own_episodes(run: Path) -> None:
    policies = {"best_of_2": "best_of_2(pi_1)", "best_of_2_weight1_admissible": "best_of_2_weight1_admissible(pi_1)"}
    for mode, policy in policies.items():
        episodes = list(read_episodes(run / "iter1" / "eval" / f"pi_1_{mode}" / "episodes"))
        assert {episode.policy_id for episode in episodes} == {policy}
        assert all(turn.logprob is not None for episode in episodes for turn in episode.turns[:-1])


def test_policies_differ_and_the_run_folder_can_be_moved(run: Path) -> None:
    weights = [(run / f"pi_{n}" / "model.safetensors").read_bytes() for n in range(3)]
    assert len(set(weights)) == 3
    assert not Path((run / "pi_1").readlink()).is_absolute()


def test_a_finished_iteration_is_not_made_again_even_elsewhere(run: Path, miniature: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "moved", symlinks=True)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    done = prm_gym("iter", 1, "--recipe", miniature, "--run", run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")} == before


def test_other_settings_are_refused(run: Path, miniature: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(miniature, tmp_path / "changed")
    text = (changed / "recipe.yaml").read_text().replace("gamma: 0.95", "gamma: 0.9")
    (changed / "recipe.yaml").write_text(text)
    done = prm_gym("iter", 1, "--recipe", changed, "--run", run)
    assert done.returncode == 2
    assert "gamma: made with 0.95, not 0.9; choose another run folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_that_was_trained_again_is_not_taken_for_the_former_one(
    run: Path, miniature: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(run, tmp_path / "again", symlinks=True)
    weights = run / "pi_0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    done = prm_gym("iter", 1, "--recipe", miniature, "--run", run)
    assert done.returncode == 2
    assert "manifest.json: inputs.pi_0: made from " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["pi_0", "pi_1", "iter1/prm", "iter1/policy/checkpoint-2"])
def test_a_checkpoint_carries_what_it_was_trained_for(run: Path, place: str) -> None:
    trained = trained_for(run / place)
    assert trained is not None
    assert trained.prompt.source == prompts.load("compact").source
    assert (trained.max_episode_steps, trained.temperature) == (12, 0.3)


def test_rollouts_and_labels_of_a_run_say_what_they_were_made_with(run: Path) -> None:
    rollouts = provenance.read(run / "iter2" / "rollouts")
    labels = provenance.read(run / "iter2" / "dataset" / "prm")
    assert rollouts is not None
    assert labels is not None
    assert rollouts["settings"]["policy"]["model"]["fingerprint"] == of_checkpoint(run / "pi_1")["fingerprint"]
    assert labels["settings"]["rollouts"][0]["settings"] == rollouts["settings"]
    assert "prm_gym.cli iter 2 --recipe" in rollouts["runs"][0]["command"]


def test_a_comment_in_a_host_s_file_is_no_setting(run: Path, miniature: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(miniature, tmp_path / "changed")
    with (changed / "prm.yaml").open("a") as file:
        file.write("\n# a remark\n")
    assert all(stage.is_complete(each) for each in Run(changed, run, 1).stages())


def changed(miniature: Path, folder: Path, section: str, **values: Any) -> Path:
    """A copy of the recipe in which `section` has other values."""
    recipe = shutil.copytree(miniature, folder)
    settings = yaml.safe_load((recipe / "recipe.yaml").read_text())
    settings[section].update(values)
    (recipe / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return recipe


def test_iteration_0_is_pi_0_alone(tmp_path: Path) -> None:
    recipe = write_miniature(tmp_path / "recipe", recipe="base")
    names = [each.name for each in Run(recipe, tmp_path / "run", 0).stages()]
    assert names == ["games", "demonstrations", "exploring", "sft dataset", "model from scratch", "pi_0 by SFT"]


def test_sft_goes_on_from_a_model_that_the_recipe_names(run: Path, miniature: Path, tmp_path: Path) -> None:
    recipe = changed(miniature, tmp_path / "recipe", "start", model=str(run / "pi_0"))
    stages = Run(recipe, tmp_path / "run", 0).stages()
    assert [each.name for each in stages] == ["games", "base", "demonstrations", "sft dataset", "pi_0 by SFT"]
    stages[1].make()
    assert (tmp_path / "run" / "base").resolve() == (run / "pi_0").resolve()


@pytest.mark.parametrize(("iterations", "read"), [("last", {1}), ("all", {0, 1})])
def test_q_learns_from_the_last_policy_or_from_all(
    run: Path, miniature: Path, tmp_path: Path, iterations: str, read: set[int]
) -> None:
    from datasets import load_dataset

    recipe = changed(miniature, tmp_path / "recipe", "labels", iterations=iterations)
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "iter2" / "dataset" / "prm")
    (labels,) = [each for each in Run(recipe, run, 2).stages() if each.name == "labels for Q_1"]
    labels.make()
    rows = load_dataset(str(labels.out), split="train")
    assert set(rows["iteration"]) == read


def with_stages(miniature: Path, folder: Path, stages: dict[str, str], reads: str, **more: Any) -> Path:
    """A copy of the recipe whose Stage 3 fine-tunes pi_{n-1} on the folder `reads` of the iteration's datasets."""
    recipe = changed(miniature, folder, "start")
    config = yaml.safe_load((recipe / "sft.yaml").read_text())
    config |= {"model_name_or_path": "{run}/pi_{iter-1}", "output_dir": "{run}/iter{iter}/policy", "max_steps": 1}
    config |= {"dataset_name": f"{{run}}/iter{{iter}}/dataset/{reads}"}
    (recipe / f"{reads}.yaml").write_text(yaml.safe_dump(config))
    values = yaml.safe_load((recipe / "recipe.yaml").read_text())
    (recipe / "recipe.yaml").write_text(yaml.safe_dump({**values, "stages": stages, **more}))
    return recipe


def test_stage_3_by_rejection_sampling_asks_the_policy_and_q_at_the_states_of_stage_3(
    run: Path, miniature: Path, tmp_path: Path
) -> None:
    from datasets import load_dataset

    stages = {"prm": "prm.yaml", "rejection_sampling": "rejection_sampling.yaml"}
    chosen = {"n": 3, "temperature": 0.9}
    recipe = with_stages(miniature, tmp_path / "recipe", stages, "rejection_sampling", rejection_sampling=chosen)
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    *before, best, trained, _ = [each for each in Run(recipe, run, 1).stages() if "best_of" not in str(each.out)]
    assert all(stage.is_complete(each) for each in before)
    assert [best.name, trained.name] == ["best of 3 responses by Q_0", "pi_1 by rejection sampling"]
    facts = best.make()
    splits = load_dataset(str(best.out))
    states = {(row["game_id"], row["turn"], row["state_key"]) for of in splits.values() for row in of}
    stage3 = load_dataset(str(run / "iter1" / "dataset" / "prompts"))
    wanted = {(row["game_id"], row["turn"], row["state_key"]) for of in stage3.values() for row in of}
    assert states <= wanted
    assert facts is not None
    assert facts["sampled"]["responses"] == 3 * len(wanted)
    made = provenance.read(best.out)
    assert made is not None
    assert made["settings"]["policy"]["temperature"] == 0.9
    assert made["settings"]["prm"]["model"]["fingerprint"] == of_checkpoint(run / "iter1" / "prm")["fingerprint"]


def test_demonstrations_may_have_a_step_limit_of_their_own(run: Path, miniature: Path, tmp_path: Path) -> None:
    short = shutil.copytree(miniature, tmp_path / "recipe")
    values = yaml.safe_load((short / "recipe.yaml").read_text())
    values["start"]["demonstrations"]["max_episode_steps"] = 3
    (short / "recipe.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "games").symlink_to(run / "games")
    collected = {}
    for recipe, folder in ((short, tmp_path / "run"), (miniature, run)):
        [demonstrations] = [each for each in Run(recipe, folder, 1).stages() if each.name == "demonstrations"]
        stage.run([] if stage.is_complete(demonstrations) else [demonstrations], Console())
        collected[folder] = [len(episode.turns) - 1 for episode in read_episodes(demonstrations.out)]  # actions
    assert max(collected[tmp_path / "run"]) == 3 < max(collected[run]) <= 12


def test_dagger_trains_on_the_states_of_all_policies_and_of_the_demonstrations(
    run: Path, miniature: Path, tmp_path: Path
) -> None:
    from datasets import load_dataset

    without_q = {"labels": {"kind": "dagger"}, "branches": None, "quality": None, "evaluation": {"games": 3}}
    recipe = with_stages(miniature, tmp_path / "recipe", {"dagger": "dagger.yaml"}, "dagger", **without_q)
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "iter1" / "policy")
    *before, labels, trained, evaluation = Run(recipe, run, 1).stages()
    assert all(stage.is_complete(each) for each in before)
    assert before[-1].name == "rollouts of pi_0"
    assert [labels.name, trained.name] == ["labels of the expert for pi_1", "pi_1 by DAgger"]
    assert evaluation.name == "evaluation of pi_1"
    stage.run([labels, trained], Console())
    assert set(load_dataset(str(labels.out), split="train")["policy_id"]) == {"expert-dawdling0.85", "pi_0"}
    assert (run / "pi_1").resolve() == trained.out.resolve()
    assert (run / "pi_1" / "model.safetensors").exists()
    [again] = [each for each in Run(recipe, run, 2).stages() if each.name == "labels of the expert for pi_2"]
    (run / "iter2" / "rollouts").mkdir(parents=True, exist_ok=True)
    assert {"iter1/rollouts", "iter2/rollouts", "demonstrations"} <= again.inputs().keys()


def test_the_second_iteration_needs_the_first(miniature: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pi_1 is not there; run ITER=1 first"):
        Run(miniature, tmp_path / "none", 2).stages()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["iter", "1", "--recipe", "none"], "none: no such folder; name the folder of the recipe"),
        (["rollout", "--games", "none", "--policy", "expert", "--out", "out"], "none"),
        (["games", "out", "--split", "train=x"], "--split: 'train=x' is not NAME=COUNT"),
        (["label", "monte_carlo", "--rollouts", "none", "--out", "out"], "none"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prm_gym.cli", *arguments], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
