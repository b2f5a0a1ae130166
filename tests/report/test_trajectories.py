"""The choice of the episodes shown, and that Q beside a response is Q of that response at that state."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from report_world import COMMANDS, FlatScorer, make_prm, make_run, play

from prm_gym import prompts
from prm_gym.report import trajectories
from prm_gym.report.gather import gather
from prm_gym.report.trajectories import sample, score_turns
from prm_gym.types import PromptTooLong


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), best_of=(4,))


def of_policy(episodes, policy, mode="policy"):
    return [e for e in episodes if (e["policy"], e["mode"]) == (policy, mode)]


def test_the_same_games_are_shown_of_every_evaluation(run) -> None:
    episodes = sample([gather(run, "a")], 6, 0, print)
    games = [[e["game"] for e in of_policy(episodes, *who)] for who in (["pi_0"], ["pi_1"], ["pi_1", "best_of_4"])]
    assert games[0] == games[1] == games[2]
    assert len(games[0]) == 6
    assert len({e["type"] for e in of_policy(episodes, "pi_0")}) == 6  # task types in turn


def test_another_seed_shows_other_games_and_the_same_seed_the_same(run) -> None:
    games = [{e["game"] for e in sample([gather(run, "a")], 6, seed, print)} for seed in (0, 0, 1, 2)]
    assert games[0] == games[1]
    assert games[0] != games[2] or games[0] != games[3]


def test_without_an_evaluation_the_rollouts_are_shown(run, tmp_path) -> None:
    shutil.copytree(run / "iter1" / "rollouts", tmp_path / "iter1" / "rollouts")
    episodes = sample([gather(tmp_path, "a")], 5, 0, print)
    assert [(e["policy"], e["split"]) for e in episodes] == [("pi_0", "train")] * 5


def test_without_a_prm_there_is_no_q_and_a_note_says_why(run) -> None:
    notes: list[str] = []
    episodes = sample([gather(run, "mine")], 3, 0, notes.append)
    assert len(notes) == 1
    assert "mine: no Q_0" in notes[0]
    assert "holds no PRM" in notes[0]
    assert all(e["q"] is None and "q" not in turn for e in episodes for turn in e["turns"])


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_prm_that_does_not_load_costs_q_and_not_the_report(run, tmp_path, damaged, monkeypatch) -> None:
    """It is told before any Q scores anything."""
    monkeypatch.setattr(trajectories, "_scores", None)
    shutil.copytree(run, tmp_path / "run")
    make_prm(tmp_path / "run" / "iter1" / "prm")
    file = tmp_path / "run" / "iter1" / "prm" / damaged
    file.write_bytes(file.read_bytes()[:100])
    notes: list[str] = []
    episodes = sample([gather(tmp_path / "run", "a")], 1, 0, notes.append)
    assert len(episodes) == 3
    assert len(notes) == 1


def test_q_is_that_of_the_prm_for_the_response_and_each_command(run, tmp_path) -> None:
    """Against stock transformers, one text at a time, without the token that ends the turn."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    shutil.copytree(run, tmp_path / "run")
    prm = tmp_path / "run" / "iter1" / "prm"
    make_prm(prm)
    episodes = sample([gather(tmp_path / "run", "a")], 2, 0, pytest.fail)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(prm), AutoTokenizer.from_pretrained(prm)
    shown = episodes[0]
    assert shown["q"] == "Q_0"
    episode = play("pi_0", int(shown["game"].rpartition("-")[2]), 0.08)
    assert episode.turns[0].action == shown["turns"][0]["a"]
    prompt = prompts.load("full")
    for t in (0, episode.actions - 1):
        turn = episode.turns[t]
        texts = [turn.response, *(prompt.response(turn.reason, command) for command in COMMANDS)]
        for text, q in zip(texts, [shown["turns"][t]["q"], *shown["turns"][t]["cq"]], strict=True):
            chat = [*prompt.messages(episode.state_at(t)), {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                assert torch.sigmoid(model(ids[:, :-1]).logits).item() == pytest.approx(q, abs=2e-4)


def test_a_turn_over_the_models_context_is_left_without_q() -> None:
    class Short(FlatScorer):
        async def score(self, pairs):
            if pairs[0][0].turn >= 2:
                raise PromptTooLong
            return await super().score(pairs)

    episode = play("pi_0", 0, 0.0)
    (scores,) = asyncio.run(score_turns(Short(), prompts.load("compact"), [episode]))
    assert [of_turn is None for of_turn in scores] == [t >= 2 for t in range(episode.actions)]
