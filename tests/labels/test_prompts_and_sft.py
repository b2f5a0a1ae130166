"""`prompts` (Reset-50-50, Steered Exploration) and `sft` against the episodes themselves."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from label_worlds import counts, play, prompt_of, rows, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import label_function, prompts, sft
from prm_gym.labels.stage3_states import quotas
from prm_gym.prompts import load
from prm_gym.types import Episode


def visited(episodes: list[Episode], *, won: bool = False) -> set[str]:
    return {
        prompt_of(e, t) for e in episodes if counts(e) and (e.won or not won) for t in range(e.branch_turn, e.actions)
    }


def test_prompts_are_the_distinct_states_acted_in(tmp_path: Path) -> None:
    episodes = tree()
    prompts.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=template(tmp_path))
    found = rows(tmp_path / "out")
    assert Counter(text(row["prompt"]) for row in found) == Counter(visited(episodes))
    assert all(text(row["exploration_prompt"]) == text(row["prompt"]) + "|explore" for row in found)
    assert {row["source"] for row in found} == {"policy"}


@pytest.mark.parametrize("size", [None, 60])
def test_reset_50_50_halves_each_split_and_takes_expert_states_of_wins(tmp_path: Path, size: int | None) -> None:
    ours, theirs = tree(), tree(policy="expert")
    folders = write(tmp_path / "in", ours), write(tmp_path / "expert", theirs)
    prompts.label([folders[0]], tmp_path / "out", expert=[folders[1]], size=size, prompt=template(tmp_path))
    found = rows(tmp_path / "out")
    assert len(found) == len({text(row["prompt"]) for row in found}) > 40
    assert size is None or 58 <= len(found) <= size
    for split in ("train", "test"):
        sources = Counter(row["source"] for row in found if row["split"] == split)
        assert abs(sources["expert"] - sources["policy"]) <= 1 < sources["expert"]
    good = visited(theirs, won=True)
    for row in found:
        assert (text(row["prompt"]) in good) == (row["source"] == "expert")
        assert row["policy_id"] == ("expert" if row["source"] == "expert" else "pi_0")


@pytest.mark.parametrize("size", [1, 2, 10])
def test_a_size_is_met_exactly(tmp_path: Path, size: int) -> None:
    prompts.label([write(tmp_path / "in", tree())], tmp_path / "out", size=size, prompt=template(tmp_path))
    assert len(rows(tmp_path / "out")) == size


def test_a_size_draws_evenly_and_by_the_seed(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", tree())
    draws = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out-{seed}"
        prompts.label([folder], out, size=40, seed=seed, train_share=1.0, prompt=template(tmp_path))
        draws.append({text(row["prompt"]) for row in rows(out)})
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 40


@pytest.mark.parametrize("size", [1, 5, 7, 100, 10_000])
@pytest.mark.parametrize("fraction", ["0", "0.3", "0.45", "0.5", "0.7", "1"])
def test_quotas_are_the_largest_that_keep_the_fraction_and_the_bounds(size: int, fraction: str) -> None:
    """In exact arithmetic: the largest total t with t (1 - f) policy and t f expert rows."""
    for policy, expert in ((100, 10), (3, 900), (50, 50), (0, 7), (33, 55)):
        got, exact = quotas(policy, expert, float(fraction), size), Fraction(fraction)
        most = max(t for t in range(1000) if t <= size and t * (1 - exact) <= policy and t * exact <= expert)
        assert sum(got.values()) == most
        assert 0 <= got["policy"] <= policy
        assert 0 <= got["expert"] <= expert
        assert abs(got["expert"] - exact * most) <= 1


def test_prompts_need_expert_wins_where_an_expert_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", tree(30))
    lost = [e for e in (play(n, policy="expert") for n in range(40)) if not e.won]
    with pytest.raises(UserError, match="no successful episode"):
        prompts.label([folder], tmp_path / "out", expert=[write(tmp_path / "lost", lost)])


def demonstrations(episodes: list[Episode]) -> dict[str, Episode]:
    """The independent successes by all that happened in them."""
    return {prompt_of(e, e.actions): e for e in episodes if e.won and not e.parent_id}


def test_sft_rows_are_the_turns_of_distinct_successes(tmp_path: Path) -> None:
    episodes = tree(400)
    report = sft.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=template(tmp_path))
    found = Counter((text(r["prompt"]), text(r["completion"]).partition("#")[2]) for r in rows(tmp_path / "out"))
    kept = demonstrations(episodes)
    assert found == Counter((prompt_of(e, t), e.turns[t].action) for e in kept.values() for t in range(e.actions))
    assert report.statistics["demonstrations"] == len(kept)
    wins = sum(e.won and not e.parent_id for e in episodes)
    assert report.statistics["identical ones left out"] == wins - len(kept) > 0


def test_sft_of_a_multi_turn_prompt_is_the_conversation_that_inference_shows(tmp_path: Path) -> None:
    episodes = tree(60)
    compact = load("compact")
    sft.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt="compact")
    found = rows(tmp_path / "out")
    kept = demonstrations(episodes)
    assert len(found) == len(kept)
    whole = []
    for episode in kept.values():
        last = episode.actions - 1
        action = episode.turns[last].action
        answer = {"role": "assistant", "content": compact.response("", action)}
        whole.append([*compact.messages(episode.state_at(last)), answer])
    assert sorted(map(repr, whole)) == sorted(repr(row["prompt"] + row["completion"]) for row in found)
    for row in found:
        assert [message["role"] for message in row["prompt"]] == ["user"]
        assert row["completion"][-1]["role"] == "assistant"
        assert len(row["completion"]) == 2 * row["turn"] + 1


@pytest.mark.parametrize("prompt", ["compact", "plain"])
def test_sft_can_leave_out_actions_that_were_not_admissible(tmp_path: Path, prompt: str) -> None:
    episodes = tree(100)
    plain = template(tmp_path) if prompt == "plain" else prompt
    sft.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=plain, valid_only=True)
    said = [m["content"] for row in rows(tmp_path / "out") for m in row["completion"] if m["role"] == "assistant"]
    assert said
    assert not any("put" in words for words in said)


def test_exploring_demonstrations_stand_under_the_exploration_prompt(tmp_path: Path) -> None:
    ours, theirs = tree(), tree(policy="explorer")
    folders = write(tmp_path / "in", ours), write(tmp_path / "exploring", theirs)
    sft.label([folders[0]], tmp_path / "out", exploring=[folders[1]], prompt=template(tmp_path))
    found = rows(tmp_path / "out")
    marked = {text(row["prompt"]) for row in found if row["policy_id"] == "explorer"}
    plain = {text(row["prompt"]) for row in found if row["policy_id"] != "explorer"}
    assert marked
    assert plain
    assert all(prompt.endswith("|explore") for prompt in marked)
    assert not any(prompt.endswith("|explore") for prompt in plain)


def test_one_folder_is_as_good_as_a_list_of_one(tmp_path: Path) -> None:
    policy, expert = write(tmp_path / "a", tree()), write(tmp_path / "b", tree(policy="expert"))
    label = label_function("prompts")
    label([policy], tmp_path / "lists", expert=[expert], prompt=template(tmp_path))
    for name, one, other in (("texts", str(policy), str(expert)), ("paths", policy, expert)):
        label(one, tmp_path / name, expert=other, prompt=template(tmp_path))
        assert rows(tmp_path / name) == rows(tmp_path / "lists")
    made = [json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("lists", "texts", "paths")]
    assert made[0]["settings"] == made[1]["settings"] == made[2]["settings"]
