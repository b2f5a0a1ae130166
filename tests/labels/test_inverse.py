"""`inverse` against Algorithm 2: transitions, balance, next actions from pi_{i-1}, and a relabelling that resumes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from label_worlds import counts, key_of, play, prompt_of, rows, straight, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import inverse
from prm_gym.labels.dataset import LabelReport
from prm_gym.types import Episode, PromptTooLong, Response, State


class Stub:
    """A policy whose answers name the state and the sample; it can fail after some calls."""

    def __init__(self, policy_id: str = "pi_2", fail_after: int | None = None, longest: int = 99) -> None:
        self.policy_id, self.fail_after, self.longest = policy_id, fail_after, longest
        self.calls: list[tuple[State, int]] = []
        self.under_way = self.most_under_way = 0
        self.closed = False

    async def settings(self) -> dict[str, Any]:
        return {"kind": "stub", "longest": self.longest}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        self.calls.append((state, n))
        if self.fail_after is not None and len(self.calls) > self.fail_after:
            raise RuntimeError("the server is gone")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.001 * (seed % 3))  # answers come out of order
        self.under_way -= 1
        if state.turn > self.longest:
            raise PromptTooLong
        said = f"{state.key.hex()}"
        return [Response(f"{k}@{said}#look", f"{k}@{said}", "look") for k in range(n)]

    async def close(self) -> None:
        self.closed = True


def label(tmp_path: Path, policy: Any = None, *, out: str = "out", **options: Any) -> list[dict[str, Any]]:
    report(tmp_path, policy, out=out, **options)
    return rows(tmp_path / out)


def report(tmp_path: Path, policy: Any = None, *, out: str = "out", **options: Any) -> LabelReport:
    learners = [tmp_path / name for name in ("pi_0", "pi_1") if (tmp_path / name).exists()]
    options = {"expert": [tmp_path / "expert"], "policy": policy or Stub(), **options}
    return inverse.label(learners, tmp_path / out, prompt=template(tmp_path), **options)


@pytest.fixture
def episodes(tmp_path: Path) -> dict[str, list[Episode]]:
    found = {"pi_0": tree(60, policy="pi_0"), "pi_1": tree(120, policy="pi_1"), "expert": tree(150, policy="expert")}
    for name, some in found.items():
        write(tmp_path / name, some)
    return found


def transitions(episodes: list[Episode]) -> Counter[tuple[str, str, str, bool]]:
    """(s, a, s', terminated) of every independent episode, with multiplicity."""
    return Counter(
        (prompt_of(e, t), e.turns[t].action, prompt_of(e, t + 1), e.won and t == e.actions - 1)
        for e in episodes
        if counts(e) and not e.parent_id
        for t in range(e.actions)
    )


def test_transitions_are_those_of_the_episodes(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    by_key = {}
    for e in (e for some in episodes.values() for e in some):
        for t in range(len(e.turns)):
            by_key[prompt_of(e, t)] = e.state_at(t).key.hex()
    wins = [e for e in episodes["expert"] if e.won]
    there = {True: transitions(wins), False: transitions([*episodes["pi_0"], *episodes["pi_1"]])}
    found: dict[bool, Counter[Any]] = {True: Counter(), False: Counter()}
    for row in label(tmp_path):
        if row["terminated"]:
            assert row["next_prompt"] == row["next_completion"] == []
            found[row["expert"]][(*key_of(row), True)] += 1
        else:
            after = text(row["next_prompt"])
            assert text(row["next_completion"]).endswith(f"@{by_key[after]}#look")
            found[row["expert"]][(*key_of(row), after, False)] += 1
    for side, kept in found.items():
        given = Counter()
        for (s, a, after, ended), n in there[side].items():
            given[(s, a, True) if ended else (s, a, after, False)] += n
        assert kept
        assert not kept - given


def test_balance_is_by_transition_in_each_split(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    found = label(tmp_path)
    for split in ("train", "test"):
        here = [row for row in found if row["split"] == split]
        sizes = Counter(row["policy_id"] for row in here if not row["expert"])
        assert sizes["pi_0"] == sizes["pi_1"] > 10
        assert sum(row["expert"] for row in here) == sum(sizes.values())
    whole = transitions(episodes["pi_0"]).total()
    assert sum(row["policy_id"] == "pi_0" for row in found) <= whole
    games = {split: {row["game_id"] for row in found if row["split"] == split} for split in ("train", "test")}
    assert not games["train"] & games["test"]


def test_surplus_transitions_are_left_out_by_the_seed(tmp_path: Path) -> None:
    write(tmp_path / "pi_0", [straight(1, 10, won=False)])
    write(tmp_path / "expert", [straight(n, 5, won=True, policy="expert") for n in range(20)])
    draws = []
    for seed in (0, 0, 1):
        found = label(tmp_path, out=f"out-{seed}", seed=seed)
        draws.append({(text(row["prompt"]), text(row["completion"])) for row in found if row["expert"]})
    assert len(draws[0]) == 10
    assert draws[0] == draws[1] != draws[2]


def test_time_outs_are_not_terminal_and_have_a_next_action(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    lost = {prompt_of(e, e.actions - 1): prompt_of(e, e.actions) for e in episodes["pi_1"] if not e.won and e.actions}
    ends = [row for row in label(tmp_path) if not row["terminated"] and text(row["next_prompt"]) in lost.values()]
    assert len(ends) > 5
    assert all(text(row["next_completion"]) for row in ends)


def test_every_transition_has_a_sample_of_its_own(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    samples = Counter(text(row["next_completion"]) for row in label(tmp_path) if not row["terminated"])
    assert set(samples.values()) == {1}


def test_each_next_state_is_asked_once_and_no_more_at_a_time_than_allowed(
    tmp_path: Path, episodes: dict[str, list[Episode]]
) -> None:
    policy = Stub()
    found = label(tmp_path, policy, concurrency=7)
    states = [state.key for state, _ in policy.calls]
    assert len(states) == len(set(states))
    assert sum(n for _, n in policy.calls) == sum(not row["terminated"] for row in found)
    assert 1 < policy.most_under_way <= 7
    assert policy.closed


def test_relabelling_resumes_after_a_failure_and_after_a_torn_line(
    tmp_path: Path, episodes: dict[str, list[Episode]]
) -> None:
    whole = Stub()
    expected = label(tmp_path, whole)
    assert not (tmp_path / "out.relabel.jsonl").exists()
    journal = tmp_path / "out.relabel.jsonl"
    asked = 0
    for _ in range(3):
        policy = Stub(fail_after=20)
        with pytest.raises(RuntimeError, match="gone"):
            label(tmp_path, policy, concurrency=3)
        asked += 20
        with journal.open("a") as file:
            file.write('{"state": "00ff", "sam')
    last = Stub()
    assert label(tmp_path, last) == expected
    assert len(whole.calls) - asked <= len(last.calls) <= len(whole.calls) - asked + 9


def test_a_relabelling_that_went_on_says_what_was_there(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    whole = Stub()
    assert report(tmp_path, whole).note == ""
    with pytest.raises(RuntimeError, match="gone"):
        label(tmp_path, Stub(fail_after=20), concurrency=3)
    there = len((tmp_path / "out.relabel.jsonl").read_text().splitlines()) - 1
    total = len(whole.calls)
    said = f"next actions at {total} states; {there} were there already, {total - there} are new"
    assert report(tmp_path, Stub()).note == said
    assert said not in (tmp_path / "out" / "README.md").read_text()


def test_a_journal_of_another_policy_is_refused(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    with pytest.raises(RuntimeError):
        label(tmp_path, Stub("pi_1", fail_after=5))
    with pytest.raises(UserError, match=r"relabel\.jsonl: policy_id: begun with 'pi_1', this command says 'pi_2'"):
        label(tmp_path, Stub("pi_2"))
    with pytest.raises(
        UserError, match=r"relabel\.jsonl: policy.longest: begun with 99, this command says 5; remove it"
    ):
        label(tmp_path, Stub("pi_1", longest=5))
    with pytest.raises(UserError, match="seed"):
        label(tmp_path, Stub("pi_1"), seed=1)


def test_a_next_prompt_that_is_too_long_leaves_the_balance(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    policy = Stub(longest=3)
    report = inverse.label(
        [tmp_path / "pi_0"],
        tmp_path / "out",
        expert=[tmp_path / "expert"],
        policy=policy,
        prompt=template(tmp_path),
    )
    assert report.skipped["next prompt too long"] > 0
    found = rows(tmp_path / "out")
    assert all(row["terminated"] or row["turn"] < 3 for row in found)
    for split in ("train", "test"):
        sides = Counter(row["expert"] for row in found if row["split"] == split)
        assert sides[True] == sides[False]


def test_a_policy_that_gives_too_few_responses_is_no_policy(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    class Mean(Stub):
        async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
            return (await super().act(state, n=n, seed=seed))[1:]

    with pytest.raises(RuntimeError, match="gave 0 responses for 1"):
        label(tmp_path, Mean(), concurrency=1)
    assert not (tmp_path / "out").exists()


def test_demonstrations_are_needed(tmp_path: Path) -> None:
    write(tmp_path / "pi_0", tree(20))
    with pytest.raises(UserError, match="no demonstrations"):
        label(tmp_path, expert=[])
    lost = [e for e in (play(n, policy="expert") for n in range(40)) if not e.won]
    write(tmp_path / "expert", lost)
    with pytest.raises(UserError, match="no successful episode"):
        label(tmp_path)
    with pytest.raises(UserError, match="given twice"):
        label(tmp_path, expert=[tmp_path / "pi_0"])


def test_the_journal_is_readable(tmp_path: Path, episodes: dict[str, list[Episode]]) -> None:
    with pytest.raises(RuntimeError):
        label(tmp_path, Stub(fail_after=4), concurrency=1)
    head, *lines = (tmp_path / "out.relabel.jsonl").read_text().splitlines()
    assert json.loads(head) == {"policy_id": "pi_2", "seed": 0, "policy": {"kind": "stub", "longest": 99}}
    assert [set(json.loads(line)) for line in lines] == [{"state", "asked", "samples"}] * 4
