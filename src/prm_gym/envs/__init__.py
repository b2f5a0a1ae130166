"""Text environments. Importing this registers `prm_gym/ALFWorld-v0`; alfworld and the engine load when one is made."""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import WrapperSpec

ALFWORLD = "prm_gym/ALFWorld-v0"
MAX_EPISODE_STEPS = 30  # the paper's
STEP_LIMIT = WrapperSpec("with_own_step_limit", "prm_gym.envs.alfworld:with_own_step_limit", kwargs={})

# Without a vector_entry_point, which gymnasium refuses beside additional_wrappers: `make_vec` makes its SyncVectorEnv
# by default, or its AsyncVectorEnv, whose shared memory carries the texts by `text_space`.
gymnasium.register(
    id=ALFWORLD,
    entry_point="prm_gym.envs.alfworld:ALFWorldEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
    additional_wrappers=(STEP_LIMIT,),
)
