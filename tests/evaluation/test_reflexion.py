"""Reflexion against a server that learns from a lesson: what is played, counted, paid, and not asked twice."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

pytest.importorskip("httpx")

from fake_server import FakeServer, Reply
from rollout_world import Corridor, make_games

from prm_gym.errors import UserError
from prm_gym.evaluation.reflexion import reflexion
from prm_gym.evaluation.results_file import read_results
from prm_gym.policies.react import ReActPolicy
from prm_gym.policies.server import ServerPolicy
from prm_gym.prompts import load

PROMPT = load("react")
LOST = "The game ended here and is lost."
GAMES = 4  # the door of corridor i is i + 1 steps to the right


def corridor(chat):
    return int(re.search(r"corridor (\d+)", chat)[1])


async def walks(request):
    """Walks as far as its lessons say: k steps with k lessons, and one without."""
    chat = "\n".join(message["content"] for message in request.body["messages"])
    if LOST in chat:
        text = f"Lesson of {corridor(chat)}: walk further."
    else:
        lessons = chat.count("walk further")
        walked = sum(message["role"] == "assistant" for message in request.body["messages"])
        action = "go right" if walked <= lessons else "open door"
        text = f"REASON: {walked} steps\nACTION: {action}"
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return Reply(body={"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage})


def play(out, *, trials=3, handler=walks, price=None, **more):
    async def main():
        async with FakeServer(handler) as server:
            model = ServerPolicy(server.url, "tiny", prompt=PROMPT, backoff=0.01, retries=0)
            options = {"make_env": lambda: Corridor(limit=20), "progress": False, **more}
            try:
                entries = await reflexion(
                    make_games(GAMES),
                    model,
                    PROMPT,
                    out,
                    make_policy=lambda lessons: ReActPolicy(model, PROMPT, lessons=lessons),
                    trials=trials,
                    split="train",
                    max_episode_steps=6,
                    price=price,
                    **options,
                )
            finally:
                await model.close()
            return entries, [request.body["messages"] for request in server.requests]

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_success_after_trial_k_counts_a_game_won_in_any_trial_up_to_k(tmp_path):
    """With k - 1 lessons the server walks k steps, so trial k wins corridor k - 1 and loses the later ones."""
    entries, _ = play(tmp_path)
    assert [(entry["mode"], entry["games"], entry["success"]) for entry in entries] == [
        ("trial_1", 4, 0.25), ("trial_2", 4, 0.5), ("trial_3", 4, 0.75),
    ]  # fmt: skip
    assert [row["mode"] for row in read_results(tmp_path / "results.json")] == ["trial_1", "trial_2", "trial_3"]


def test_several_rollouts_of_a_game_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^rollouts_per_game: "):
        play(tmp_path, rollouts_per_game=2)
    assert not list(tmp_path.iterdir())


def test_only_lost_games_are_played_again_with_the_lessons_of_their_own(tmp_path):
    _, chats = play(tmp_path, trials=2)
    again = [str(chat) for chat in chats if "Lesson of" in str(chat) and LOST not in str(chat)]
    assert {corridor(chat) for chat in again} == {1, 2, 3}
    assert all(set(re.findall(r"Lesson of (\d)", chat)) == {str(corridor(chat))} for chat in again)


def test_a_sample_of_the_games_stays_the_same_in_every_trial(tmp_path):
    entries, chats = play(tmp_path, max_games=3)
    assert [entry["games"] for entry in entries] == [3, 3, 3]
    assert len({corridor(str(chat)) for chat in chats}) == 3


def test_a_smaller_sample_after_a_larger_one_is_that_of_its_own_games(tmp_path):
    play(tmp_path / "both", trials=1)
    entries, _ = play(tmp_path / "both", max_games=2)
    fresh, _ = play(tmp_path / "fresh", max_games=2)
    assert entries == fresh


async def loses(request):
    """Never opens the door; a lesson is numbered by those before it."""
    chat = "\n".join(message["content"] for message in request.body["messages"])
    text = f"Lesson {chat.count('Lesson') + 1}" if LOST in chat else "REASON: no\nACTION: go left"
    return Reply(body={"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})


def test_the_last_three_lessons_are_shown(tmp_path):
    _, chats = play(tmp_path, trials=5, handler=loses, max_games=1)
    shown = dict.fromkeys("".join(re.findall(r"Lesson (\d)", str(chat))) for chat in chats if LOST not in str(chat))
    assert list(shown) == ["", "1", "12", "123", "234"]


def test_no_lesson_is_written_after_the_last_trial(tmp_path):
    _, chats = play(tmp_path, trials=2)
    assert sum(LOST in str(chat) for chat in chats) == 3


def test_it_stops_when_every_game_is_won(tmp_path):
    entries, _ = play(tmp_path, trials=9)
    assert [entry["mode"] for entry in entries][-1] == "trial_4"
    assert entries[-1]["success"] == 1


def test_tokens_and_cost_are_those_of_every_request_so_far(tmp_path):
    entries, chats = play(tmp_path, trials=3, price=(2.0, 30.0))
    assert entries[-1]["prompt_tokens"] == 100 * len(chats)
    assert entries[-1]["response_tokens"] == 10 * len(chats)
    assert entries[-1]["cost"] == pytest.approx(len(chats) * (100 * 2.0 + 10 * 30.0) / 1e6)
    assert entries[0]["prompt_tokens"] < entries[1]["prompt_tokens"]


def test_the_same_command_asks_nothing_again(tmp_path):
    before, _ = play(tmp_path)
    after, chats = play(tmp_path)
    assert (after, chats) == (before, [])


def test_it_resumes_between_the_lessons(tmp_path):
    whole, _ = play(tmp_path / "whole", trials=2)
    play(tmp_path / "torn", trials=2)
    [journal] = (tmp_path / "torn").glob("*/lessons.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[1][:9])  # killed while it wrote the second
    entries, chats = play(tmp_path / "torn", trials=2)
    assert sum(LOST in str(chat) for chat in chats) == 2
    assert entries == whole
    assert len(journal.read_text().splitlines()) == 3
    assert all(json.loads(line)["tokens"] == [100, 10] for line in journal.read_text().splitlines())
