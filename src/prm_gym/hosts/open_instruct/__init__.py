"""open-instruct as the host: prepare a pinned checkout, and launch its own trainers from recipes.

    prm-gym host prepare CHECKOUT                      # once: verify the commit, apply patches/open-instruct
    export OPEN_INSTRUCT=CHECKOUT
    python -m prm_gym.hosts.open_instruct sft RECIPE.yaml [--field value]                # pi_0
    python -m prm_gym.hosts.open_instruct reward_modeling RECIPE.yaml [--field value]    # Stage 2, Q_{i-1}
    python -m prm_gym.hosts.open_instruct online_dpo RECIPE.yaml [--field value]         # Stage 3, pi_i
    python -m prm_gym.hosts.open_instruct policy_gradient RECIPE.yaml [--field value]    # Stage 3 in another way

The host parses the recipe, builds the models and runs the loops. prm_gym replaces parts of it: in Stage 2 by
`tokenized_rows` and `hosts.scored_rows` (rows to token ids), `hosts.losses` and `held_out_loss`; in Stage 3 by
`pair_selection`, `sampling_exchange`, `generators`, `steering` and `policy_gradient`. Nothing here imports torch,
transformers or the host before a launch.
"""

from prm_gym.hosts.open_instruct.prepare import prepare

__all__ = ["prepare"]
