"""Demonstrations for supervised fine-tuning: the successful episodes, without duplicates.

With a multi-turn prompt a row is an episode: `prompt` is the chat up to the first user message, `completion` the rest
of the conversation up to the last action. The messages are those of inference. With any other prompt a row is a turn.
Branches are left out, since they begin with the turns of their parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.turn_texts import visits
from prm_gym.prompts import load

COLUMNS = [("prompt", MESSAGES), ("completion", MESSAGES)]

# The key of the final state covers the whole history, so episodes with the same key are the same demonstration.
DEMONSTRATIONS = """
CREATE TABLE demonstrations AS
SELECT min(draw_rank) AS draw_rank, count(*) AS copies FROM turns WHERE won AND NOT branch AND final
GROUP BY state_key, role
"""
TURNS = """
SELECT t.episode, t.turn, t.state_key, t.role FROM turns t SEMI JOIN demonstrations USING (draw_rank)
WHERE t.visit AND (t.action_valid OR NOT $valid_only)
"""
_EPISODES = """
SELECT t.episode, max(t.turn) AS turn, arg_max(t.state_key, t.turn) AS state_key, any_value(t.role) AS role FROM turns t
SEMI JOIN demonstrations USING (draw_rank) WHERE t.visit
GROUP BY t.episode HAVING bool_and(t.action_valid) OR NOT $valid_only
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    exploring: Sequence[Path] = (),
    prompt: str | None = None,
    valid_only: bool = False,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the demonstrations.

    Parameters
    ----------
    exploring
        Folders of demonstrations of exploration, rendered with the exploration prompt. A model trained on them can be
        steered (section 4.1).
    valid_only
        Leave out turns whose action was not admissible; with a multi-turn prompt, episodes with such a turn.

    The others, and the errors, are as in `monte_carlo.label`. `turn` and `state_key` of a row are those of its last
    action.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = {name: value for name, value in locals().items() if exploring or name != "exploring"}
    template = load(prompt)
    with (
        Dataset(out, "sft", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts,
            dataset.work,
            expert=exploring,
            weights=weights,
            task_types=task_types,
            seed=seed,
            train_share=train_share,
        ) as source,
    ):
        source.db.execute(DEMONSTRATIONS)
        sql = (_EPISODES if template.multi_turn else TURNS).replace("$valid_only", str(valid_only))
        for texts, row in visits(source, sql):
            show = template.exploration_messages if row["role"] == "expert" else template.messages
            messages = show(texts.state(row["turn"]))
            first = len(show(texts.state(0))) if template.multi_turn else len(messages)
            dataset.add(
                row,
                prompt=messages[:first],
                completion=messages[first:] + texts.completion(template, row["turn"]),
            )
        kept, all_of_them = source.one("SELECT count(*), coalesce(sum(copies), 0)::BIGINT FROM demonstrations")
        return dataset.finish(source, {"demonstrations": kept, "identical ones left out": all_of_them - kept})
