"""What a command refuses: one line that names the flag as it is written, and status 2."""

from __future__ import annotations

import errno
import pickle

import pytest

from prm_gym.errors import UserError, check_range


def test_an_abbreviated_flag_is_unknown(refusal, tmp_path):
    line = refusal("games", tmp_path / "g", "--pre", "small")
    assert line.startswith("--pre: not known here; the nearest is --preset")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["games", "g", "--seed", "-1"], "--seed: "),
        (["games", "g", "--preset", "huge"], "--preset: "),
        (["games", "g", "--split", "train=0"], "--split: "),
        (["label", "shaping", "--rollouts", "r", "--out", "o"], "--values, --value-model: "),
        (
            ["label", "shaping", "--rollouts", "r", "--out", "o", "--value-model", "r"],
            "--value-model: r: no model of V_mu",
        ),
        (["label", "monte_carlo", "--rollouts", "r", "--out", "o", "--train-share", "2"], "--train-share: "),
    ],
)
def test_a_parameter_of_the_library_is_told_as_the_flag(refusal, tmp_path, monkeypatch, arguments, flag):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir()
    assert refusal(*arguments).startswith(flag)


def test_a_full_disk_is_told_with_the_folder_that_is_written(refusal, tmp_path, monkeypatch):
    def fill(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")  # as fsync raises it, without a file

    monkeypatch.setattr("prm_gym.envs.households.generate", fill)
    line = refusal("games", tmp_path / "g")
    assert line == f"{tmp_path / 'g'}: No space left on device; check the path, its rights and free space"


def test_an_error_keeps_its_parts_on_the_way_from_another_process():
    error = UserError("max_games", "got 0", "must be 1 to 4", field="train")
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) == "max_games: train: got 0; must be 1 to 4"
    assert (back.where, back.field) == ("max_games", "train")


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (0, {"least": 1, "most": 2**31 - 1}, "x: got 0; must be at least 1"),
        (2**31, {"least": 1, "most": 2**31 - 1}, "x: got 2147483648; must be at least 1 and at most 2147483647"),
        (float("nan"), {"least": 0, "most": 1}, "x: got nan; must be at least 0 and at most 1"),
        (0.0, {"above": 0, "most": 1}, "x: got 0.0; must be above 0 and at most 1"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_bounds(value, bounds, said):
    with pytest.raises(UserError) as caught:
        check_range("x", value, **bounds)
    assert str(caught.value) == said
