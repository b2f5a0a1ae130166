"""`rejection_sampling` against the argmax over the responses that were sampled, state by state."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from label_worlds import counts, prompt_of, rows, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import rejection_sampling
from prm_gym.labels.dataset import LabelReport
from prm_gym.prm.scorer import Scorer
from prm_gym.types import Episode, PromptTooLong, Response, State

N = 5


def draw(*words: object) -> float:
    """A number in [0, 1) for these words."""
    return int.from_bytes(blake2b(repr(words).encode(), digest_size=8).digest(), "big") / 2**64


def said(key: bytes) -> list[Response]:
    """The policy's responses at a state: few actions, so that some repeat, and some cut off."""
    found = []
    for number in range(N):
        action = "abc"[int(3 * draw(key, number))]
        ended = draw(key, number, "end") < 0.4
        found.append(Response(f" because {number}#{action} ", f"r{number}", action, 0, number + 1, finished=ended))
    return found


def logit(key: bytes, action: str) -> float:
    return 8 * draw(key, action) - 4


class Samples:
    policy_id = "pi_0"

    def __init__(self, fail_after: int | None = None, longest: int = 99) -> None:
        self.asked: list[tuple[bytes, int]] = []  # state and seed
        self.fail_after, self.longest, self.closed = fail_after, longest, False

    async def settings(self) -> dict[str, Any]:
        return {"kind": "samples", "longest": self.longest}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        self.asked.append((state.key, seed))
        if self.fail_after is not None and len(self.asked) > self.fail_after:
            raise RuntimeError("the server is gone")
        if state.turn > self.longest:
            raise PromptTooLong
        return said(state.key)[:n]

    async def close(self) -> None:
        self.closed = True


class Scores(Scorer):
    def __init__(self, longest: int = 99) -> None:
        self.texts: list[tuple[bytes, str]] = []
        self.longest, self.closed = longest, False

    async def settings(self) -> dict[str, Any]:
        return {"kind": "scores"}

    async def logits(self, pairs: Sequence[tuple[State, Response]]) -> list[float]:
        if any(state.turn > self.longest for state, _ in pairs):
            raise PromptTooLong
        self.texts += [(state.key, response.text) for state, response in pairs]
        return [logit(state.key, response.action) for state, response in pairs]

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def episodes(tmp_path: Path) -> list[Episode]:
    found = tree(80)
    write(tmp_path / "in", found)
    return found


def label(tmp_path: Path, policy: Any = None, scorer: Any = None, *, name: str = "out", **options: Any) -> LabelReport:
    options = {"policy": policy or Samples(), "scorer": scorer or Scores(), "n": N, **options}
    return rejection_sampling.label([tmp_path / "in"], tmp_path / name, prompt=template(tmp_path), **options)


def by_prompt(episodes: list[Episode]) -> dict[str, bytes]:
    """The state key of each state with an action, by what the template writes."""
    return {prompt_of(e, t): e.state_at(t).key for e in episodes if counts(e) for t in range(e.branch_turn, e.actions)}


def test_each_row_is_the_best_response_that_ended_as_it_was_sampled(tmp_path: Path, episodes: list[Episode]) -> None:
    policy, scorer = Samples(), Scores()
    report = label(tmp_path, policy, scorer)
    states = by_prompt(episodes)
    wanted = {}
    for prompt, key in states.items():
        ended = [response for response in said(key) if response.finished]
        if ended:
            best = max(ended, key=lambda response: logit(key, response.action))  # the first of an action, as max does
            wanted[prompt] = (best.text, 1 / (1 + math.exp(-logit(key, best.action))))
    found = {text(row["prompt"]): (text(row["completion"]), row["q"]) for row in rows(tmp_path / "out")}
    assert found.keys() == wanted.keys()
    assert {prompt: words for prompt, (words, _) in found.items()} == {p: words for p, (words, _) in wanted.items()}
    assert all(found[prompt][1] == pytest.approx(q, abs=1e-6) for prompt, (_, q) in wanted.items())
    assert 0 < report.skipped["no response ended"] == len(states) - len(wanted)
    assert len(set(scorer.texts)) == len(scorer.texts)  # nothing is scored twice
    assert policy.closed
    assert scorer.closed
    assert not list(tmp_path.glob("*.jsonl"))


def test_what_was_sampled_is_counted(tmp_path: Path, episodes: list[Episode]) -> None:
    cut = sum(not r.finished for key in by_prompt(episodes).values() for r in said(key))
    facts = label(tmp_path).statistics
    states = len(by_prompt(episodes))
    assert facts["sampled"] == {"responses": N * states, "tokens": 15 * states, "cut off": cut}
    assert 0 < facts["mean Q"]["distinct actions"] < facts["mean Q"]["best"] < 1


