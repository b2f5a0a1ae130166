"""`prm-gym show`: read stored episodes in the terminal, as a list or one turn by turn."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prm_gym.cli.console import console, say, visible
from prm_gym.cli.flag_types import count, name, path
from prm_gym.cli.parser import Commands, add_command
from prm_gym.errors import UserError

if TYPE_CHECKING:
    from prm_gym.types import Episode


def add(commands: Commands) -> None:
    command = add_command(commands, "show", "Read stored episodes: a list of them, or one turn by turn.")
    command.set_defaults(run=run)
    add = command.add_argument
    add("folders", type=path, nargs="+", metavar="EPISODES", help="folders of episodes")
    add(
        "--episode",
        type=name,
        metavar="ID",
        help="show one episode turn by turn, by its id or the beginning of it; default: a list",
    )
    add("--outcome", choices=("won", "lost"), help="list these alone; default: all")
    add("--task-type", type=name, help="list these alone, such as pick_and_place_simple; default: all")
    add("--game", type=name, metavar="TEXT", help="list episodes with this text in the game's name; default: all")
    add("--policy-id", type=name, metavar="NAME", help="list episodes of this policy; default: all")
    add("--limit", type=count, default=20, metavar="N", help="most episodes to list")


def run(options: argparse.Namespace) -> None:
    from prm_gym.store import read_episodes

    episodes = (episode for episode in read_episodes(*options.folders) if _is_wanted(episode, options))
    if options.episode:
        _print(_find(episodes, options.episode))
    else:
        _list(episodes, options.limit)


def _is_wanted(episode: Episode, options: argparse.Namespace) -> bool:
    return (
        options.outcome in (None, "won" if episode.won else "lost")
        and options.task_type in (None, episode.task_type)
        and options.policy_id in (None, episode.policy_id)
        and (options.game or "") in episode.game_id
    )


def _find(episodes: Iterable[Episode], wanted: str) -> Episode:
    found = [episode for episode in episodes if episode.episode_id.startswith(wanted)]
    exact = [episode for episode in found if episode.episode_id == wanted]
    if len(exact or found) != 1:
        remedy = "list the episodes without --episode" if not found else "write more of its id"
        raise UserError("episode", f"{len(exact or found):,} episodes {wanted!r}", remedy)
    return (exact or found)[0]


def _list(episodes: Iterable[Episode], limit: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown: list[Episode] = []
    total = won = 0
    for episode in episodes:
        total, won = total + 1, won + episode.won
        if len(shown) < limit:
            shown.append(episode)
    ids = [episode.episode_id for episode in shown]
    length = next(n for n in range(8, max(map(len, ids), default=0) + 9) if len({i[:n] for i in ids}) == len(set(ids)))
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("Episode", "Ended", "Actions", "Policy", "Task"):
        table.add_column(column, justify="right" if column == "Actions" else "left")
    for e in shown:
        cells = (e.episode_id[:length], str(e.stop_reason), str(e.actions), e.policy_id, e.task)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    if shown:
        console.print(table)
    more = f", {total - len(shown):,} more than listed" if total > len(shown) else ""
    say(f"{total:,} episodes, {won:,} won{more}")


def _print(episode: Episode) -> None:
    say(f"{episode.episode_id} of {episode.policy_id} in {episode.game_id}\nTask: {episode.task}", "bold")
    for turn in episode.turns:
        say(f"\n{turn.observation}")
        if turn.reward is None:
            break
        if turn.reason:
            say(turn.reason, "dim")
        branch = turn.turn == episode.branch_turn and episode.parent_id is not None
        said = "" if turn.action_valid or not turn.admissible_commands else " (not admissible)"
        say(f"> {turn.action}{said}{' (chosen for the branch)' if branch else ''}", "green" if not said else "red")
    say(f"\n{episode.stop_reason} after {episode.actions} actions", "bold")
