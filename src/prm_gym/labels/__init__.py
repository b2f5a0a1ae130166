"""From episodes to datasets: one module per label of the paper, each with `label(rollouts, out, ...)`.

| module | paper | rows |
|---|---|---|
| `monte_carlo` | Eq. 1 | Q(s, a), for the soft cross-entropy of Eq. 2 |
| `preferences` | section 2.3 | pairs at one state, for the Bradley-Terry loss |
| `inverse` | Algorithm 2 | transitions of demonstrations and of past policies |
| `value`, `shaping` | Eq. 13 | V_mu(s), and Q mixed with the advantage under mu |
| `prompts` | section 4.1 | states for Stage 3: Reset-50-50, Steered Exploration |
| `rejection_sampling` | section 2.2 | the best of N responses by Q, for Stage 3 by fine-tuning |
| `sft` | section 2.3 | successful demonstrations, for pi_0 |
| `dagger` | [40] | the expert's action at the states of all policies |
| `posterior` | section 4.1 | demonstrations with reasons written in hindsight |
| `world`, `plans` | section 4.3 | world-model steps, and plans as reasoning |

`sql_views` decides which episodes and visits count, `turn_texts` reads their texts, `dataset` writes, `statistics`
summarises. Targets are computed in SQL beside their equations; then the texts are streamed.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

KINDS = (
    "monte_carlo", "preferences", "inverse", "value", "shaping", "prompts", "rejection_sampling", "sft", "dagger",
    "world", "plans", "posterior",
)  # fmt: skip


def label_function(kind: str) -> Callable[..., Any]:
    """`prm_gym.labels.<kind>.label`, for one of `KINDS`."""
    label: Callable[..., Any] = import_module(f"prm_gym.labels.{kind}").label
    return label
