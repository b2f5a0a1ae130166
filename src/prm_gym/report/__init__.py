"""`prm-gym report RUN... [--out FILE]`: what runs achieved, as one HTML file that needs no network and no server.

    run folders -> episode_summaries, result_entries, training_logs, gather, trajectories    as plain dicts
                -> paired_difference, headline, success_table, success_figures, how_made     what the page says
                -> page.html, page.css, page.js, downloads.js                                one file

A section whose data a run does not have is left out. All that comes from a run (observations, model output, names) is
text: escaped by jinja or the SVG builder, or put into the page as JSON that the script reads with `textContent`.
Left out: measuring anything. The report shows what the stages of a run wrote, and Q of a sample of their episodes.
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
        Folders that `prm-gym iter` or `prm-gym evaluate` wrote.
    episodes
        How many episodes of each evaluation the trajectory browser holds. The same games are chosen in each
        evaluation of a split, spread over the task types by a draw from `seed`.
    tell
        Called with a line for each thing a reader might miss, as soon as it is known.

    Raises
    ------
    UserError
        `episodes` is negative, a folder is no run, holds nothing to show or a file that cannot be read, or `out`
        cannot be written. All but a disk that fills meanwhile is found before Q scores anything.
    """
    if episodes < 0:
        raise UserError("--episodes", f"{episodes} is no number of episodes", "say 0 or more")
    gathered = [gather(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    report_file.check(out)
    report_file.write(out, render(gathered, sample(gathered, episodes, seed, tell)))


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names, or the paths as given where two would be the same."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]
