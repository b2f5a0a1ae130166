"""Recipes: every shipped one loads, and every mistake in one is found before work starts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from prm_gym.errors import UserError
from prm_gym.runs import recipe

RECIPES = Path(__file__).parents[2] / "recipes"
EMBEDDED = RECIPES / "embedded"


def changed(tmp_path: Path, path: str, value: Any) -> Path:
    """The embedded recipe with one entry changed, or removed if `value` is None."""
    values: dict[str, Any] = yaml.safe_load((EMBEDDED / "recipe.yaml").read_text())
    *sections, key = path.split(".")
    section = values
    for name in sections:
        section = section[name]
    if value is None:
        del section[key]
    else:
        section[key] = value
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    for file in EMBEDDED.glob("*.yaml"):
        if file.name != "recipe.yaml":
            (tmp_path / file.name).write_text(file.read_text())
    return tmp_path


@pytest.mark.parametrize("folder", sorted(path.parent for path in RECIPES.glob("*/recipe.yaml")), ids=lambda p: p.name)
def test_every_shipped_recipe_loads_and_fills(folder: Path, tmp_path: Path) -> None:
    loaded = recipe.load(folder)
    for file in filter(None, (loaded.start.sft, loaded.stages.prm, *loaded.stages.of_policy.values())):
        filled = recipe.fill((folder / file).read_text(), tmp_path / "run", 2, file)
        assert isinstance(yaml.safe_load(filled), dict)


@pytest.mark.parametrize("folder", sorted(path.parent for path in RECIPES.glob("*/recipe.yaml")), ids=lambda p: p.name)
def test_every_yaml_opens_with_its_launch_command(folder: Path) -> None:
    for file in folder.glob("*.yaml"):
        opening = file.read_text().split("\n\n")[0].split("\n")
        comment = [line for line in opening if line.startswith("#")]
        assert any("make " in line or "python -m" in line or "accelerate launch" in line for line in comment), file


def with_env(tmp_path: Path, env: dict[str, Any], **more: Any) -> Path:
    """The embedded recipe on another environment, from a model."""
    folder = changed(tmp_path, "games", None)
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values |= {"env": env, "start": {"model": "models/alfworld-small"}, **more}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_another_environment_takes_the_place_of_the_games(tmp_path: Path) -> None:
    env = {"factory": "prm_gym.envs.toy_text:taxi", "kwargs": {"is_rainy": True}, "reward_range": [-300, 20]}
    loaded = recipe.load(with_env(tmp_path, env))
    assert loaded.games is None
    assert loaded.env is not None
    assert (loaded.env.factory, loaded.env.kwargs, loaded.env.reward_range) == tuple(env.values())


LAKE = {"factory": "prm_gym.envs.toy_text:frozen_lake"}
SHOWN: dict[str, Any] = {"demonstrations": {"games": 2}, "scratch": {}, "sft": "sft.yaml"}


@pytest.mark.parametrize(
    ("env", "more", "message"),
    [
        ({}, {}, "env.id: neither id nor factory; give one of them"),
        ({**LAKE, "id": "Taxi-v4"}, {}, "env.id: both id and factory"),
        ({"factory": "toy_text.taxi"}, {}, "env.factory: 'toy_text.taxi' names no factory; say package.module:factory"),
        ({**LAKE, "kwarg": {}}, {}, "env.kwarg: unknown key; did you mean 'kwargs'"),
        ({**LAKE, "reward_range": [3]}, {}, "env.reward_range: got .3.0.; give .low, high."),
        (LAKE, {"games": {"preset": "small"}}, "games: there are `games` and an `env`"),
        (
            LAKE,
            {"start": {**SHOWN, "demonstrations": {"games": 2, "mistakes": 0.1}}},
            "start.demonstrations.mistakes: is of ALFWorld's expert alone; remove it",
        ),
        (LAKE, {"start": {**SHOWN, "exploring": {"games": 2}}}, "start.exploring: no expert explores here"),
    ],
)
def test_a_mistake_in_an_environment_is_found(
    tmp_path: Path, env: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        recipe.load(with_env(tmp_path, env, **more))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rollouts.gmaes", 3, r"rollouts.gmaes: unknown key; did you mean 'games'\?"),
        ("gamma", 1.5, "gamma: got 1.5; must be above 0 and at most 1"),
        ("max_episode_steps", 0, "max_episode_steps: got 0; must be at least 1"),
        ("sampling.max_new_tokens", 0, "sampling.max_new_tokens: got 0; must be at least 1"),
        ("sampling.temperature", -0.5, "sampling.temperature: got -0.5; must be at least 0"),
        ("evaluation.temperature", float("nan"), "evaluation.temperature: got nan; must be at least 0"),
        ("evaluation.seed", -1, "evaluation.seed: got -1; must be at least 0"),
        ("rollouts.per_game", 0, "rollouts.per_game: got 0; must be at least 1"),
        (
            "start.demonstrations.mistakes",
            1.5,
            "start.demonstrations.mistakes: got 1.5; must be at least 0 and at most 1",
        ),
        ("branches.temperature", -1.0, "branches.temperature: got -1.0; must be at least 0"),
        ("host", "verl", "host: unknown host 'verl'; say trl or open-instruct"),
        ("labels.kind", "monte-carlo", "labels.kind: no label 'monte-carlo'; choose one of monte_carlo"),
        ("labels.options", {"min_visit": 2}, r"labels.options.min_visit: unknown key; did you mean 'min_visits'\?"),
        ("labels.prompts", {"szie": 2}, r"labels.prompts.szie: unknown key; did you mean 'size'\?"),
        ("stages.prm", "none.yaml", "stages.prm: no file 'none.yaml' beside it"),
        ("stages.prm", None, "stages.prm: missing; name the host's file that trains Q"),
        ("stages.online_dpo", None, "stages: nothing trains the policy; give one of online_dpo, policy_gradient, rej"),
        ("stages.dagger", "sft.yaml", "stages: online_dpo, dagger trains the policy; give one of"),
        ("stages", {"dagger": "sft.yaml"}, "labels.kind: is preferences, and the stage .* is dagger; labels and stage"),
        ("labels.kind", "dagger", "labels.kind: is dagger, and the stage that trains the policy is online_dpo"),
        ("rejection_sampling", {"n": 4}, "rejection_sampling: is for a stage that is not there; add `stages.rej"),
        ("rejection_sampling", {"n": 0}, "rejection_sampling.n: got 0; must be at least 1"),
        ("evaluation.best_of", 0, r"evaluation.best_of\[0\].n: must be at least 1, got 0"),
        (
            "evaluation.best_of",
            [4, {"n": 4, "wieght": 1}],
            r"best_of\[1\].wieght: unknown key; did you mean 'weight'\?",
        ),
        ("evaluation.best_of", {"n": 4, "weight": -1}, r"best_of\[0\].weight: must be a number from 0 on, got -1.0"),
        ("evaluation.best_of", {"n": 4, "among": "some"}, r"best_of\[0\].among: must be all or admissible, got 'some'"),
        ("evaluation.best_of", [{"n": 4}, 2, 4], "evaluation.best_of: best_of_4 stands there twice; remove one"),
        ("evaluation.best_of", "four", r"evaluation.best_of\[0\]: must be a mapping"),
        ("start.demonstrations", None, "start: neither a model nor demonstrations"),
        ("start.scratch", {"layers": 1}, r"start\.scratch: a model and one from scratch; give `model` or `scratch`"),
        (
            "start",
            {"model": "m", "cut_vocabulary": True},
            r"start\.cut_vocabulary: no model, or no demonstrations to cut it to; give `model`, `demon",
        ),
        ("labels.kind", "inverse", r"labels\.options\.expert: missing, and inverse needs it; add it"),
        (
            "labels.kind",
            "monte_carlo",
            r"prm\.yaml: loss: bradley_terry is no loss of monte_carlo labels; say soft_bce",
        ),
        ("prompt", "compct", r"recipe\.yaml: prompt: no such prompt"),
        ("games.preset", "tiny", r"games\.preset: no 'tiny'; choose one of small"),
        ("games.splits", {"test": 3}, r"games\.splits: no 'test'; choose one of train, valid_seen, valid_unseen"),
        ("start.demonstrations.search", "as_list", r"demonstrations\.search: no 'as_list'; choose one of rare_first"),
        ("labels.iterations", "first", r"labels\.iterations: unknown iterations 'first'; say last or all"),
        ("sampling.temperature", None, "sampling.temperature: missing; add it"),
        ("labels.options", {"delta": "abc"}, "labels.options.delta: must be of type float, not 'abc'"),
        ("labels.options", {"valid_only": "no"}, "labels.options.valid_only: must be of type bool, not 'no'"),
        ("labels.options", {"weights": 0.5}, "labels.options.weights: must be of type list, not 0.5"),
        ("labels.options", {"inadmissible": "yes"}, "labels.options.inadmissible: must be of type int, not 'yes'"),
        ("labels.prompts", {"size": 10.5}, "labels.prompts.size: must be of type int, not 10.5"),
        ("labels.prompts", {"expert": 5}, "labels.prompts.expert: must be of type list, not 5"),
        ("labels.prompts", {"expert_fraction": 0.5}, "labels.prompts.expert_fraction: has no effect without expert"),
        ("stages.prm", "/tmp/prm.yaml", "stages.prm: '/tmp/prm.yaml' is not a file name; put the file beside recipe"),
        ("start.sft", "sub/sft.yaml", "start.sft: 'sub/sft.yaml' is not a file name"),
        ("evaluation.split", "valid_unsen", "evaluation.split: no 'valid_unsen'; choose one of train, valid_seen"),
        ("quality.split", "test", "quality.split: no 'test'"),
        ("evaluation.games", 4000, "evaluation.games: 4000 of valid_unseen, and games.splits has 400; generate more"),
        ("start.demonstrations.games", 9000, "start.demonstrations.games: 9000 of train, and games.splits has "),
        ("start", {"model": "m", "exploring": {"games": 2}}, "start.exploring: there, but no sft file reads it"),
        ("sampling.serve", {"command": "vllm serve --port {port}"}, r"serve.command: {model} is missing; say where"),
        ("sampling.serve_prm", {"command": "vllm serve {model}"}, r"sampling.serve_prm.command: {port} is missing"),
        (
            "sampling.serve",
            {"command": "x {model} {port}", "devices": ["0", "1"], "replicas": 1},
            "sampling.serve.devices: 2 entries for 1 replicas; remove the rest",
        ),
        ("sampling.serve", {"command": "x {model} {port}", "wait": 0}, "sampling.serve.wait: got 0.0; must be above 0"),
        (
            "sampling",
            {"temperature": 0, "max_new_tokens": 9, "server": ["http://a"], "serve": {"command": "{model} {port}"}},
            "sampling.serve: `server` names servers that are there; remove one of the two",
        ),
    ],
)
def test_a_mistake_is_named(path: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        recipe.load(changed(tmp_path, path, value))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden": 64}, "start.scratch.hidden: unknown key; did you mean 'hidden_size'"),
        ({"hidden_size": 128, "heads": 3}, "start.scratch.hidden_size: 128 is not an even multiple of 3 heads"),
        ({"heads": 0}, "start.scratch.heads: got 0; must be at least 1"),
        ({"layers": 0}, "start.scratch.layers: got 0; must be at least 1"),
    ],
)
def test_a_mistake_in_the_sizes_of_a_model_is_named(sizes: dict[str, int], message: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, "start.model", None)
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["start"]["scratch"] = sizes
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=message):
        recipe.load(folder)


def test_a_number_that_yaml_reads_as_a_text_is_a_number(tmp_path: Path) -> None:
    folder = changed(tmp_path, "gamma", None)
    text = (
        (folder / "recipe.yaml").read_text().replace("kind: preferences", "kind: preferences\n  options: {delta: 1e-2}")
    )
    (folder / "recipe.yaml").write_text(text)
    assert recipe.load(folder).labels.options == {"delta": 0.01}


@pytest.mark.parametrize("loss", ["bt", ["soft_bce"]])
def test_an_unknown_loss_is_named(loss: Any, tmp_path: Path) -> None:
    folder = changed(tmp_path, "gamma", None)
    prm = yaml.safe_load((folder / "prm.yaml").read_text())
    (folder / "prm.yaml").write_text(yaml.safe_dump({**prm, "loss": loss}))
    with pytest.raises(UserError, match=r"prm.yaml: loss: no loss '.*'; choose one of soft_bce"):
        recipe.load(folder)


@pytest.mark.parametrize("left", ["branches", "quality", "evaluation.best_of"])
def test_dagger_has_no_q_to_spend_anything_on(left: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, "stages", {"dagger": "sft.yaml"})
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["labels"] = {"kind": "dagger"}
    needless = {"branches": values.pop("branches"), "quality": values.pop("quality")}
    best_of = values["evaluation"].pop("best_of")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert recipe.load(folder).stages.of_policy == {"dagger": "sft.yaml"}
    if left == "evaluation.best_of":
        values["evaluation"]["best_of"] = best_of
    else:
        values[left] = needless[left]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=f"{left}: is for a Q, and dagger trains none; remove it"):
        recipe.load(folder)


@pytest.mark.parametrize(
    ("given", "modes"),
    [
        (None, []),
        (1, []),
        (16, ["best_of_16"]),
        ({"n": 16, "weight": 1}, ["best_of_16_weight1"]),
        ([{"n": 1}, 4, {"n": 4, "among": "admissible"}], ["best_of_1", "best_of_4", "best_of_4_admissible"]),
    ],
)
def test_best_of_n_is_an_integer_a_choice_or_several(given: Any, modes: list[str], tmp_path: Path) -> None:
    loaded = recipe.load(changed(tmp_path, "evaluation.best_of", given))
    assert [choice.mode for choice in loaded.evaluation.best_of] == modes


def test_placeholders() -> None:
    assert recipe.fill("a: {run}/pi_{iter-1} {run}/iter{iter}", "runs/x", 2, "f") == "a: runs/x/pi_1 runs/x/iter2"


def test_environment_variables_are_no_placeholders() -> None:
    assert recipe.fill("a: ${HF_TOKEN} {run}", "runs/x", 2, "f") == "a: ${HF_TOKEN} runs/x"


def test_an_unknown_placeholder_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown placeholder \{itre\}"):
        recipe.fill("a: {itre}", "runs/x", 2, "f.yaml")


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("a: ./{run}/pi_0", "exp #2"),
        ("a: ./{run}/pi_0", "exp: 2"),
        ('a: ["{run}/pi_0"]', 'exp "2"'),
        ('a: ["{run}/pi_0"]', "exp\\x"),
        ("a: {'{run}/pi_0': 1.0}", "it's"),
    ],
)
def test_a_run_folder_that_yaml_would_read_otherwise_is_refused(tmp_path: Path, line: str, run: str) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(line)
    with pytest.raises(UserError, match=f"^{re.escape(run)}: has characters that YAML reads otherwise in {file}"):
        recipe.fill_file(file, Path(run), 1)


def test_a_run_folder_in_quotes_may_have_any_name_that_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text('a: {"{run}/pi_{iter-1}": 1.0}\nseed: {iter}')
    run = "it's #2: [\u00e9], {x"
    assert yaml.safe_load(recipe.fill_file(file, Path(run), 1)) == {"a": {f"{run}/pi_0": 1.0}, "seed": 1}


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    folder = changed(tmp_path, "gamma", 0.9)
    with (folder / "recipe.yaml").open("a") as file:
        file.write("gamma: 0.5\n")
    with pytest.raises(UserError, match="the key 'gamma' stands twice"):
        recipe.load(folder)
