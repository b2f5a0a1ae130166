"""Hide the logs, load reports and progress bars of the libraries below; `prm-gym -v` shows them.

The libraries read these variables when they are imported, and worker processes inherit them. Of Python's warnings only
those of prm_gym are shown, in one line.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SETTINGS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",  # of a training process
}
_OF_TRAINING = "TRANSFORMERS_VERBOSITY"  # would also hide the progress of training


@contextmanager
def hushed() -> Iterator[None]:
    """Enter before the libraries are imported. Variables that the user has set are kept; the rest are restored."""
    new = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(new)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"prm_gym\b")
            warnings.showwarning = _show
            yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def training_environment() -> dict[str, str]:
    """The environment of a host's process, where the progress of training is shown."""
    hushed = os.environ.get(_OF_TRAINING) == _SETTINGS[_OF_TRAINING]
    return {name: value for name, value in os.environ.items() if not (hushed and name == _OF_TRAINING)}


def _show(message: Warning | str, *place: Any, **options: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
