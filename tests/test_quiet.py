"""Commands and their subprocesses silence the libraries, except for the progress of a training."""

from __future__ import annotations

import os

import pytest

from prm_gym.quiet import hushed, training_environment


def test_a_training_shows_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' Trainer draws no bar where TRANSFORMERS_VERBOSITY is `error`."""
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    with hushed():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
        assert "TRANSFORMERS_VERBOSITY" not in training_environment()
    assert "TRANSFORMERS_VERBOSITY" not in os.environ


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "debug")
    with hushed():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == training_environment()["TRANSFORMERS_VERBOSITY"] == "debug"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "debug"
