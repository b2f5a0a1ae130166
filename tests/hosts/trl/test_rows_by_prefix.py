"""Rows grouped by prefix: scores, loss and gradients are those of every row on its own."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
import datasets
import torch
from hypothesis import given
from hypothesis import strategies as st
from prefix_models import FAMILIES, Padding, Wrapped, assert_same, model_of
from torch.nn.functional import binary_cross_entropy_with_logits

from prm_gym.hosts.losses import FIRST, SECOND
from prm_gym.hosts.trl import rows_by_prefix

GAMMA = 0.9
# An episode, a branch that leaves it after its first turn, and an episode of another game with the same beginning.
EPISODE = [[7, 8, 9], [7, 8, 9, 10, 11, 12], [7, 8, 9, 10, 11, 12, 13, 14, 15]]
BRANCH = [[7, 8, 9, 10, 20], [7, 8, 9, 10, 20, 21, 22]]
ROWS = [
    {FIRST: ids, "game_id": "g", "target": target}
    for ids, target in zip([*EPISODE, *BRANCH], [0.1, 0.3, 0.9, 0.5, 0.0], strict=True)
] + [{FIRST: EPISODE[0], "game_id": "h", "target": 1.0}]
# The next action of the second row is another than the episode's, that of the third yet another; nothing follows the
# fourth.
TRANSITIONS = [
    {FIRST: EPISODE[0], SECOND: EPISODE[1], "terminated": False, "expert": True, "game_id": "g"},
    {FIRST: EPISODE[1], SECOND: [*EPISODE[1], 30, 31], "terminated": False, "expert": False, "game_id": "g"},
    {FIRST: EPISODE[1], SECOND: [*EPISODE[1], 32], "terminated": False, "expert": True, "game_id": "g"},
    {FIRST: EPISODE[2], SECOND: EPISODE[2], "terminated": True, "expert": True, "game_id": "g"},
    {FIRST: BRANCH[0], SECOND: BRANCH[1], "terminated": False, "expert": False, "game_id": "g"},
]


def groups(rows: list[dict[str, Any]]) -> datasets.Dataset:
    return rows_by_prefix.by_prefix(datasets.Dataset.from_list(rows))


def one_by_one(model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """Equation 2, or line 8 of Algorithm 2, of each row alone."""

    def q(ids: list[int]) -> torch.Tensor:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits.squeeze()

    losses = []
    for row in rows:
        logit, wanted = q(row[FIRST]), row.get("target", float(row.get("expert", 0)))
        if SECOND in row and not row["terminated"]:
            logit = logit - GAMMA * q(row[SECOND])
        losses.append(binary_cross_entropy_with_logits(logit, torch.tensor(wanted)))
    return torch.stack(losses).mean()


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=12))
def test_chains_hold_every_sequence_once_and_begin_one_another(sequences: list[list[int]]) -> None:
    found = rows_by_prefix.chains(sequences)
    assert sorted(index for chain in found for index in chain) == list(range(len(sequences)))
    for chain in found:
        for shorter, longer in pairwise(chain):
            assert sequences[longer][: len(sequences[shorter])] == sequences[shorter]
    longest = [sequences[chain[-1]] for chain in found]
    assert not any(a[: len(b)] == b for i, a in enumerate(longest) for j, b in enumerate(longest) if i != j)


def test_an_episode_is_a_group_and_a_branch_is_another() -> None:
    found = [(group["sequences"], group[FIRST], group["target"], group["length"]) for group in groups(ROWS)]
    assert found == [
        ([EPISODE[2]], [[0, 2], [0, 5], [0, 8]], [0.1, 0.3, 0.9], 9),
        ([BRANCH[1]], [[0, 4], [0, 6]], [0.5, 0.0], 7),
        ([EPISODE[0]], [[0, 2]], [1.0], 3),
    ]


def test_rows_without_a_game_are_compared_with_all_others() -> None:
    found = groups([{FIRST: row[FIRST], "target": row["target"]} for row in ROWS])
    assert sorted(len(group[FIRST]) for group in found) == [2, 4]


def test_a_row_weighs_the_same_in_every_batch() -> None:
    """The three groups, each in a batch of its own, have three rows, two and one."""
    model = model_of("Llama")
    batches = [rows_by_prefix.collate([group], Padding()) for group in groups(ROWS)]
    found = torch.stack([rows_by_prefix.loss(model, batch, "soft_bce", GAMMA) for batch in batches]).mean()
    assert found.item() == pytest.approx(one_by_one(model, ROWS).item(), abs=1e-5)


def test_a_wrapped_model_is_called_as_the_trainer_wrapped_it() -> None:
    wrapped = Wrapped(model_of("Llama"))
    rows_by_prefix.loss(wrapped, rows_by_prefix.collate(list(groups(ROWS)), Padding()), "soft_bce", GAMMA)
    assert wrapped.calls == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("loss", "rows"), [("soft_bce", ROWS), ("inverse", TRANSITIONS)])
def test_loss_and_gradients_are_those_of_the_rows_one_by_one(
    family: str, checkpointing: bool, loss: str, rows: list[dict[str, Any]]
) -> None:
    model = model_of(family)
    batch = rows_by_prefix.collate(list(groups(rows)), Padding())
    assert_same(model, one_by_one(model, rows), lambda: rows_by_prefix.loss(model, batch, loss, GAMMA), checkpointing)
