"""`prm-gym COMMAND`: games, rollout, label, evaluate, report, iter, host, doctor; `-h` lists the options of each."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prm_gym.errors import UserError

if TYPE_CHECKING:
    from prm_gym.types import Policy

console = Console()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 2 for input that cannot be used, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], None] = options.run
        run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno is None:
            raise
        print(
            f"error: {error.filename or 'disk'}: {error.strerror}; check the path, its rights and free space",
            file=sys.stderr,
        )
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prm-gym", description="Stage 1 of AgentPRM and InversePRM, and its hosts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    games = add("games", _games, "Generate households in alfworld's format.")
    games.add_argument("out", type=Path)
    games.add_argument("--preset", default="small", help="small (default) or full")
    games.add_argument(
        "--split", default="train=200,valid_seen=50,valid_unseen=50", help="train=N,valid_seen=N,valid_unseen=N"
    )
    games.add_argument("--seed", type=int, default=0)
    games.add_argument("--workers", type=int, default=1)

    compiled = add("compile", _compile, "Compile the games below a folder for the exact engine.")
    compiled.add_argument("folder", type=Path)
    compiled.add_argument("--workers", type=int, default=1)
    compiled.add_argument("--cache", type=Path, help="folder for the compiled games; beside each game by default")
    compiled.add_argument("--strict", action="store_true", help="a damaged game is an error, not a warning")

    rollout = add(
        "rollout", _rollout, "Collect episodes of a policy into a store folder; goes on where it was stopped."
    )
    _add_playing(rollout)
    rollout.add_argument("--out", type=Path, required=True)
    rollout.add_argument("--rollouts-per-game", type=int, default=1)
    rollout.add_argument("--iteration", type=int, default=0)
    rollout.add_argument(
        "--branch-from", type=Path, nargs="+", metavar="DIR", help="branch from these episodes instead"
    )
    rollout.add_argument("--states-per-episode", type=int, default=2)
    rollout.add_argument("--actions-per-state", type=int, default=2)
    rollout.add_argument("--continuations", type=int, default=1)
    rollout.add_argument(
        "--branch-temperature", type=float, help="of the actions at a branch point; default: --temperature"
    )

    label = commands.add_parser("label", help="Make a dataset of collected episodes.")
    kinds = label.add_subparsers(required=True, metavar="KIND")
    from prm_gym.labels import KINDS

    for kind in KINDS:
        _add_label(kinds, kind)

    evaluation = add("evaluate", _evaluate, "Success of a policy on a split, into results.json and a table.")
    _add_playing(evaluation)
    evaluation.add_argument("--out", type=Path, required=True, help="folder for the episodes and results.json")
    evaluation.add_argument("--prm", type=Path, help="a PRM checkpoint, for best-of-N")
    evaluation.add_argument("--best-of", type=int, default=16)

    report = add("report", _report, "What runs achieved, as one HTML file.")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    report.add_argument("--out", type=Path, help="default: report.html in the first run")
    report.add_argument("--episodes", type=int, default=12, help="to read, of each evaluation; default: 12")

    iterate = add("iter", _iterate, "One iteration of Algorithm 1, as a recipe says; goes on where it was stopped.")
    iterate.add_argument("iteration", type=int)
    iterate.add_argument("--recipe", type=Path, required=True)
    iterate.add_argument("--run", dest="run_folder", type=Path, help="default: runs/<recipe's name>")
    iterate.add_argument("--host", choices=["trl", "open-instruct"], help="in place of the recipe's host")

    host = add("host", _host, "Prepare an open-instruct checkout, or undo it.")
    host.add_argument("action", choices=["prepare"])
    host.add_argument("checkout", type=Path)
    host.add_argument("--undo", action="store_true")

    add("doctor", _doctor, "What this environment can do, and what is missing for the rest.")
    return parser


def _add_playing(command: argparse.ArgumentParser) -> None:
    """Options of the commands that play games with a policy."""
    command.add_argument("--games", type=Path, default=os.environ.get("ALFWORLD_DATA"), help="default: $ALFWORLD_DATA")
    command.add_argument("--split", default="train")
    command.add_argument("--max-games", type=int)
    command.add_argument("--policy", required=True, help="expert, random, or the folder of a model")
    command.add_argument("--policy-id", help="its name in the store; default: as --policy")
    command.add_argument(
        "--random-actions", type=float, default=0.0, help="share of the expert's turns taken at random"
    )
    command.add_argument("--server", nargs="+", metavar="URL", help="ask OpenAI-compatible servers for the model")
    command.add_argument("--served-model", metavar="NAME", help="the model's name at the servers; default: --policy")
    command.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable that holds the key")
    command.add_argument("--prompt", default="full", help="full, compact, or a jinja file")
    command.add_argument("--temperature", type=float, default=0.3)
    command.add_argument("--max-new-tokens", type=int, default=256)
    command.add_argument("--max-episode-steps", type=int, default=30)
    command.add_argument("--concurrency", type=int, default=128)
    command.add_argument("--seed", type=int, default=0)


def _add_label(kinds: Any, kind: str) -> None:
    """`prm-gym label KIND`: the options are the keyword arguments of the label's function, with its defaults."""
    from prm_gym.recipe import label_function

    function = label_function(kind)
    text = (inspect.getdoc(function) or "").partition("\n")[0]
    command = kinds.add_parser(
        kind,
        help=text,
        description=inspect.getdoc(sys.modules[function.__module__]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--rollouts", type=Path, nargs="+", required=True, metavar="DIR")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in ("value_fn", "policy"):
            continue
        names.append(parameter.name)
        _add_parameter(command, parameter)
    if kind == "inverse":
        command.add_argument("--policy", type=Path, required=True, metavar="DIR", help="pi_{i-1}, a model's folder")
        command.add_argument("--temperature", type=float, default=0.3)
        command.add_argument("--max-new-tokens", type=int, default=256)
    if kind == "shaping":
        command.add_argument("--value-model", type=Path, metavar="DIR", help="V_mu, trained with the loss `value`")

    def run(options: argparse.Namespace) -> None:
        chosen = {name: getattr(options, name) for name in names}
        if kind == "shaping" and options.value_model:
            from prm_gym.hosts.open_instruct.values import value_function

            chosen["value_fn"] = value_function(options.value_model)
        if kind == "inverse":
            chosen["policy"] = _model(options, options.policy, options.prompt)
        for line in function(options.rollouts, options.out, **chosen).lines():
            console.print(line, highlight=False)

    command.set_defaults(run=run)


def _add_parameter(command: argparse.ArgumentParser, parameter: inspect.Parameter) -> None:
    flag, default = f"--{parameter.name.replace('_', '-')}", parameter.default
    text = str(parameter.annotation)
    if text == "bool":
        command.add_argument(flag, action="store_true")
        return
    kinds: dict[str, Callable[[str], Any]] = {"Path": Path, "float": float, "int": int}
    convert = next((kind for name, kind in kinds.items() if name in text), str)
    required = default is parameter.empty
    help_text = None if required or default in (None, ()) else f"default: {default}"
    command.add_argument(
        flag, type=convert, nargs="+" if "Sequence" in text else None, default=None if required else default,
        required=required, help=help_text,
    )  # fmt: skip


# --- the commands -------------------------------------------------------------------------------------------------


def _games(options: argparse.Namespace) -> None:
    from prm_gym.envs.households import generate

    splits: dict[str, int] = {}
    for part in options.split.split(","):
        name, _, count = part.partition("=")
        if not count.isdigit():
            raise UserError("--split", f"'{part}' is not NAME=COUNT", "write train=200,valid_seen=50,valid_unseen=50")
        splits[name.strip()] = int(count)
    written = generate(options.out, preset=options.preset, splits=splits, seed=options.seed, workers=options.workers)
    console.print(f"{options.out}: " + ", ".join(f"{count} games in {split}" for split, count in written.items()))


def _compile(options: argparse.Namespace) -> None:
    from prm_gym.envs.engine import compile_games
    from prm_gym.envs.games import find_games

    paths = [game.path for game in find_games(options.folder, strict=options.strict)]
    console.print(compile_games(paths, workers=options.workers, cache=options.cache, strict=options.strict))


def _rollout(options: argparse.Namespace) -> None:
    from prm_gym import rollout

    shared = {
        "max_episode_steps": options.max_episode_steps,
        "seed": options.seed,
        "iteration": options.iteration,
        "concurrency": options.concurrency,
    }
    policy, games = _policy(options), _found(options)
    if options.branch_from:
        hot = options.branch_temperature
        summary = rollout.rollout_branches(
            options.branch_from,
            games,
            policy,
            options.out,
            proposals=None if hot is None else _policy(argparse.Namespace(**{**vars(options), "temperature": hot})),
            states_per_episode=options.states_per_episode,
            actions_per_state=options.actions_per_state,
            continuations=options.continuations,
            **shared,
        )
    else:
        many = {"rollouts_per_game": options.rollouts_per_game, "max_games": options.max_games}
        summary = rollout.rollout(games, policy, options.out, **many, **shared)
    console.print(f"{options.out}: {summary.episodes} episodes, {summary.won} won, {summary.failures} failed")


def _evaluate(options: argparse.Namespace) -> None:
    from prm_gym import evaluate, rollout
    from prm_gym.store import read_episodes

    policy, mode = _policy(options), "policy"
    name = policy.policy_id
    if options.prm is not None:
        from prm_gym.policies.best_of_n import BestOfN
        from prm_gym.policies.prm import PRMScorer

        policy, mode = (
            BestOfN(policy, PRMScorer(options.prm, prompt=options.prompt), options.best_of),
            f"best_of_{options.best_of}",
        )
    episodes = options.out / f"{name.replace('/', '_')}_{mode}_{options.split}_{options.seed}"
    rollout.rollout(
        _found(options),
        policy,
        episodes,
        max_games=options.max_games,
        max_episode_steps=options.max_episode_steps,
        seed=options.seed,
        concurrency=options.concurrency,
    )
    prm = None if options.prm is None else str(options.prm)
    result = evaluate.summarise(
        read_episodes(episodes), policy=name, prm=prm, mode=mode, split=options.split, seed=options.seed
    )
    evaluate.add_result(options.out / "results.json", result)
    console.print(evaluate.table(evaluate.read_results(options.out / "results.json")))


def _report(options: argparse.Namespace) -> None:
    from prm_gym.report import write

    out = options.out or options.runs[0] / "report.html"
    for note in write(options.runs, out, episodes=options.episodes):
        console.print(note, highlight=False)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", highlight=False)


def _iterate(options: argparse.Namespace) -> None:
    from prm_gym import evaluate, stage
    from prm_gym.iterate import Run

    run = options.run_folder or Path("runs") / options.recipe.name
    stage.run(Run(options.recipe, run, options.iteration, options.host).stages(), console)
    console.print(evaluate.table(evaluate.read_results(run / "results.json")))


def _host(options: argparse.Namespace) -> None:
    from prm_gym.hosts.open_instruct.prepare import prepare

    for line in prepare(options.checkout, undo=options.undo):
        console.print(line, highlight=False)


def _doctor(options: argparse.Namespace) -> None:
    from prm_gym.doctor import report

    console.print(report())


def _found(options: argparse.Namespace) -> list[Any]:
    from prm_gym.envs.games import find_games

    if options.games is None:
        raise UserError("--games", "no folder of games", "name one, or set ALFWORLD_DATA")
    return find_games(options.games, options.split)


def _policy(options: argparse.Namespace) -> Policy:
    if options.policy == "expert":
        from prm_gym.policies.expert import ExpertPolicy

        return ExpertPolicy(random_actions=options.random_actions)
    if options.policy == "random":
        from prm_gym.policies.random import RandomPolicy

        return RandomPolicy()
    if options.server:
        from prm_gym.policies.server import ServerPolicy

        local = Path(options.policy).is_dir()
        return ServerPolicy(
            options.server,
            options.served_model or options.policy,
            prompt=options.prompt,
            tokenizer=options.policy if local else None,
            temperature=options.temperature,
            max_tokens=options.max_new_tokens,
            policy_id=options.policy_id,
            concurrency=options.concurrency,
            api_key_env=options.api_key_env,
        )
    return _model(options, Path(options.policy), options.prompt, options.policy_id)


def _model(options: argparse.Namespace, folder: Path, prompt: str, policy_id: str | None = None) -> Policy:
    try:
        from prm_gym.policies.hf import TransformersPolicy
    except ImportError as error:
        raise UserError("--policy", f"{error.name} is not installed", "pip install 'prm-gym[trl]'") from None
    return TransformersPolicy(
        folder,
        prompt=prompt,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        policy_id=policy_id,
    )


if __name__ == "__main__":
    sys.exit(main())
