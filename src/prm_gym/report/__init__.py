"""`prm-gym report RUN... [--out FILE]`: a report on runs as one HTML file that needs no network and no server.

    run folders -> episode_summaries, result_entries, training_logs, gather, trajectories    plain dicts
                -> paired_difference, headline, success_table, success_figures, how_made     the content of the page
                -> page.html, page.css, page.js, downloads.js                                one file

A section without data is left out. All text from a run (observations, model output, names) is untrusted: it is escaped
by jinja or the SVG builder, or embedded as JSON that the script reads with `textContent`. Left out: measurements. The
report shows the output of the stages of a run, and scores a sample of their episodes with Q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prm_gym.errors import UserError
from prm_gym.report import report_file
from prm_gym.report.gather import gather
from prm_gym.report.page import render
from prm_gym.report.trajectories import sample

__all__ = ["write"]


def write(
    runs: Sequence[Path],
    out: Path,
    *,
    episodes: int = 12,
    seed: int = 0,
    tell: Callable[[str], object] = lambda line: None,
) -> None:
    """Write the report of run folders to the file `out`.

    Parameters
    ----------
    runs
        Folders written by `prm-gym iter` or `prm-gym evaluate`.
    episodes
        How many episodes of each evaluation are in the trajectory browser. The same games are chosen in each evaluation
        of a split, spread over the task types by a draw from `seed`.
    tell
        Called with a line for each part that is missing from the report.

    Raises
    ------
    UserError
        `episodes` is negative, a folder is not a run, is empty or has an unreadable file, or `out` cannot be written.
        These are checked before Q scores anything.
    """
    if episodes < 0:
        raise UserError("--episodes", f"{episodes} is no number of episodes", "say 0 or more")
    gathered = [gather(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    report_file.check(out)
    report_file.write(out, render(gathered, sample(gathered, episodes, seed, tell)))


def _names(runs: Sequence[Path]) -> list[str]:
    """The names of the folders, or the paths as given if two names are equal."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]
