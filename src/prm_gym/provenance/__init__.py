"""The provenance of an artefact: its settings, and content fingerprints of its inputs.

`record` writes and compares `provenance.json`, `fingerprints` identifies checkpoints, prompts, games and datasets,
`checkpoint_settings` reads the settings that a checkpoint was trained for, `model_config` the kind of its model.
"""

from __future__ import annotations

from prm_gym.provenance.record import (
    FILE,
    Settings,
    claim,
    differences,
    digest,
    identity,
    policy_of,
    prompt_of,
    read,
    refuse_others,
    show,
    this_run,
    write,
)

__all__ = [
    "FILE",
    "Settings",
    "claim",
    "differences",
    "digest",
    "identity",
    "policy_of",
    "prompt_of",
    "read",
    "refuse_others",
    "show",
    "this_run",
    "write",
]
