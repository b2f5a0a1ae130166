"""Text environments, ALFWorld first, and Q in other frameworks: one adapter a file, each with an extra of its own.

    openenv        an OpenEnv server with sessions and snapshots, and its client
    trl            `environment_factory` for TRL's GRPOTrainer
    verifiers      a taskset and a multi-turn environment of verifiers
    skyrl_gym      a multi-turn environment of skyrl-gym
    open_instruct  a `TextRLEnvironment` for GRPO in open-instruct's current main

They share `world` (an environment and its tasks), `text_episode` (an episode played by a model's texts) and `step_q`
(Q(s, a) as the reward of a step). Nothing else in the package imports them, and they import no host's trainer.
"""
