"""Plans (paper, section 4.3, step 3): at every turn of a won episode the actions that follow, as the reasoning.

A row is a turn: the response names the next `horizon` actions in its reason and takes the first of them. A model that
is trained on these rows plans, acts, and plans again at the next turn, with the policies that play any other model. The
plans are those of hindsight: they name where things turned out to be, which at that turn the model can only guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prm_gym.errors import check_range
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sft import DEMONSTRATIONS, TURNS
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.turn_texts import check_shows_reasons, visits
from prm_gym.prompts import load

COLUMNS = [("prompt", MESSAGES), ("completion", MESSAGES)]


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    prompt: str | None = None,
    horizon: int = 5,
    valid_only: bool = False,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the plans of the won episodes, identical ones once; branches are left out.

    `horizon` is the number of actions of a plan, fewer near the end. `valid_only` leaves out turns whose action was not
    admissible. The others, and the errors, are as in `monte_carlo.label`. Raises `UserError` also for a prompt whose
    response shows no reason.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = locals().copy()
    check_range("horizon", horizon, least=1, most=2**31)
    template = load(prompt)
    check_shows_reasons(template, "plan")
    with (
        Dataset(out, "plans", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        source.db.execute(DEMONSTRATIONS)
        without = 0
        for texts, row in visits(source, TURNS.replace("$valid_only", str(valid_only))):
            turn = row["turn"]
            if not texts.actions[turn]:
                without += 1
                continue
            following = [action for action in texts.actions[turn : turn + horizon] if action]
            said = template.response(write(following), texts.actions[turn])
            dataset.add(
                row, prompt=template.messages(texts.state(turn)), completion=[{"role": "assistant", "content": said}]
            )
        return dataset.finish(source, {}, {"turns without an action": without})


def write(actions: Sequence[str]) -> str:
    """
    >>> write(["go to desk 1", "take mug 1 from desk 1"])
    'Plan: 1. go to desk 1; 2. take mug 1 from desk 1'
    """
    return "Plan: " + "; ".join(f"{number}. {action}" for number, action in enumerate(actions, 1))