def test_a_kill_loses_no_response(tmp_path: Path, episodes: list[Episode]) -> None:
    label(tmp_path)
    whole = rows(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "first")
    killed = Samples(fail_after=10)
    with pytest.raises(RuntimeError, match="the server is gone"):
        label(tmp_path, killed, concurrency=1)
    assert killed.closed
    assert not (tmp_path / "out").exists()
    kept = len((tmp_path / "out.sampled.jsonl").read_text().splitlines()) - 1
    assert kept == 10
    again = Samples()
    report = label(tmp_path, again)
    assert len(again.asked) == len(by_prompt(episodes)) - kept
    assert "10 were there already" in report.note
    assert rows(tmp_path / "out") == whole


def test_more_responses_than_before_are_sampled_anew(tmp_path: Path, episodes: list[Episode]) -> None:
    """What the journal has of a state counts if it is enough, and the larger sample replaces the smaller one."""
    states, last = len(by_prompt(episodes)), Samples()
    for n, done in ((2, 10), (4, 20), (2, 30)):
        policy = Samples(fail_after=done)
        with pytest.raises(RuntimeError):
            label(tmp_path, policy, n=n, concurrency=1)
        assert len(policy.asked) == done + 1
    report = label(tmp_path, last, n=4)
    assert len(last.asked) == states - 20
    assert report.statistics["sampled"]["responses"] == 4 * states


def test_fewer_responses_than_before_are_the_first_of_those(tmp_path: Path, episodes: list[Episode]) -> None:
    with pytest.raises(RuntimeError):
        label(tmp_path, Samples(fail_after=20), n=N, concurrency=1)
    states, report = len(by_prompt(episodes)), label(tmp_path, n=2)
    assert report.statistics["sampled"]["responses"] == 2 * states
    fresh = label(tmp_path, n=2, name="fresh")
    assert (fresh.rows, rows(tmp_path / "out")) == (report.rows, rows(tmp_path / "fresh"))


def test_the_seeds_of_states_and_runs_differ(tmp_path: Path, episodes: list[Episode]) -> None:
    policies = Samples(), Samples()
    for seed, policy in enumerate(policies):
        label(tmp_path, policy, name=f"out-{seed}", seed=seed)
    seeds = [seed for policy in policies for _, seed in policy.asked]
    assert len(set(seeds)) == len(seeds) == 2 * len(by_prompt(episodes))
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_states_are_those_of_the_policy_and_the_expert_in_the_size_asked_for(
    tmp_path: Path, episodes: list[Episode]
) -> None:
    theirs, policy = tree(80, policy="expert"), Samples()
    good = {e.state_at(t).key for e in theirs if e.won and counts(e) for t in range(e.branch_turn, e.actions)}
    expert = [write(tmp_path / "expert", theirs)]
    label(tmp_path, policy, expert=expert, expert_fraction=0.25, size=40, train_share=1.0)
    assert Counter(key in good for key, _ in policy.asked) == {True: 10, False: 30}


def test_the_journal_of_another_policy_is_refused(tmp_path: Path, episodes: list[Episode]) -> None:
    with pytest.raises(RuntimeError):
        label(tmp_path, Samples(fail_after=3), concurrency=1)
    with pytest.raises(UserError, match=r"out.sampled.jsonl: policy.longest: begun with 99, this command says 3"):
        label(tmp_path, Samples(longest=3))


@pytest.mark.parametrize(("policy", "scorer"), [(1, 99), (99, 1), (2, 1)])
def test_a_state_too_long_for_the_policy_or_the_scorer_is_left_out(
    tmp_path: Path, episodes: list[Episode], policy: int, scorer: int
) -> None:
    """Each state is told once: a state that the policy reads gives no row if no response ended, else is scored."""
    report = label(tmp_path, Samples(longest=policy), Scores(longest=scorer))
    told: Counter[str] = Counter()
    for prompt, key in by_prompt(episodes).items():
        turn = (prompt.count("|") - 1) // 2
        actions = {response.action for response in said(key) if response.finished}
        if turn > policy or (actions and turn > scorer):
            told["too long"] += 1
        else:
            told[("none", "one", "several")[min(len(actions), 2)]] += 1
    assert len(told) == 4
    assert report.skipped["prompt too long"] == told["too long"]
    assert report.skipped["no response ended"] == told["none"]
    assert report.statistics["states with one action"] == told["one"]
    assert len(rows(tmp_path / "out")) == told["one"] + told["several"]


def test_provenance_names_both_models(tmp_path: Path, episodes: list[Episode]) -> None:
    label(tmp_path)
    made = json.loads((tmp_path / "out" / "provenance.json").read_text())["settings"]
    assert (made["policy"]["kind"], made["prm"], made["n"]) == ("samples", {"kind": "scores"}, N)
