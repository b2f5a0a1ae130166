"""Process reward models for LLM agents: Stage 1 of AgentPRM and InversePRM. `prm_gym.types` maps the package."""

__version__ = "0.1.0"

import prm_gym.envs  # noqa: F401  (registers prm_gym/ALFWorld-v0)
