"""`prm-gym world`: how many observations a world model predicts, compared with stored episodes."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from prm_gym.cli.console import console, say, visible
from prm_gym.cli.flag_types import count, path, seed
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.policy_flags import make_model
from prm_gym.errors import UserError

if TYPE_CHECKING:
    from prm_gym.policies.learned_world import LearnedWorld


def add(commands: Commands) -> None:
    text = "The share of observations that a world model predicts, by kind of action and depth."
    command = add_command(commands, "world", text)
    command.set_defaults(run=run, resumes=False)
    add = command.add_argument
    add("world", type=path, metavar="WORLD", help="the world model, trained on a dataset of `prm-gym label world`")
    text = "folders of episodes, whose observations are the truth"
    add("--rollouts", type=path, nargs="+", required=True, metavar="DIR", help=text)
    add("--depth", type=count, default=3, metavar="K", help="steps to imagine from one turn of each episode")
    add("--max-episodes", type=count, metavar="N", help="use the first N episodes; default: all")
    add("--max-new-tokens", type=count, default=256, metavar="N", help="longest observation")
    add("--seed", type=seed, default=0, help="of the turns drawn")
    add("--out", type=path, required=True, metavar="FILE", help="JSON file to write, with all counts")


def run(options: argparse.Namespace) -> None:
    from rich.table import Table
    from rich.text import Text

    from prm_gym.atomic import write_json
    from prm_gym.evaluation.world_quality import measure
    from prm_gym.store import read_episodes

    episodes = islice(read_episodes(*options.rollouts), options.max_episodes)
    world = make_world(options)
    quality = measure(episodes, world, depth=options.depth, seed=options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, quality.as_dict())
    table = Table("Action", *(f"depth {d}" for d in range(1, options.depth + 1)), title="Observations right")
    for kind in (None, *sorted({kind for kind, _ in quality.asked})):
        shares = (quality.share(kind, d) for d in range(1, options.depth + 1))
        table.add_row(
            Text(visible(kind or "all")),
            *(f"{right / asked:.0%} of {asked:,}" if asked else "-" for right, asked in shares),
        )
    console.print(table)
    say(f"{options.out}: {quality.as_dict()['wins']}")


def make_world(options: argparse.Namespace) -> LearnedWorld:
    """The world model in the folder `options.world`, in this process; it answers with the likeliest observation."""
    from prm_gym.inference.model_location import check_model
    from prm_gym.policies.learned_world import LearnedWorld
    from prm_gym.prompts.render import BUILT_IN, load
    from prm_gym.provenance.checkpoint_settings import trained_for

    check_model(options.world, "world")
    folder = Path(options.world)
    trained = trained_for(folder)
    prompt = trained.prompt if trained else load("world")
    if prompt.source in {load(name).source for name in BUILT_IN if not name.startswith("world")}:
        raise UserError("world", f"{folder} is a policy", "name a model trained on `prm-gym label world`")
    model = make_model(argparse.Namespace(**{**vars(options), "temperature": 0}), folder, prompt)
    return LearnedWorld(model, prompt, name=folder.name)
