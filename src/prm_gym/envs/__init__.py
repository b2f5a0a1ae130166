"""Text environments. Importing this registers `prm_gym/ALFWorld-v0`; alfworld and the engine load when one is made."""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import WrapperSpec

ALFWORLD = "prm_gym/ALFWorld-v0"

gymnasium.register(
    id=ALFWORLD,
    entry_point="prm_gym.envs.alfworld:ALFWorldEnv",
    additional_wrappers=(WrapperSpec("with_own_step_limit", "prm_gym.envs.alfworld:with_own_step_limit", kwargs={}),),
)
