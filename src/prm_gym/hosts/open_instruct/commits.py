"""The commits of open-instruct that can be prepared, and what each needs and can do."""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class Commit:
    """`patches` are the numbers of those that apply. `requirements` maps a distribution to the first version and the
    first version not accepted, as tuples of the leading numbers; None is no bound.
    """

    sha: str
    stages: tuple[str, ...]
    patches: frozenset[int]
    python: tuple[Version, ...]
    requirements: dict[str, tuple[Version | None, Version | None]]


_ANY: tuple[Version | None, Version | None] = (None, None)
_EITHER: dict[str, tuple[Version | None, Version | None]] = {
    "torch": ((2, 5), None),
    "accelerate": ((1, 0), None),
    "deepspeed": _ANY,
    "tensorboard": _ANY,
    "pandas": _ANY,
    "ray": _ANY,
}

# 2025-06-02, the last commit that has both reward_modeling.py and a working online_dpo_vllm_thread.py.
PIN = Commit(
    "49d13e92bc87479e9ddf86433d41b6692d316fb0",
    ("sft", "reward_modeling", "online_dpo", "policy_gradient"),
    frozenset(range(1, 11)),
    ((3, 10), (3, 11)),
    {
        **_EITHER,
        "transformers": ((4, 50), (5,)),  # 5 removed what this commit imports
        "datasets": (None, (5,)),
        "matplotlib": _ANY,
        "peft": _ANY,
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
        "transformers": ((5, 4), (5, 6)),  # 5.6 has the Olmo 2 classifier that this commit registers
        "datasets": ((4,), None),
        "wandb": _ANY,
        "ai2-olmo-core": _ANY,
    },
)
COMMITS = (PIN, MAIN)
