"""Prompts for Stage 3 (paper, section 4.1): visited states, with Reset-50-50 and Steered Exploration.

A row per distinct state in which an action was chosen: `prompt`; `exploration_prompt`, the same with the request to
explore, to sample from and never to train on; and `source`, `policy` or `expert`. With expert episodes, a given
fraction of the rows are states of the successful ones. A state that both visited counts as the expert's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.stage3_states import check_choice, stage3_states
from prm_gym.labels.turn_texts import visits
from prm_gym.prompts import load
from prm_gym.prompts.hindsight import hindsight_messages

COLUMNS = [("prompt", MESSAGES), ("exploration_prompt", MESSAGES), ("source", pa.string())]


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    expert: Sequence[Path] = (),
    expert_fraction: float = 0.5,
    size: int | None = None,
    hindsight: bool = False,
    prompt: str | None = None,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the prompts.

    Parameters
    ----------
    expert
        Folders of expert episodes (Reset-50-50); none for states of the policy alone.
    expert_fraction
        The share of rows from the expert in each split. If one source is short of states, both are cut.
    size
        At most this many rows, over both splits; all if None.
    hindsight
        At a state of a won episode, the exploration prompt shows how it was won (`prompts.hindsight`), and the policy
        proposes actions with reasons in hindsight, of which Q chooses (PosteriorExplorer).

    The others, and the errors, are as in `monte_carlo.label`.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = {name: value for name, value in locals().items() if expert or name != "expert_fraction"}
    if not hindsight:  # as in datasets of older versions
        del settings["hindsight"]
    check_choice(expert_fraction, size)
    template = load(prompt)
    with (
        Dataset(out, "prompts", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts,
            dataset.work,
            expert=expert,
            weights=weights,
            task_types=task_types,
            seed=seed,
            train_share=train_share,
        ) as source,
    ):
        states, facts = stage3_states(source, expert, expert_fraction, size, seed, prefer_won=hindsight)
        shown = 0
        for texts, row in visits(source, states):
            state = texts.state(row["turn"])
            exploration = template.exploration_messages(state)
            if hindsight and row["won"]:
                exploration = hindsight_messages(template, state, texts.future(row["turn"]))
                shown += 1
            dataset.add(
                row,
                prompt=template.messages(state),
                exploration_prompt=exploration,
                source=row["source"],
            )
        return dataset.finish(source, {**facts, "rows with hindsight": shown} if hindsight else facts)
