"""From a state to chat messages, and from a model's text to an action.

Rollouts, datasets, Stage 3 and best-of-N all use `Prompt`, so a model is trained on the prompts that it will read. A
prompt is a jinja file with `multi_turn` and three macros, `system`, `user` and `response`. `compact` (for models made
from scratch) and `full` (for instruction-tuned models) come with the package; any other is named by its path.
"""

from __future__ import annotations

from prm_gym.prompts.parse import Parsed, format_response, parse
from prm_gym.prompts.render import Prompt, load

__all__ = ["Parsed", "Prompt", "format_response", "load", "parse"]
