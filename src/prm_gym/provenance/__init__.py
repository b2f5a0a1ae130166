"""What an artefact was made with: its settings, and content fingerprints of what it was made from.

`record` writes and compares `provenance.json`, `fingerprints` identifies checkpoints, prompts, games and datasets, and
`checkpoint_settings` reads what a checkpoint was trained for.
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
