"""`prm-gym evaluate --policy react`: a prompted model of a server in the same table, with tokens and cost."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("httpx")

from prm_gym.cli import main


def evaluate(games, server, out, *options):
    played = ["--games", str(games), "--split", "valid_unseen", "--max-episode-steps", "2", "--out", str(out)]
    return main(
        ["evaluate", *played, "--policy", "react", "--server", server.url, "--served-model", "vendor/big", *options]
    )


def test_tokens_and_cost_are_in_the_results_and_below_the_table(games, server, tmp_path, capsys):
    assert evaluate(games, server, tmp_path, "--price", "2.5", "10") == 0
    [row] = json.loads((tmp_path / "results.json").read_text())
    assert (row["policy"], row["mode"], row["prompt"]) == ("react(vendor/big)", "policy", "react")
    # 2 games of 2 turns, each of 7 prompt and 5 response tokens (see fake_server)
    assert (row["prompt_tokens"], row["response_tokens"]) == (28, 20)
    assert row["cost"] == pytest.approx((28 * 2.5 + 20 * 10) / 1e6)
    assert "28 prompt and 20 response tokens, 14 and 10 a game; cost 0.00027" in capsys.readouterr().out
    assert all(request.path.endswith("/chat/completions") for request in server.requests)


def test_examples_are_in_the_prompt(games, server, tmp_path):
    shown = tmp_path / "shown"
    assert main(["rollout", "--games", str(games), "--policy", "expert", "--out", str(shown)]) == 0
    assert evaluate(games, server, tmp_path / "out", "--examples", str(shown), "--shots", "1") == 0
    first = next(message["content"] for message in server.requests[0].body["messages"] if message["role"] == "user")
    assert first.count("Here is a game that was won.") == 1


def test_every_trial_has_a_row(games, server, tmp_path, capsys):
    assert evaluate(games, server, tmp_path, "--trials", "2") == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["mode"] for row in rows] == ["trial_1", "trial_2"]
    # 4 actions in each trial, and two lessons between them
    assert [row["response_tokens"] for row in rows] == [20, 20 + 10 + 20]
    assert "after trial 2" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--policy", "react"],
            "--policy: react prompts a model of a server; give --server URL and --served-model NAME",
        ),
        (["--policy", "expert", "--trials", "2"], "--trials: has no effect without --policy react"),
        (["--policy", "expert", "--price", "1", "2"], "--price: has no effect without --server"),
        (["--policy", "expert", "--shots", "2"], "--shots: has no effect without --policy react"),
        (["--policy", "m", "--world", "engine"], "--world: has no effect without --depth"),
        (["--policy", "m", "--depth", "1"], "--depth: has no effect without --prm"),
        (["--policy", "m", "--prm", "q", "--depth", "1"], "--world: planning needs a world to imagine in"),
    ],
)
def test_flags_without_effect_are_refused(games, tmp_path, refusal, options, message):
    assert message in refusal("evaluate", "--games", games, "--out", tmp_path / "out", *options)
