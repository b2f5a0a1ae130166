"""Help: every flag has an explanation and its default. Also --version, and the effect of -v."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

import prm_gym
from prm_gym import cli
from prm_gym.cli import label, main
from prm_gym.cli.parser import Parser
from prm_gym.labels import KINDS
from prm_gym.prompts.render import BUILT_IN


def parsers(parser: Parser, name: str = "prm-gym") -> Iterator[tuple[str, Parser]]:
    """Every command without commands of its own."""
    inner = [action for action in parser.filled()._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield name, parser
    for action in inner:
        for command, of in action.choices.items():
            yield from parsers(of, f"{name} {command}")


COMMANDS = dict(parsers(cli._parser()))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_explained_with_its_default(command):
    shown = " ".join(COMMANDS[command].format_help().split())
    for action in COMMANDS[command]._actions:
        assert action.help, action.dest
        if action.required or action.nargs == 0 or not action.option_strings:
            continue
        if action.default in (None, ()) or action.dest == "games":  # its default is told as $ALFWORLD_DATA
            assert "default: " in action.help or "or give --" in action.help, action.dest
        else:
            assert f"default: {' '.join(str(action.default).split())}" in shown, action.dest


@pytest.mark.parametrize("command", ["prm-gym play", "prm-gym score", "prm-gym label sft"])
def test_the_help_of_a_prompt_names_those_of_the_package(command):
    [text] = [action.help for action in COMMANDS[command]._actions if action.dest == "prompt"]
    assert sorted(text.partition(", or a jinja file")[0].split(", ")) == sorted(BUILT_IN)


@pytest.mark.parametrize("kind", KINDS)
def test_every_label_has_an_example_that_parses(kind):
    shown = COMMANDS[f"prm-gym label {kind}"].format_help()
    [example] = re.findall(r"^  prm-gym (label .*)$", shown, re.MULTILINE)
    options = cli._parser().parse_args(shlex.split(example))
    assert options.rollouts


def test_the_labels_of_the_command_line_are_those_of_the_library():
    assert tuple(label.KINDS) == KINDS


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"prm-gym {prm_gym.__version__}\n"


def test_help_imports_no_heavy_package():
    heavy = {"torch", "transformers", "trl", "datasets", "duckdb", "pyarrow", "pandas", "textworld"}
    code = f"import sys; from prm_gym.cli import main; main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    assert shown.startswith("usage: prm-gym")
    assert shown.endswith("\n[]\n")


def test_a_command_leaves_the_environment_as_it_was(tmp_path):
    before = dict(os.environ)
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("arguments", "traceback"), [(["report"], False), (["-v", "report"], True), (["report", "-v"], True)]
)
def test_a_traceback_is_shown_with_v_alone(tmp_path, arguments, traceback):
    command = [sys.executable, "-m", "prm_gym.cli", *arguments, str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert ("Traceback" in done.stderr) == traceback
    assert done.stderr.splitlines()[-1].startswith("error: ")
