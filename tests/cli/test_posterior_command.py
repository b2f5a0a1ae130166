"""`prm-gym label posterior` with a model of a server."""

from __future__ import annotations

import pytest

pytest.importorskip("alfworld")

import pyarrow.dataset

from prm_gym.cli import main


def test_a_model_of_a_server_writes_the_reasons(games, server, tmp_path, capsys):
    played = tmp_path / "played"
    assert main(["rollout", "--games", str(games), "--policy", "expert", "--out", str(played)]) == 0
    asked = ["--rollouts", str(played), "--policy", "vendor/big", "--server", server.url, "--samples", "2"]
    assert main(["label", "posterior", *asked, "--prompt", "full", "--out", str(tmp_path / "out")]) == 0
    rows = pyarrow.dataset.dataset(tmp_path / "out" / "data").to_table().to_pylist()
    assert len(rows) == len(server.requests) > 5
    assert all(row["completion"][0]["content"].startswith("REASON: I guess so.\nACTION: ") for row in rows)
    assert {request.body["n"] for request in server.requests} == {2}
    # 7 prompt and 5 response tokens (see fake_server) for each of two samples
    assert f"tokens: prompt {7 * len(rows):,}, response {10 * len(rows):,}" in capsys.readouterr().out


def test_flags_of_a_server_need_one(games, tmp_path, refusal):
    message = refusal(
        "label", "posterior", "--rollouts", games, "--policy", "m", "--served-model", "x", "--out", tmp_path
    )
    assert "--served-model: has no effect without --server" in message


def test_the_expert_is_no_model_and_is_not_asked_for_at_the_hub(games, tmp_path, refusal, monkeypatch):
    monkeypatch.setattr("prm_gym.inference.model_location._not_on_hub", lambda model: pytest.fail("asked the Hub"))
    line = refusal("label", "posterior", "--rollouts", games, "--policy", "expert", "--out", tmp_path / "out")
    assert line.startswith("--policy: expert is no model to sample from; name a model's folder")
