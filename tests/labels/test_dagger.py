"""`dagger`: the expert's action at every state of some episodes in a small household, as worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from label_worlds import rows, template, text, write

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.labels import dagger
from prm_gym.types import Episode, StopReason, Turn

START = "You are in the middle of a room. Looking quickly around you, you see a shelf 2, a shelf 1, and a desk 1."
SHELF = "On the shelf 1, you see a mug 1."
TAKEN = "You pick up the mug 1 from the shelf 1."
DESK = "On the desk 1, you see nothing."
GO = ["go to desk 1", "go to shelf 1", "go to shelf 2", "look"]
TAKE, PUT = "take mug 1 from shelf 1", "move mug 1 to desk 1"
COMMANDS = {
    START: GO,
    SHELF: [*GO, TAKE, "examine shelf 1"],
    TAKEN: [*GO, "move mug 1 to shelf 1", "examine shelf 1"],
    DESK: [*GO, PUT, "examine desk 1"],
}
NOTHING = "Nothing happens."


def play(name: str, *steps: tuple[str, str], won: bool = False, policy: str = "pi_0") -> Episode:
    """An episode of (observation, action), with a last observation."""
    turns, here = [], START
    for number, (seen, action) in enumerate(steps):
        here = here if seen == NOTHING else seen
        turns.append(Turn(number, seen, COMMANDS[here], action=action, response=action, action_valid=True, reward=0.0))
    turns[-1].reward, turns[-1].terminated = float(won), won
    turns.append(Turn(len(steps), "the end", GO))
    stop = StopReason.WON if won else StopReason.STEP_LIMIT
    task = "put a mug in desk."
    return Episode(name, "game", "train", task, "pick_and_place_simple", policy, 0, 0, stop, turns)


def labels(out: Path) -> dict[str, str]:
    """{the state as the template writes it, without the task: the action}."""
    found = {text(row["prompt"]).partition("|")[2]: text(row["completion"]).partition("#")[2] for row in rows(out)}
    assert len(found) == len(rows(out))
    return found


def state(*parts: str) -> str:
    return "|".join(parts)


WANDERS = play("w", (START, "go to shelf 1"), (SHELF, "dance"), (NOTHING, TAKE), (TAKEN, "look"))
SUCCEEDS = play("s", (START, "go to shelf 1"), (SHELF, TAKE), (TAKEN, "go to desk 1"), (DESK, PUT), won=True)
OF_WANDERS = {
    state(START, "go to shelf 1", SHELF): TAKE,
    state(START, "go to shelf 1", SHELF, "dance", NOTHING): TAKE,
    state(START, "go to shelf 1", SHELF, "dance", NOTHING, TAKE, TAKEN): "go to desk 1",
}
OF_SUCCEEDS = {
    state(START, "go to shelf 1", SHELF): TAKE,
    state(START, "go to shelf 1", SHELF, TAKE, TAKEN): "go to desk 1",
    state(START, "go to shelf 1", SHELF, TAKE, TAKEN, "go to desk 1", DESK): PUT,
}


@pytest.mark.parametrize(("search", "first"), [("as_listed", "go to shelf 2"), ("rare_first", "go to desk 1")])
def test_every_state_has_the_expert_s_action_whatever_the_policy_did(tmp_path: Path, search: str, first: str) -> None:
    folder = write(tmp_path / "in", [WANDERS])
    report = dagger.label([folder], tmp_path / "out", search=search, prompt=template(tmp_path))
    assert labels(tmp_path / "out") == {START: first, **OF_WANDERS}
    assert report.statistics["share where the action taken is the expert's"] == 0.25  # TAKE, after dancing


def test_states_are_aggregated_over_policies_and_demonstrations_once_each(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / "a", [WANDERS, replace(WANDERS, episode_id="again")]),
        write(tmp_path / "b", [SUCCEEDS]),
    ]
    dagger.label(folders, tmp_path / "out", prompt=template(tmp_path))
    assert labels(tmp_path / "out") == {START: "go to desk 1", **OF_WANDERS, **OF_SUCCEEDS}


def test_a_size_draws_by_the_seed(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", [WANDERS, SUCCEEDS])
    drawn = []
    for seed in (0, 0, 1, 2):
        out = tmp_path / f"out-{seed}"
        dagger.label([folder], out, size=3, seed=seed, prompt=template(tmp_path))
        drawn.append(frozenset(labels(out)))
    assert {len(each) for each in drawn} == {3}
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_another_environment_has_no_expert_that_labels(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", [WANDERS])
    provenance.write(folder, {"kind": "collect", "env": {"name": "Taxi-v4"}})
    with pytest.raises(UserError, match=r"in: is of another environment; .* ALFWorld alone"):
        dagger.label([folder], tmp_path / "out", prompt=template(tmp_path))


def test_an_unknown_search_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="search: no order 'sideways'"):
        dagger.label([tmp_path / "in"], tmp_path / "out", search="sideways", prompt=template(tmp_path))
    assert not list(tmp_path.glob("*out*"))
