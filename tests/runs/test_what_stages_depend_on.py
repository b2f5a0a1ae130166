"""The stages that a change of a recipe concerns: complete before it, each refuses what it was not made with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl", reason="needs the extra 'trl'")

from prm_gym.errors import UserError
from prm_gym.runs import stage
from prm_gym.runs.iteration import Run

EMBEDDED = Path(__file__).parents[2] / "recipes" / "embedded"
PLAYED = {"rollouts of pi_0", "branches of pi_0", "held-out branches of pi_0"}
EVALUATED = {f"evaluation of {of}" for of in ("pi_0", "pi_1", "Bo16(pi_1, Q_0)", "Bo16_weight1(pi_1, Q_0)")}


def change(folder: Path, changes: dict[str, Any]) -> None:
    """Set keys of recipe.yaml, such as `sampling.max_new_tokens`."""
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))


def complete(recipe: Path, run: Path) -> None:
    """Every stage of iteration 1 as if it had been made."""
    for each in Run(recipe, run, 1).stages():
        each.out.mkdir(parents=True, exist_ok=True)
        made = {"settings": each.settings, "inputs": each.inputs()}
        (each.out / stage.MANIFEST).write_text(json.dumps(made))


def refused(recipe: Path, run: Path) -> set[str]:
    found = set()
    for each in Run(recipe, run, 1).stages():
        try:
            assert stage.is_complete(each)
        except UserError:
            found.add(each.name)
    return found


@pytest.mark.parametrize(
    ("before", "after", "concerned"),
    [
        ({}, {"sampling.max_new_tokens": 4}, PLAYED | EVALUATED),
        ({}, {"max_episode_steps": 30}, PLAYED | EVALUATED | {"demonstrations"}),
        ({"start.demonstrations.max_episode_steps": 9}, {"max_episode_steps": 30}, PLAYED | EVALUATED),
        ({}, {"branches": None}, {"labels for Q_0"}),
        ({}, {"labels.options": {"delta": 0.1}}, {"labels for Q_0"}),
        ({}, {"labels.prompts": {"size": 100}}, {"prompts for online DPO"}),
        ({"sampling.max_batch": 8}, {"sampling.max_batch": 64}, set()),
    ],
)
def test_a_change_is_refused_by_the_stages_that_depend_on_it(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], concerned: set[str]
) -> None:
    recipe = shutil.copytree(EMBEDDED, tmp_path / "recipe")
    change(recipe, before)
    complete(recipe, tmp_path / "run")
    assert refused(recipe, tmp_path / "run") == set()
    change(recipe, after)
    assert refused(recipe, tmp_path / "run") == concerned


def test_branches_that_are_added_are_new_to_the_labels(tmp_path: Path) -> None:
    recipe = shutil.copytree(EMBEDDED, tmp_path / "recipe")
    change(recipe, {"branches": None})
    complete(recipe, tmp_path / "run")
    change(recipe, {"branches": {"states_per_episode": 1, "actions": 2, "continuations": 1}})
    *_, labels = (each for each in Run(recipe, tmp_path / "run", 1).stages() if each.name == "labels for Q_0")
    with pytest.raises(UserError, match="branches: made with False, not True"):
        stage.is_complete(labels)


@pytest.mark.parametrize("place", ["elsewhere", "{run}/elsewhere"])
def test_an_input_is_compared_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Folders of labels, and the model that a host's file names."""
    monkeypatch.chdir(tmp_path)
    recipe, run = shutil.copytree(EMBEDDED, tmp_path / "recipe"), Path("run")
    elsewhere = tmp_path / place.replace("{run}", "run")
    elsewhere.mkdir(parents=True)
    (elsewhere / "config.json").write_text("{}")
    change(recipe, {"labels.prompts": {"expert": place}, "start.model": str(EMBEDDED.parent / "base")})
    prm = (recipe / "prm.yaml").read_text()
    (recipe / "prm.yaml").write_text(prm.replace("{run}/pi_{iter-1}", place))
    complete(recipe, run)
    assert refused(recipe, run) == set()
    (elsewhere / "config.json").write_text('{"trained": "again"}')
    assert refused(recipe, run) == {"prompts for online DPO", "Q_0"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{run}/iter{iter}/prm", "{run}/iter{iter}/policy", r"output_dir: is .*/iter1/policy, not the folder of prm"),
        (
            'output_dir: "{run}/iter{iter}/prm"',
            "",
            "output_dir: missing; say {run}/iter{iter}/prm",
        ),
        ("{run}/iter{iter}/prm", "{RUN}/iter{iter}/prm", r"unknown placeholder \{RUN\}; use {run}, {iter} or {iter-1}"),
        ("{run}/pi_{iter-1}", "{run}/pi_{iter - 1}", r"unknown placeholder \{iter - 1\}"),
    ],
)
def test_a_training_writes_into_its_stage_s_folder(tmp_path: Path, old: str, new: str, said: str) -> None:
    recipe = shutil.copytree(EMBEDDED, tmp_path / "recipe")
    text = (recipe / "prm.yaml").read_text()
    assert old in text
    (recipe / "prm.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said):
        Run(recipe, tmp_path / "run", 1).stages()


def test_a_run_folder_may_be_a_link(tmp_path: Path) -> None:
    recipe = shutil.copytree(EMBEDDED, tmp_path / "recipe")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    text = (recipe / "prm.yaml").read_text()
    (recipe / "prm.yaml").write_text(text.replace('"{run}/iter{iter}/prm"', f'"{tmp_path}/real/iter{{iter}}/prm"'))
    assert Run(recipe, tmp_path / "link", 1).stages()


def test_a_moved_run_knows_the_inputs_outside_of_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    recipe = shutil.copytree(EMBEDDED, tmp_path / "recipe")
    text = (recipe / "prm.yaml").read_text()
    (recipe / "prm.yaml").write_text(text.replace("{run}/pi_{iter-1}", f"{tmp_path}/model"))
    complete(recipe, tmp_path / "run")
    (tmp_path / "deeper").mkdir()
    moved = (tmp_path / "run").rename(tmp_path / "deeper" / "run")
    assert refused(recipe, moved) == set()
    (tmp_path / "model" / "config.json").write_text('{"trained": "again"}')
    assert refused(recipe, moved) == {"Q_0"}


def test_demonstrations_that_labels_read_need_no_sft(tmp_path: Path) -> None:
    recipe = shutil.copytree(EMBEDDED, tmp_path / "recipe")
    change(recipe, {"start.sft": None, "labels.prompts": {"expert": ["{run}/demonstrations"]}})
    names = [each.name for each in Run(recipe, tmp_path / "run", 1).stages()]
    assert names[:3] == ["games", "pi_0", "demonstrations"]
