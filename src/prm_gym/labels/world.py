"""World-model steps (paper, section 4.3, step 1): (state, action) -> next observation, to train by the host's SFT.

The rows are conversations with the roles exchanged (`prompts.world`): the user writes actions, the assistant the
observations that follow, and "[won]" after the one that wins. With a multi-turn prompt a row is an episode, otherwise a
turn. Lost episodes count as well as won ones, since the world answers both alike. A branch is a row of its own from its
branch point on; the turns before are its parent's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prm_gym.errors import UserError
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sql_views import Rollouts
from prm_gym.labels.turn_texts import Texts, visits
from prm_gym.prompts import load
from prm_gym.prompts.world import Answer, world_state, write
from prm_gym.types import Message, State

COLUMNS = [("prompt", MESSAGES), ("completion", MESSAGES)]

# The key of the final state covers the whole history, so episodes of one key and outcome are the same conversation.
_KEPT = """
CREATE TABLE kept AS
SELECT min(t.draw_rank) AS draw_rank, count(*) AS copies FROM turns t JOIN episodes e USING (episode) WHERE final
GROUP BY state_key, t.branch, won, e.stop_reason = 'lost'
"""
_TURNS = """
SELECT t.episode, t.turn, t.turn AS first_turn, t.state_key, t.terminated, t.won FROM turns t
SEMI JOIN kept USING (draw_rank) WHERE t.visit
"""
_EPISODES = """
SELECT t.episode, max(t.turn) AS turn, min(t.turn) AS first_turn, arg_max(t.state_key, t.turn) AS state_key,
       bool_or(t.terminated) AS terminated, any_value(t.won) AS won
FROM turns t SEMI JOIN kept USING (draw_rank) WHERE t.visit GROUP BY t.episode
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    prompt: str = "world",
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the world-model steps of all episodes that count, identical ones once.

    `prompt` is a template for `prompts.world`: `world`, `world_compact` or a file. The others, and the errors, are as
    in `monte_carlo.label`. `turn` and `state_key` of a row are those of its last action.
    """
    settings = locals().copy()
    template = load(prompt)
    try:
        template.messages(State(game_id="", task="", observations=("",), actions=(), admissible_commands=None))
    except UserError:
        problem = f"{template.name} lists the admissible commands, which a world model is not told"
        raise UserError("prompt", problem, "name world, world_compact, or a template without them") from None

    def asked(texts: Texts, turn: int) -> list[Message]:
        return template.messages(world_state(texts.state(turn), texts.actions[turn]))

    with (
        Dataset(out, "world", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        source.db.execute(_KEPT)
        steps = 0
        for texts, row in visits(source, _EPISODES if template.multi_turn else _TURNS):
            turn, first = row["turn"], row["first_turn"]
            messages = asked(texts, turn)
            begins = len(asked(texts, first))
            answer = Answer(texts.observations[turn + 1], row["terminated"] and row["won"], row["terminated"])
            said = template.response("", write(answer))
            dataset.add(
                row,
                prompt=messages[:begins],
                completion=[*messages[begins:], {"role": "assistant", "content": said}],
            )
            steps += turn - first + 1
        kept, all_of_them = source.one("SELECT count(*), coalesce(sum(copies), 0)::BIGINT FROM kept")
        return dataset.finish(source, {"steps": steps, "identical episodes left out": all_of_them - kept})
