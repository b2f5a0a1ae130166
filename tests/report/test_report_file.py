"""The file of the report is complete or absent, and checked before any work."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from report_world import make_run

from prm_gym import report
from prm_gym.errors import UserError
from prm_gym.report import report_file


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk, a longer write fails in its midst."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_leaves_what_was_there(tmp_path) -> None:
    out = tmp_path / "r.html"
    out.write_text("before")
    with files_of_at_most(4096), pytest.raises(UserError, match=r"r\.html: .*; free space"):
        report_file.write(out, "x" * 100_000)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def unwritable(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("")
    return {"folder": tmp_path, "device": Path("/dev/null"), "under a file": tmp_path / "file" / "r.html"}


@pytest.mark.parametrize("place", ["folder", "device", "under a file", "full disk"])
def test_a_place_that_cannot_be_written_is_refused_before_q_is_asked(tmp_path, monkeypatch, place) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(report, "sample", lambda *_: pytest.fail("the work has begun"))
    out = unwritable(tmp_path).get(place, tmp_path / "r.html")
    with files_of_at_most(4096 if place == "full disk" else 1 << 30), pytest.raises(UserError) as error:
        report.write([run], out)
    assert str(error.value).startswith(f"{out}: ")
    assert "--out" in str(error.value)


def test_a_store_that_cannot_be_read_is_found_before_q_is_asked(tmp_path, monkeypatch) -> None:
    """Also that of the last iteration."""
    run = make_run(tmp_path / "run", iterations=2)
    monkeypatch.setattr("prm_gym.report.trajectories._scores", lambda *_: pytest.fail("the work has begun"))
    file = sorted((run / "iter2" / "eval" / "pi_2_policy" / "episodes").glob("*.parquet"))[0]
    file.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=file.name):
        report.write([run], tmp_path / "r.html")
