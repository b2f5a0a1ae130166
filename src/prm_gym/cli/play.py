"""`prm-gym play`: play a game in the terminal, with Q of every admissible command if there is a PRM."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prm_gym.cli.console import console, say, visible
from prm_gym.cli.flag_types import count, path, seed
from prm_gym.cli.parser import Commands, add_command, refuse_idle
from prm_gym.cli.prm_flag import add_prompt, make_prm, prompt_of

if TYPE_CHECKING:
    from prm_gym.envs.alfworld import ALFWorldEnv
    from prm_gym.types import State

_Score = Callable[["State"], list[float]]  # Q of each admissible command; empty if they are too long for Q


def add(commands: Commands) -> None:
    command = add_command(commands, "play", "Play a game yourself: type commands or their numbers, undo, or quit.")
    command.set_defaults(run=run)
    add = command.add_argument
    add("game", type=path, metavar="GAME", help="a game.tw-pddl file, or a folder of games, of which one is drawn")
    add("--seed", type=seed, default=0, help="of the game drawn")
    add("--max-episode-steps", type=count, default=30, metavar="N", help="actions until the game ends")
    add("--prm", type=path, metavar="DIR", help="show Q of every admissible command by this PRM; default: none")
    add_prompt(command)


def run(options: argparse.Namespace) -> None:
    from prm_gym.envs.alfworld import ALFWorldEnv
    from prm_gym.envs.games import find_games
    from prm_gym.rollout import draw_games

    if options.prm is None:
        refuse_idle(options, ("prompt", "force"), "without --prm")
    game: Any = options.game
    if not options.game.is_file():
        [game] = draw_games(find_games(options.game), options.seed, 1)
    score = None if options.prm is None else _scorer(options)
    _play(ALFWorldEnv([game], max_episode_steps=options.max_episode_steps), score)


def _play(env: ALFWorldEnv, score: _Score | None) -> None:
    from prm_gym.types import State

    observation, info = env.reset()
    state = State(info["game_id"], info["task"], (observation,), (), tuple(info["admissible_commands"]))
    say(f"{info['game_file']}\nType a command or its number, `undo` to take the last one back, or `quit`.", "bold")
    past: list[tuple[Any, State]] = []
    end = ""
    while True:
        say(f"\n{state.observations[-1]}")
        if end:
            say(end, "bold")
        else:
            _list(state, score)
        while (typed := _typed(state.admissible_commands or ())) not in ("quit", "undo"):
            if typed and not end:
                break
        if typed == "quit":
            return
        if typed == "undo":
            if past:
                end, (snapshot, state) = "", past.pop()
                env.restore(snapshot)
            continue
        past.append((env.snapshot(), state))
        observation, _, won, truncated, info = env.step(typed)
        seen, done = (*state.observations, observation), (*state.actions, typed)
        commands = tuple(info["admissible_commands"])
        state = replace(state, observations=seen, actions=done, admissible_commands=commands)
        if won or truncated:
            end = f"\n{'Won' if won else 'Not won'} after {state.turn} actions; `undo` or `quit`"


def _typed(commands: tuple[str, ...]) -> str:
    """The typed or numbered command, `undo`, `quit`, or "". End of input and Ctrl-C quit."""
    try:
        typed = console.input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        return "quit"
    if not typed.isdecimal():
        return typed
    number = int(typed) if len(typed) < 6 else 0
    return commands[number - 1] if 1 <= number <= len(commands) else ""


def _list(state: State, score: _Score | None) -> None:
    """Print the admissible commands with their numbers, those of the highest Q in bold."""
    from rich.columns import Columns
    from rich.text import Text

    said = [f"{number:>2} {visible(command)}" for number, command in enumerate(state.admissible_commands or (), 1)]
    lines = [Text(text) for text in said]
    if score and (qs := score(state)):
        best = max(qs)
        lines = [Text(f"{text}  Q {q:.3f}", "bold" if q == best else "") for text, q in zip(said, qs, strict=True)]
    console.print(Columns(lines, padding=(0, 3)))


def _scorer(options: argparse.Namespace) -> _Score:
    from prm_gym.types import Message, PromptTooLong

    prompt = prompt_of(options)
    prm = make_prm(options, prompt)

    def score(state: State) -> list[float]:
        answers = [prompt.response("", command) for command in state.admissible_commands or ()]
        chats: list[list[Message]] = [
            [*prompt.messages(state), {"role": "assistant", "content": answer}] for answer in answers
        ]
        try:
            return prm.score_messages(chats)
        except PromptTooLong:
            return []

    return score
