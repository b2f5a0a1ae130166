"""Text environments. The import registers `prm_gym/ALFWorld-v0`; the engine is imported by `gymnasium.make`."""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import WrapperSpec

ALFWORLD = "prm_gym/ALFWorld-v0"
MAX_EPISODE_STEPS = 30  # the paper's
STEP_LIMIT = WrapperSpec("with_own_step_limit", "prm_gym.envs.alfworld:with_own_step_limit", kwargs={})

# gymnasium refuses a vector_entry_point together with additional_wrappers. So `make_vec` gives its SyncVectorEnv, or
# its AsyncVectorEnv, whose shared memory holds the texts by means of `text_space`.
gymnasium.register(
    id=ALFWORLD,
    entry_point="prm_gym.envs.alfworld:ALFWorldEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
    additional_wrappers=(STEP_LIMIT,),
)
