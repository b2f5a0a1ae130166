"""The commits of open-instruct that can be prepared, and what each needs and can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Commit:
    """`patches` are the numbers of those that apply. `requirements` maps a distribution to the versions accepted, as in
    "<5,>=4.50"; empty for any.
    """

    sha: str
    stages: tuple[str, ...]
    patches: frozenset[int]
    python: tuple[tuple[int, int], ...]
    requirements: dict[str, str]


_EITHER = {
    "torch": ">=2.5",
    "accelerate": ">=1.0",
    "deepspeed": "",
    "tensorboard": "",
    "pandas": "",
    "ray": "",
}

# 2025-06-02, the last commit that has both reward_modeling.py and a working online_dpo_vllm_thread.py.
PIN = Commit(
    "49d13e92bc87479e9ddf86433d41b6692d316fb0",
    ("sft", "reward_modeling", "online_dpo", "policy_gradient"),
    frozenset(range(1, 11)),
    ((3, 10), (3, 11)),
    {
        **_EITHER,
        "transformers": "<5,>=4.50",  # 5 removed what this commit imports
        "datasets": "<5",
        "matplotlib": "",
        "peft": "",
    },
)
# 2026-08-20, of main, which has no online DPO. Its reward_modeling.py takes the same patches.
MAIN = Commit(
    "e6c3044aa6201c8bfa4573c1b03142af599e730d",
    ("reward_modeling",),
    frozenset({1, 2, 3}),
    ((3, 12),),
    {
        **_EITHER,
        "transformers": "<5.6,>=5.4",  # 5.6 has the Olmo 2 classifier that this commit registers
        "datasets": ">=4",
        "wandb": "",
        "ai2-olmo-core": "",
    },
)
COMMITS = (PIN, MAIN)
