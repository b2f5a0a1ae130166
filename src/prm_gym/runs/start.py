"""The stages before the first iteration: games, demonstrations, the model to start from, and pi_0."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError
from prm_gym.runs.actors import Actors
from prm_gym.runs.recipe_sections import Demonstrations, Scratch
from prm_gym.runs.stage import Cost, Stage
from prm_gym.runs.training import link_to, training
from prm_gym.types import Policy


def games(actors: Actors) -> Stage:
    """Generate the games of the recipe, and compile them."""
    settings = actors.recipe.games
    assert settings is not None

    def make() -> dict[str, Any]:
        from prm_gym.envs.engine import compile_games
        from prm_gym.envs.games import find_games
        from prm_gym.envs.households import generate

        out, workers = actors.root / "games", os.cpu_count() or 1
        written = generate(out, preset=settings.preset, splits=settings.splits, seed=settings.seed, workers=workers)
        compile_games([game.path for game in find_games(out)], workers=workers)
        return {"games": written}

    return Stage(
        "games", actors.root / "games", asdict(settings), make, cost=Cost(episodes=sum(settings.splits.values()))
    )


def pi_0(actors: Actors) -> list[Stage]:
    """The stages up to pi_0, as `recipe_sections.Start` says."""
    start, base = actors.recipe.start, actors.root / "base"
    if start.sft is None:
        given = _given(actors, "pi_0", actors.policy(0), actors.root / "start")
        return [given, *([_collected(actors, "demonstrations")] if start.demonstrations else [])]
    dataset = actors.root / "sft_dataset"
    shown = _demonstrations(actors, dataset)
    trained = training(actors, "sft", actors.policy(0), start.sft)
    if start.model is not None and start.cut_vocabulary:
        return [*shown, _cut(actors, start.model, base, dataset), trained]
    if start.model is not None:
        return [_given(actors, "base", base, actors.root / "start"), *shown, trained]
    if start.scratch is None:
        return [*shown, trained]
    return [*shown, _scratch(actors, start.scratch, dataset), trained]


def _given(actors: Actors, name: str, place: Path, out: Path) -> Stage:
    """Link `place` to the checkpoint that the recipe names."""
    model = actors.recipe.start.model
    assert model is not None

    def link() -> None:
        if not (Path(model) / "config.json").is_file():
            problem = f"no checkpoint folder {model}"
            raise UserError(actors.folder / "recipe.yaml", problem, "download it first", field="start.model")
        link_to(Path(model).resolve(), place)

    return Stage(name, out, {"model": model}, link)


def _cut(actors: Actors, model: str, base: Path, dataset: Path) -> Stage:
    """A pretrained model, reduced to the tokens that the `sft` dataset needs."""

    def make() -> dict[str, Any]:
        from prm_gym.pretrained.checkpoint import conversations, prepare

        return prepare(model, base, conversations([dataset]))._asdict()

    settings = {"model": model, "cut_vocabulary": True}
    return Stage("base with a cut vocabulary", base, settings, make, actors.made_from(dataset))


def _scratch(actors: Actors, sizes: Scratch, dataset: Path) -> Stage:
    """A randomly initialised model, and a tokenizer made from the texts of the `sft` dataset."""
    out = actors.root / "scratch"

    def make() -> None:
        from prm_gym.hosts.tiny_model import make_tiny_model

        make_tiny_model(out, _texts(dataset), **asdict(sizes))

    settings = {key: value for key, value in asdict(sizes).items() if key != "seed" or value}
    return Stage("model from scratch", out, settings, make, actors.made_from(dataset))


def _collected(actors: Actors, name: str) -> Stage:
    """Expert episodes: `demonstrations` or `exploring` of the recipe's `start`."""
    wanted: Demonstrations = getattr(actors.recipe.start, name)
    out, steps = actors.root / name, wanted.max_episode_steps or actors.recipe.max_episode_steps

    def demonstrate() -> dict[str, Any]:
        from prm_gym.policies.environment_expert import EnvironmentExpert
        from prm_gym.policies.expert import ExpertPolicy

        policy: Callable[[], Policy] = partial(EnvironmentExpert, wanted.random_actions, dawdling=wanted.dawdling)
        if actors.recipe.env is None:
            policy = partial(
                ExpertPolicy,
                wanted.random_actions,
                mistakes=wanted.mistakes,
                dawdling=wanted.dawdling,
                search=wanted.search,
            )
        return actors.collect(
            actors.games("train", wanted.games),
            policy,
            out,
            rollouts_per_game=wanted.rollouts_per_game,
            max_games=wanted.games,
            max_episode_steps=steps,
            seed=wanted.seed,
        )

    cost = Cost.of_episodes(wanted.games * wanted.rollouts_per_game, steps)
    settings = {**asdict(wanted), "max_episode_steps": steps}
    return Stage(name, out, settings, demonstrate, actors.made_from(games="train"), cost)


def _demonstrations(actors: Actors, dataset: Path) -> list[Stage]:
    """Collect the expert's episodes and label all of them into `dataset`: `demonstrations` under the recipe's prompt,
    `exploring` under the exploration prompt.
    """
    kinds = ["demonstrations", *(["exploring"] if actors.recipe.start.exploring else [])]
    stages = [_collected(actors, kind) for kind in kinds]
    collected, *exploring = [stage.out for stage in stages]
    shown_as = {"prompt": actors.recipe.prompt, **({"exploring": True} if exploring else {})}

    def label() -> None:
        from prm_gym.labels import sft

        sft.label([collected], dataset, prompt=actors.recipe.prompt, exploring=exploring)

    read, shown = actors.made_from(collected, *exploring), sum(stage.cost.episodes or 0 for stage in stages)
    return [*stages, Stage("sft dataset", dataset, shown_as, label, read, Cost(episodes=shown))]


def _texts(dataset: Path) -> Iterator[str]:
    """The content of every message of an `sft` dataset."""
    from datasets import load_dataset

    for row in load_dataset(str(dataset), split="train"):
        for message in [*row["prompt"], *row["completion"]]:
            yield message["content"]
