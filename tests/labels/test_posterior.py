"""PosteriorExplorer: which reasons pass, that hindsight is never trained on, and that nothing is asked twice."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_worlds import prompt_of, rows, straight, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import posterior, prompts
from prm_gym.labels.leaks import leak
from prm_gym.types import Episode, Message, Response, State

STATE = State(
    "g",
    "put a clean mug in shelf",
    ("You see a cabinet 3, a desk 1, a drawer 2, a shelf 1, and a sinkbasin 1.", "On the desk 1, you see a pen 2."),
    ("go to desk 1",),
    ("go to cabinet 3", "go to drawer 2", "take pen 2 from desk 1"),
)
FUTURE = [
    ("go to cabinet 3", "The cabinet 3 is closed."),
    ("open cabinet 3", "The cabinet 3 is open. In it, you see a mug 1."),
    ("take mug 1 from cabinet 3", "You pick up the mug 1 from the cabinet 3."),
    ("clean mug 1 with sinkbasin 1", "You clean the mug 1 using the sinkbasin 1."),
    ("move mug 1 to shelf 1", "You move the mug 1 to the shelf 1."),
]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("There is no mug on desk 1, and mugs are often kept in cabinets, so cabinet 3 is a good place to look.", None),
        ("The desk 1 holds a pen 2 and no mug. I go to cabinet 3.", None),
        ("A mug may be in cabinet 3.", None),
        ("I still need a mug; the drawer 2 is small.", None),
        ("Once I have a mug I clean it at sinkbasin 1 and bring it to shelf 1.", None),  # a plan of its own making
        ("I need mug 1.", "name"),
        ("The MUG 1 might be in cabinet 3.", "name"),
        ("The mug is in cabinet 3.", "place"),
        ("I need a mug. I take the mug from cabinet 3.", "place"),
        ("I look for a mug. It is in cabinet 3: a mug.", "place"),
        ("I will find a mug in cabinet 3.", "outcome"),
        ("As it turns out, the cabinet is right.", "outcome"),
        ("This is one of the actions above.", "outcome"),
        ("I go there because the game was won so.", "outcome"),
    ],
)
def test_a_reason_may_guess_but_not_know(reason: str, cause: str | None) -> None:
    assert leak(reason, STATE, "go to cabinet 3", FUTURE) == cause


def test_what_has_been_seen_is_no_leak() -> None:
    """The same words at the turn after the mug was seen."""
    seen = State("g", STATE.task, (*STATE.observations, FUTURE[0][1], FUTURE[1][1]), ("go to desk 1", "x", "y"), ())
    assert leak("The mug 1 is in cabinet 3.", seen, FUTURE[2][0], FUTURE[2:]) is None


class Author:
    """Answers the i-th sample with the i-th of `reasons`, followed by the asked action, or by `instead`."""

    policy_id = "author"

    def __init__(self, *reasons: str, instead: str | None = None, fails_after: int = 10**9) -> None:
        self.reasons, self.instead, self.left = reasons, instead, fails_after
        self.read: list[str] = []
        self.seeds: list[int] = []

    async def settings(self) -> dict[str, Any]:
        return {"kind": "author"}

    async def reply(self, messages: list[Message], *, n: int = 1, seed: int = 0) -> list[Response]:
        await asyncio.sleep(0)
        if self.left == 0:
            raise RuntimeError("the server is gone")
        self.left -= 1
        asked = messages[-1]["content"]
        self.read.append(asked)
        self.seeds.append(seed)
        action = self.instead or asked.rpartition("The action must be exactly: ")[2]
        return [Response(f"{r}#{action}", r, action, 100, 10) for r in self.reasons[:n]]

    async def close(self) -> None: ...


def demonstrated(episodes: list[Episode]) -> set[tuple[str, str]]:
    kept = {prompt_of(e, e.actions): e for e in episodes if e.won and not e.parent_id}
    return {(prompt_of(e, t), e.turns[t].action) for e in kept.values() for t in range(e.actions)}


def label(tmp_path: Path, author: Author, *, name: str = "out", **options: Any) -> Any:
    if not (tmp_path / "in").exists():
        write(tmp_path / "in", tree(100))
    return posterior.label([tmp_path / "in"], tmp_path / name, policy=author, prompt=template(tmp_path), **options)


def test_rows_are_the_plain_states_with_the_first_reason_that_passes(tmp_path: Path) -> None:
    author = Author("", "it turns out well", "a fine guess", "another")
    report = label(tmp_path, author)
    found = {(text(row["prompt"]), text(row["completion"])) for row in rows(tmp_path / "out")}
    assert found == {(state, f"a fine guess#{action}") for state, action in demonstrated(tree(100))}
    asked = report.statistics["turns asked"]
    assert report.statistics["reasons refused"] == {"no reason": asked, "outcome": asked}
    assert report.statistics["tokens"] == {"prompt": 100 * asked, "response": 40 * asked}


def test_a_model_of_which_no_reason_passes_is_named_with_the_causes(tmp_path: Path) -> None:
    asked = len(demonstrated(tree(100)))
    with pytest.raises(UserError, match=rf"no reason passes \(refused: another action {asked}\)"):
        label(tmp_path, Author("a guess", instead="sing"), samples=1)
    assert not (tmp_path / "out").exists()


def test_the_author_reads_how_the_episode_went_on(tmp_path: Path) -> None:
    author = Author("a guess")
    label(tmp_path, author, samples=1)
    won = next(e for e in tree(100) if e.won and not e.parent_id and e.actions > 2)
    steps = [f"{t}. {won.turns[t].action} -> {won.turns[t + 1].observation}" for t in range(1, won.actions)]
    [asked] = [read for read in author.read if read.startswith(prompt_of(won, 1) + "\n")]
    assert "\n".join(f"{i}. {step.partition('. ')[2]}" for i, step in enumerate(steps, 1)) in asked


def test_each_state_and_action_is_asked_once_and_a_stopped_run_resumes(tmp_path: Path) -> None:
    first = Author("a guess", fails_after=20)
    with pytest.raises(RuntimeError, match="gone"):
        label(tmp_path, first, samples=1, concurrency=4)
    second = Author("a guess")
    report = label(tmp_path, second, samples=1, concurrency=4)
    asked = Counter(first.read + second.read)
    assert len(second.read) == report.statistics["turns asked"] - 20 > 0
    assert sum(asked.values()) == len(demonstrated(tree(100)))
    assert "20 of" in report.note
    assert not list(tmp_path.glob("*.jsonl"))


def test_reasons_under_another_prompt_are_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="gone"):
        label(tmp_path, Author("a guess", fails_after=5))
    changed = Path(template(tmp_path))
    changed.write_text(changed.read_text() + " ")
    (tmp_path / "changed").mkdir()
    other = changed.rename(tmp_path / "changed" / changed.name)
    with pytest.raises(UserError, match=r"out.posterior.jsonl: prompt: begun with"):
        posterior.label([tmp_path / "in"], tmp_path / "out", policy=Author("a guess"), prompt=str(other))


def test_a_turn_without_an_action_is_not_asked(tmp_path: Path) -> None:
    episode = straight(1, 4, won=True)
    episode.turns[1] = replace(episode.turns[1], action="", response="I do not know")
    write(tmp_path / "in", [episode])
    report = label(tmp_path, Author("a guess"))
    assert (report.rows["train"], report.statistics["turns asked"]) == (3, 3)
    assert report.skipped["turns without a reason that passes"] == 1


def test_the_seeds_of_turns_and_runs_differ(tmp_path: Path) -> None:
    authors = Author("a guess"), Author("a guess")
    for seed, author in enumerate(authors):
        label(tmp_path, author, name=f"out-{seed}", samples=1, seed=seed)
    seeds = [seed for author in authors for seed in author.seeds]
    assert len(set(seeds)) == len(seeds) == 2 * len(demonstrated(tree(100)))
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_prompt_without_reasons_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shows no reason"):
        posterior.label([write(tmp_path / "in", tree(20))], tmp_path / "out", policy=Author(), prompt="compact")


def test_hindsight_prompts_are_sampled_from_at_won_states_and_never_trained_on(tmp_path: Path) -> None:
    episodes = tree(100)
    folder, plain = write(tmp_path / "in", episodes), template(tmp_path)
    report = prompts.label([folder], tmp_path / "out", prompt=plain, hindsight=True)
    won = defaultdict(list)  # what the won episodes show from a state on
    for e in (e for e in episodes if e.won):
        shown = [f"{turn.action} -> {after.observation}" for turn, after in zip(e.turns, e.turns[1:], strict=False)]
        for t in range(e.branch_turn, e.actions):
            won[prompt_of(e, t)].append("\n".join(f"{i}. {step}" for i, step in enumerate(shown[t:], 1)))
    found = rows(tmp_path / "out")
    for row in found:
        state, exploration = text(row["prompt"]), text(row["exploration_prompt"])
        assert "the game was won" not in state
        assert exploration.startswith(state)
        assert ("the game was won" in exploration) == (state in won)
        assert state not in won or any(f"showed.\n{future}\n\n" in exploration for future in won[state])
    assert report.statistics["rows with hindsight"] == len(won) == sum(text(row["prompt"]) in won for row in found)
