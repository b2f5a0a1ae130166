"""The PRM of --prm, and its prompt."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from prm_gym.cli.flag_types import PROMPTS, name
from prm_gym.cli.parser import Parser

if TYPE_CHECKING:
    from prm_gym.prm.in_process import PRMScorer
    from prm_gym.prompts import Prompt


def add_prompt(command: Parser) -> None:
    text = f"{PROMPTS}; default: as the PRM was trained, else full"
    command.add_argument("--prompt", type=name, help=text)
    command.add_argument("--force", action="store_true", help="take another prompt than the PRM was trained on")


def prompt_of(options: argparse.Namespace) -> Prompt:
    """The prompt of --prompt, else of --prm. Raises `UserError` if the PRM is missing or has another prompt."""
    from prm_gym.inference.model_location import check_model
    from prm_gym.prompts import load
    from prm_gym.provenance.checkpoint_settings import check_prm, prompt_for

    check_model(options.prm, "prm")
    if options.prompt is None:
        return prompt_for(options.prm, None)
    prompt = load(options.prompt)
    check_prm(options.prm, prompt, force=options.force)
    return prompt


def make_prm(options: argparse.Namespace, prompt: Prompt | None) -> PRMScorer:
    """The PRM in this process. Loading takes up to half a minute, so check everything else first."""
    from prm_gym.prm.in_process import PRMScorer

    return PRMScorer(options.prm, prompt=prompt)
