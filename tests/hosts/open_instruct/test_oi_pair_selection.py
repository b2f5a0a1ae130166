"""The choice of the two responses of a pair: the three rules of `choose_pairs`."""

from __future__ import annotations

import pytest

from prm_gym.hosts.open_instruct.pair_selection import choose_pairs

torch = pytest.importorskip("torch")


def pair(first: float, second: float, first_ended: bool = True, second_ended: bool = True) -> str:
    """What became of one prompt: "first", "second" or "none" chosen."""
    chosen, rejected, weight = choose_pairs(
        torch.tensor([first]), torch.tensor([second]), torch.tensor([first_ended]), torch.tensor([second_ended])
    )
    assert {chosen.item(), rejected.item()} == {0, 1}
    return ("first", "second")[chosen.item()] if weight.item() else "none"


def test_the_higher_score_is_chosen() -> None:
    assert pair(0.2, 0.1) == "first"
    assert pair(-3.0, -1.0) == "second"


def test_a_tie_makes_no_pair() -> None:
    assert pair(0.3, 0.3) == "none"


@pytest.mark.parametrize("score", [-50.0, -1.0, 0.0, 50.0])
def test_a_response_cut_off_never_outranks_one_that_ended(score: float) -> None:
    assert pair(score, 0.0, first_ended=False) == "second"
    assert pair(0.0, score, second_ended=False) == "first"


def test_two_responses_cut_off_make_no_pair() -> None:
    assert pair(5.0, -5.0, first_ended=False, second_ended=False) == "none"


def test_a_score_that_is_no_number_makes_no_pair() -> None:
    assert pair(float("nan"), 0.0) == "none"


def test_indices_are_those_of_the_host() -> None:
    """The host concatenates first and second responses: prompt i has responses i and i + prompts."""
    first, second = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    ended = torch.ones(3, dtype=torch.bool)
    chosen, rejected, weight = choose_pairs(first, second, ended, ended)
    assert chosen.tolist()[:2] == [0, 4]
    assert rejected.tolist()[:2] == [3, 1]
    assert weight.tolist() == [1.0, 1.0, 0.0]
