"""A folder of episodes accepts no other settings: real tiny models, real prompts, a fake server."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("httpx")

import torch
from fake_server import FakeServer, completion
from rollout_world import Corridor, Walker, content, make_games
from safetensors.torch import load_file, save_file
from tiny_models import classifier, language_model

from prm_gym.errors import UserError
from prm_gym.policies.best_of_n import BestOfN
from prm_gym.policies.server import ServerPolicy
from prm_gym.policies.transformers import TransformersPolicy
from prm_gym.prm.in_process import PRMScorer
from prm_gym.prompts import load
from prm_gym.provenance import read
from prm_gym.rollout import collect, rollout, rollout_branches

OPTIONS = {"prompt": "compact", "temperature": 0.3, "max_new_tokens": 2, "max_batch": 8}


def policy(model: Path | None = None, **options):
    return TransformersPolicy(model or language_model(), **{**OPTIONS, "policy_id": "pi", **options})


def play(out: Path, agent, games=None, **options):
    options = {"make_env": Corridor, "progress": False, "max_episode_steps": 8, **options}
    return rollout(games or make_games(2), agent, out, **options)


def step(source: Path, out: Path) -> Path:
    """The checkpoint with one weight changed: the same names and sizes."""
    shutil.copytree(source, out)
    weights = load_file(out / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] += 1
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("begun") / "out"
    play(out, policy(), max_games=1)
    return out


def test_the_same_settings_go_on_with_more_games_and_rollouts(begun: Path, tmp_path: Path) -> None:
    out = shutil.copytree(begun, tmp_path / "out")
    moved = shutil.copytree(language_model(), tmp_path / "moved")
    summary = play(out, policy(moved, max_batch=3), rollouts_per_game=2, concurrency=3)
    assert (summary.resumed, summary.episodes) == (1, 3)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prompt": "full"}, r"policy.prompt: begun with 'compact' \(\w{8}\), this command says 'full' \(\w{8}\)"),
        ({"temperature": 1.0}, "policy.temperature: begun with 0.3, this command says 1.0"),
        ({"max_new_tokens": 3}, "policy.max_new_tokens: begun with 2, this command says 3"),
    ],
)
def test_another_policy_of_the_same_name_is_refused(begun: Path, options, field: str) -> None:
    before = content(begun)
    with pytest.raises(UserError, match=f"provenance.json: {field}; use the same settings"):
        play(begun, policy(**options))
    assert content(begun) == before


def test_a_checkpoint_that_was_trained_on_is_refused(begun: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"policy.model: begun with .*\(\w{8}\), this command says .*\(\w{8}\)"):
        play(begun, policy(step(language_model(), tmp_path / "model")))


def test_a_prompt_file_that_was_edited_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    for text in ("", "{# edited #}"):
        file.write_text(load("compact").source + text)
        load.cache_clear()
        if not text:
            play(tmp_path / "out", policy(prompt=str(file)))
    with pytest.raises(UserError, match=r"policy.prompt: begun with"):
        play(tmp_path / "out", policy(prompt=str(file)))


@pytest.mark.parametrize(
    "games",
    [
        make_games(3),
        make_games(2, "valid_seen"),
        [replace(game, digest="of another file") for game in make_games(2)],
    ],
    ids=["more", "another split", "other content"],
)
def test_other_games_are_refused(begun: Path, games) -> None:
    with pytest.raises(UserError, match=r"games: begun with 'train' \(\w{8}\), this command says"):
        play(begun, policy(), games)


def test_another_prm_or_choice_is_refused(tmp_path: Path) -> None:
    def best_of(n: int, prm: Path, **choice):
        return BestOfN(policy(), PRMScorer(prm, prompt="compact", max_batch=8), n, policy_id="best", **choice)

    play(tmp_path / "out", best_of(2, classifier()))
    with pytest.raises(UserError, match=r"policy.n: begun with 2, this command says 3"):
        play(tmp_path / "out", best_of(3, classifier()))
    with pytest.raises(UserError, match=r"policy.weight: begun with 0.0, this command says 1.0"):
        play(tmp_path / "out", best_of(2, classifier(), weight=1.0))
    with pytest.raises(UserError, match=r"policy.among: begun with 'all', this command says 'admissible'"):
        play(tmp_path / "out", best_of(2, classifier(), among="admissible"))
    with pytest.raises(UserError, match=r"policy.scorer.model: begun with"):
        play(tmp_path / "out", best_of(2, step(classifier(), tmp_path / "prm")))


def test_branches_of_other_parents_or_proposals_are_refused(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        play(tmp_path / name, Walker(), seed=seed)

    def branch(parents: str, hot: float):
        options = {"make_env": Corridor, "progress": False, "samples": 2, "states_per_episode": 1}
        rollout_branches(
            tmp_path / parents, make_games(2), Walker(), tmp_path / "out", proposals=policy(temperature=hot), **options
        )

    branch("a", 0.9)
    with pytest.raises(UserError, match=r"proposals.temperature: begun with 0.9, this command says 1.0"):
        branch("a", 1.0)
    with pytest.raises(UserError, match=r"parents\[0\]: begun with .*a' .*, this command says .*b' "):
        branch("b", 0.9)


def test_more_episodes_of_the_parents_extend_the_branches(tmp_path: Path) -> None:
    totals = []
    for rollouts in (1, 2):
        play(tmp_path / "parents", Walker(), rollouts_per_game=rollouts)
        done = rollout_branches(
            tmp_path / "parents", make_games(2), Walker(), tmp_path / "out", make_env=Corridor, progress=False
        )
        totals.append((done.total, done.resumed))
    assert totals[1][1] == totals[0][0] < totals[1][0]


def served(out: Path, told: dict[str, object], **options):
    async def answer(request):
        return completion(request)

    async def main():
        async with FakeServer(answer, told=told) as server:
            agent = ServerPolicy(server.url, "tiny", prompt="compact", **options)
            try:
                await collect(make_games(1), agent, out, make_env=Corridor, progress=False)
            finally:
                await agent.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_a_server_tells_of_its_model_is_a_setting(tmp_path: Path) -> None:
    served(tmp_path / "out", {"root": "org/model", "max_model_len": 4096, "created": 1})
    served(tmp_path / "out", {"root": "org/model", "max_model_len": 4096, "created": 2})
    with pytest.raises(UserError, match=r"policy.served.root: begun with 'org/model', this command says 'org/other'"):
        served(tmp_path / "out", {"root": "org/other", "max_model_len": 4096})
    with pytest.raises(UserError, match=r"policy.served.max_model_len: begun with 4096, this command says 8192"):
        served(tmp_path / "out", {"root": "org/model", "max_model_len": 8192})
    with pytest.raises(UserError, match=r"policy.temperature: begun with 0.3, this command says 1.0"):
        served(tmp_path / "out", {"root": "org/model", "max_model_len": 4096}, temperature=1.0)


def test_a_served_folder_that_is_here_is_known_by_its_content(tmp_path: Path) -> None:
    model = shutil.copytree(language_model(), tmp_path / "model")
    served(tmp_path / "out", {"root": str(model)})
    served(tmp_path / "out", {"root": str(shutil.copytree(model, tmp_path / "moved"))})
    with pytest.raises(UserError, match=r"policy.model: begun with 'tiny' \(\w{8}\), this command says 'tiny'"):
        served(tmp_path / "out", {"root": str(step(model, tmp_path / "trained"))})


def test_a_share_of_a_collection_has_the_settings_of_all_of_it(begun: Path, tmp_path: Path) -> None:
    play(tmp_path / "share", policy(), share=(1, 2))
    one, all_of_it = read(tmp_path / "share"), read(begun)
    assert one is not None
    assert all_of_it is not None
    assert one["settings"] == all_of_it["settings"]
    assert torch.__version__.startswith(one["runs"][0]["packages"]["torch"].partition("+")[0])


def test_settings_are_json(begun: Path) -> None:
    record = json.loads((begun / "provenance.json").read_text())
    assert set(record) == {"settings", "runs"}
    assert set(record["settings"]) == {
        "kind", "policy", "policy_id", "games", "iteration", "seed", "max_episode_steps"
    }  # fmt: skip
