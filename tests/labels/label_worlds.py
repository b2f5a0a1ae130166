"""Small random worlds for the label tests: stochastic trees of episodes, and helpers to read datasets back.

The prompt template writes s out in full, so that a test finds (s, a) in a dataset without the code under test.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, StopReason, Turn

TEMPLATE = """
{%- set multi_turn = false -%}
{%- macro system() -%}{%- endmacro -%}
{%- macro user(task, history, observation, admissible_commands, turn, explore) -%}
{{ task }}{% for past, action in history %}|{{ past }}|{{ action }}{% endfor %}|{{ observation }}
{%- if explore %}|explore{% endif -%}
{%- endmacro -%}
{%- macro response(reason, action) -%}{{ reason }}#{{ action }}{%- endmacro -%}
"""
ACTIONS = ("go", "take", "put")
HORIZON = 5
Key = tuple[str, str]  # the prompt that writes s out, the action


def template(folder: Path) -> str:
    path = folder / "plain.jinja"
    path.write_text(TEMPLATE)
    return str(path)


def prompt_of(episode: Episode, turn: int) -> str:
    """What TEMPLATE gives at s_t."""
    words = [episode.task]
    for past in episode.turns[:turn]:
        words += [past.observation, past.action]
    return "|".join([*words, episode.turns[turn].observation])


def play(
    number: int, *, policy: str = "pi_0", parent: Episode | None = None, branch_turn: int = 0, games: int = 4
) -> Episode:
    """One episode of a random walk; as a branch it follows its parent up to `branch_turn` and then goes its own way."""
    draw = random.Random(f"{policy}:{number}")
    game = parent.game_id if parent else f"game-{draw.randrange(games)}"
    turns = [Turn(**_fields(turn)) for turn in parent.turns[:branch_turn]] if parent else []
    observation = parent.turns[branch_turn].observation if parent else f"start of {game}"
    stop = draw.choice([StopReason.STEP_LIMIT] * 8 + [StopReason.PROMPT_TOO_LONG, StopReason.POLICY_ERROR])
    while len(turns) < HORIZON:
        action = draw.choices(ACTIONS, [3, 2, 1])[0]
        won = draw.random() < 0.25
        turns.append(
            Turn(
                turn=len(turns),
                observation=observation,
                admissible_commands=list(ACTIONS),
                response=f"because {number}.{len(turns)}#{action}",
                reason=f"because {number}.{len(turns)}",
                action=action,
                action_valid=action != "put",
                reward=float(won),
                terminated=won,
            )
        )
        observation = f"saw {draw.randrange(2)}"
        if won:
            stop = StopReason.WON
            break
        if stop is not StopReason.STEP_LIMIT and draw.random() < 0.3:
            break
    turns.append(Turn(turn=len(turns), observation=observation, admissible_commands=list(ACTIONS)))
    return Episode(
        episode_id=f"{policy}-{number:05d}",
        game_id=game,
        split="train",
        task=f"task of {game}",
        task_type=f"type-{game[-1]}",
        policy_id=policy,
        iteration=int(policy[-1]) if policy[-1].isdigit() else 0,
        seed=number,
        stop_reason=stop,
        turns=turns,
        parent_id=parent.episode_id if parent else None,
        branch_turn=branch_turn,
    )


def straight(number: int, actions: int, *, won: bool, game: str = "game-0", policy: str = "pi_0") -> Episode:
    """An episode of `actions` steps with texts of its own."""
    episode = play(number, policy=policy)
    first = replace(episode.turns[0], reward=0.0, terminated=False)
    turns = [
        replace(first, turn=t, observation=f"{game} seen {number}.{t}" if t else f"start of {game}")
        for t in range(actions)
    ]
    turns[-1].reward, turns[-1].terminated = float(won), won
    end = replace(first, turn=actions, observation=f"end {number}", action="", reason="", response="", reward=None)
    stop = "won" if won else "step_limit"
    return replace(episode, game_id=game, task=f"task of {game}", turns=[*turns, end], stop_reason=stop)


def tree(size: int = 150, *, policy: str = "pi_0", branches: int = 60) -> list[Episode]:
    """`size` independent episodes, and `branches` that leave them at some turn."""
    episodes = [play(number, policy=policy) for number in range(size)]
    draw = random.Random(f"branches of {policy}")
    for number in range(size, size + branches):
        parent = draw.choice(episodes)
        episodes.append(
            play(number, policy=policy, parent=parent, branch_turn=draw.randrange(max(1, len(parent.turns) - 1)))
        )
    return episodes


def write(folder: Path, episodes: Iterable[Episode]) -> Path:
    with EpisodeWriter(folder) as writer:
        for episode in episodes:
            writer.add(episode)
    return folder


def rows(out: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The rows of a dataset, both splits together unless one is named."""
    found = []
    for file in sorted((out / "data").glob("*.parquet"), reverse=True):  # train, test
        of = file.stem.partition("-")[0]
        if split in (None, of):
            found += [{**row, "split": of} for row in pq.read_table(file).to_pylist()]
    return found


def text(messages: list[dict[str, str]]) -> str:
    """The content of a chat of one message."""
    (message,) = messages
    return message["content"]


def key_of(row: dict[str, Any]) -> Key:
    return text(row["prompt"]), text(row["completion"]).partition("#")[2]


def counts(episode: Episode) -> bool:
    return episode.stop_reason not in (StopReason.POLICY_ERROR, StopReason.ENV_ERROR)


def discounted(episode: Episode, turn: int, gamma: float) -> float:
    """sum_{k >= t} gamma^(k-t) r_k, written as in Eq. 1."""
    return sum(
        gamma ** (k - turn) * episode.turns[k].reward  # type: ignore[operator]
        for k in range(turn, len(episode.turns) - 1)
    )


def _fields(turn: Turn) -> dict[str, Any]:
    return {name: getattr(turn, name) for name in Turn.__slots__}
