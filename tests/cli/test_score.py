"""Q of stored actions and of chats, against transformers' own logits. The output file is complete or absent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("transformers", reason="needs the extra 'trl'")
import torch
from tiny_models import CONTEXT, classifier, state
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prm_gym import prompts
from prm_gym.cli import main
from prm_gym.prm import batch_scoring as scoring
from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, StopReason, Turn

PROMPT = prompts.load("compact")


def logit(chat: list[dict[str, str]]) -> float:
    """As transformers computes it, a chat at a time, without the token that ends the turn."""
    model = AutoModelForSequenceClassification.from_pretrained(classifier(), num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier())
    ids = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(model(input_ids=ids[:, :-1]).logits)


def chat(turns: int, action: str) -> list[dict[str, str]]:
    return [*PROMPT.messages(state(turns)), {"role": "assistant", "content": action}]


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    """Two episodes of 3 actions, as `state` has them; the responses say more than the actions."""
    with EpisodeWriter(tmp_path / "episodes") as writer:
        for name in ("a", "b"):
            s = state(3, odd=name)
            turns = [
                Turn(t, o, ["look"], f"I go to desk {t}", "", f"go to desk {t}", True, 0.0)
                for t, o in enumerate(s.observations[:-1])
            ]
            turns.append(Turn(3, s.observations[-1], ["look"]))
            stop = StopReason.STEP_LIMIT.value
            writer.add(Episode(name, s.game_id, "train", s.task, "pick", "pi_0", 0, 0, stop, turns))
    return tmp_path / "episodes"


def run(source: Path, out: Path, *flags: str) -> list[dict]:
    assert main(["score", str(source), "--prm", str(classifier()), "--out", str(out), *flags]) == 0
    if out.suffix == ".parquet":
        return pq.read_table(out.absolute()).to_pylist()
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl", "run:q.parquet"])
def test_every_action_of_episodes_has_the_logit_of_its_chat(
    episodes: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 4)  # which no episode ends at
    monkeypatch.chdir(tmp_path)
    rows = run(episodes, Path(name), "--prompt", "compact")
    assert [(row["episode_id"], row["turn"], row["action"]) for row in rows] == [
        (episode, turn, f"go to desk {turn}") for episode in "ab" for turn in range(3)
    ]
    for row in rows:
        s = state(row["turn"], odd=row["episode_id"])
        answer = {"role": "assistant", "content": f"I {row['action']}"}
        assert row["state_key"] == s.key.hex()
        assert row["logit"] == pytest.approx(logit([*PROMPT.messages(s), answer]), abs=1e-4)
        assert row["q"] == pytest.approx(torch.tensor(row["logit"]).sigmoid().item(), abs=1e-6)


def test_every_chat_of_a_file_has_its_logit_and_one_that_is_too_long_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 2)
    chats = [chat(1, "look"), chat(CONTEXT, "look"), chat(0, "go to desk 1")]
    whole, long, parted = chats
    lines = [{"messages": whole}, {"messages": long}, {"prompt": parted[:-1], "completion": parted[-1:]}]
    (tmp_path / "chats.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    rows = run(tmp_path / "chats.jsonl", tmp_path / "q.parquet")
    assert [row["line"] for row in rows] == [1, 3, 5]
    assert rows[1]["q"] is rows[1]["logit"] is None
    assert "Q of 3 actions, 1 of them too long for it" in " ".join(capsys.readouterr().out.split())
    assert [rows[0]["logit"], rows[2]["logit"]] == pytest.approx([logit(whole), logit(parted)], abs=1e-4)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is no chat"),
        ("[1]", "is no chat"),
        ('{"messages": [{"role": "user"}]}', "is no chat"),
        ('{"messages": [{"role": "user", "content": "look"}]}', "does not end with an assistant's message"),
        ('{"messages": [{"role": "assistant", "content": 1}]}', "no text"),
    ],
)
def test_a_line_that_is_no_chat_is_named_before_any_is_scored(tmp_path: Path, refusal, line: str, problem: str) -> None:
    file, prm = tmp_path / "chats.jsonl", tmp_path / "prm"
    prm.mkdir()
    (prm / "config.json").write_text("{}")  # no model: whoever loads it prints another line
    file.write_text(json.dumps({"messages": chat(0, "look")}) + "\n" + line)
    said = refusal("score", file, "--prm", prm, "--out", tmp_path / "q.jsonl")
    assert said.startswith(f"{file}:2: ")
    assert problem in said


def test_a_file_without_chats_is_an_error(tmp_path: Path, refusal) -> None:
    (tmp_path / "chats.jsonl").write_text("\n \n")
    said = refusal("score", tmp_path / "chats.jsonl", "--prm", classifier(), "--out", tmp_path / "q.jsonl")
    assert said.startswith(f"{tmp_path / 'chats.jsonl'}: holds no chat; write {{")
    assert not (tmp_path / "q.jsonl").exists()


def test_nothing_is_left_of_an_output_that_was_not_finished(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def message_logits(self, chats: Sequence[object]) -> list[float]:
            if len(chats) == 2:  # the second block
                raise KeyboardInterrupt
            return [0.0] * len(chats)

    source = scoring.of_episodes([episodes], PROMPT)
    assert source.total == 6
    monkeypatch.setattr(scoring, "BLOCK", 4)
    for suffix in scoring.FORMATS:
        out = tmp_path / f"q{suffix}"
        out.write_text("before")
        with pytest.raises(KeyboardInterrupt):
            scoring.score(source, Broken(), out)
        assert out.read_text() == "before"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "q.csv"], "--out: 'q.csv' is no .parquet or .jsonl file"),
        (["--out", "q.jsonl", "--prompt", "full"], "--prompt: has no effect with a file of chats"),
    ],
)
def test_flags_are_refused(tmp_path: Path, refusal, flags: list[str], said: str) -> None:
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat(0, "look")}))
    assert refusal("score", tmp_path / "chats.jsonl", "--prm", classifier(), *flags).startswith(said)
