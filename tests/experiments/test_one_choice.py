"""The gain of one choice, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.one_choice import Choice
from prm_gym.types import Response, State


def test_the_gain_is_the_value_of_the_choice_less_that_of_the_policy() -> None:
    state = State("game", "task", ("o",), (), ("look", "go to desk 1"))
    responses = [Response(action, "", action) for action in ("look", "go to desk 1", "take mug 1")]
    pi = np.array([0.6, 0.2, 0.1])  # of the actions drawn: 6/9, 2/9, 1/9
    choice = Choice(state, responses, np.log(pi), np.array([0.3, 0.9, 0.0]))
    own = (0.6 * 0.3 + 0.2 * 0.9 + 0.1 * 0.0) / 0.9
    logit = np.array([0.0, 1.2, 1.5])
    assert choice.gain(logit, 0.0) == (pytest.approx(0.0 - own), False)  # the largest logit
    assert choice.gain(logit, 1.0) == (pytest.approx(0.9 - own), True)  # -0.51, -0.41, -0.80 with log pi
    assert choice.gain(logit, 2.0) == (pytest.approx(0.3 - own), True)  # -1.02, -2.02, -3.11
