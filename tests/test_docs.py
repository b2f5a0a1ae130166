"""The documentation is tested: its Python runs, its commands parse, its recipes load, its names exist.

Python blocks are run, a page's in order, and a `text` block right after one is what it prints. Shell lines are only
parsed: `prm-gym` by its own parser, `make` by the targets and variables of the Makefile, `python FILE` by the flags
that stand in the file. YAML blocks are loaded as sections of a recipe. `make docs` checks the links of the site.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from prm_gym import cli
from prm_gym.cli.parser import Parser
from prm_gym.hosts.losses import LABELS
from prm_gym.runs import recipe, recipe_sections

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
OTHER_TOOLS = {"alfworld-download", "export", "pip", "vf-eval", "vllm"}  # of whose lines nothing is checked
OTHER_FLAGS = {"--max_steps", "--pooler-config", "--reward_aggregator", "--tool_configs", "--tools"}
OTHER_FLAGS |= {"--num_machines", "--machine_rank", "--deepspeed_hostfile"}  # of accelerate
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_DOTTED = re.compile(r"\bprm_gym(?:\.\w+)+")


class Block(NamedTuple):
    page: str
    language: str
    text: str
    start: int
    end: int

    @property
    def place(self) -> str:
        return f"{self.page}:{TEXTS[self.page][: self.start].count(chr(10)) + 1}"


def blocks(language: str) -> list[Block]:
    return [block for page in TEXTS for block in blocks_of(page) if block.language == language]


def blocks_of(page: str) -> list[Block]:
    return [Block(page, found[1], found[2], *found.span()) for found in _BLOCK.finditer(TEXTS[page])]


def prose(page: str) -> str:
    return _BLOCK.sub("", TEXTS[page])


def test_every_block_is_of_a_language_that_is_checked():
    known = {"python", "bash", "yaml", "text", "bibtex"}
    assert {block.language for page in TEXTS for block in blocks_of(page)} <= known


# Python


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The games of Getting started; where the demo leaves them, a few games, pi_1 and Q_0, of random weights."""
    pytest.importorskip("alfworld")
    pytest.importorskip("trl")
    from transformers import AutoModelForSequenceClassification

    from prm_gym import provenance
    from prm_gym.envs.households import generate
    from prm_gym.hosts.tiny_model import make_tiny_model
    from prm_gym.prompts import load
    from prm_gym.provenance.checkpoint_settings import READS, TrainedFor

    folder = tmp_path_factory.mktemp("world")
    demo = folder / "runs" / "demo"
    generate(folder / "games", preset="small", splits={"train": 20}, seed=0, progress=False)
    generate(demo / "games", preset="small", splits={"train": 2, "valid_unseen": 2}, seed=11, progress=False)
    model, q = demo / "pi_1", demo / "iter1" / "prm"
    for each in (model, q):
        each.mkdir(parents=True)
        make_tiny_model(each, ["You see a mug 1 and a desk 2. Task: put a mug in desk."] * 20, hidden_size=16, heads=1)
        settings = {"kind": "training", "trained_for": TrainedFor(load("compact"), 16, 0.3).as_dict()}
        provenance.write(each, settings if each is model else {**settings, "reads": READS})
    AutoModelForSequenceClassification.from_pretrained(q, num_labels=1).save_pretrained(q)
    return folder


@pytest.mark.parametrize("page", [page for page in TEXTS if any(b.language == "python" for b in blocks_of(page))])
def test_python_blocks_run_and_print_what_is_shown(page, tmp_path, monkeypatch, capsys, request):
    if re.search(r"find_games|alfworld\(", TEXTS[page]):
        shutil.copytree(request.getfixturevalue("world"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    found = blocks_of(page)
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.language != "python":
            continue
        try:
            exec(compile(block.text, block.place, "exec"), names)
        except ModuleNotFoundError as error:  # a bridge to a package that is not here
            if page != "docs/bridges.md" or str(error.name).startswith("prm_gym"):
                raise
            continue
        printed = capsys.readouterr().out
        if after and after.language == "text" and not TEXTS[page][block.end : after.start].strip():
            assert printed == after.text, after.place


# Commands


@cache
def commands() -> dict[str, Parser]:
    """The parsers by their words: `label monte_carlo`."""

    def below(parser: Parser, words: str = "") -> Iterator[tuple[str, Parser]]:
        yield words.strip(), parser
        for action in parser.filled()._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    yield from below(inner, f"{words} {name}")

    return dict(below(cli._parser()))


def flags(parser: Parser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


def shell_lines() -> list[tuple[str, str]]:
    return [
        (block.place, line)
        for block in blocks("bash")
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.split("#")[0].strip()
    ]


@pytest.mark.parametrize(("place", "line"), shell_lines())
def test_shell_lines_parse(place, line, capsys):
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        words.pop(0)
    tool, rest = words[0], words[1:]
    values = [word.partition("=")[2] or word for word in rest]
    assert all((ROOT / value).exists() for value in values if value.startswith("recipes/"))
    if tool == "prm-gym":
        try:
            cli._parser().parse_args(rest)
        except SystemExit:
            pytest.fail(capsys.readouterr().err)
    elif tool == "make":
        makefile = (ROOT / "Makefile").read_text()
        for word in rest:
            name, is_variable, _ = word.partition("=")
            assert f"$({name})" in makefile if is_variable else re.search(rf"^{name}:", makefile, re.MULTILINE), word
    elif tool == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1])
    elif tool in ("python", "pytest"):
        program = (ROOT / rest[0]).read_text()
        assert all(word in program for word in rest[1:] if word.startswith("--"))
    else:
        assert tool in OTHER_TOOLS


def inline_commands() -> list[tuple[str, str]]:
    return [(page, code) for page in TEXTS for code in _INLINE.findall(prose(page)) if re.match("prm-gym [a-z]", code)]


@pytest.mark.parametrize(("page", "code"), inline_commands())
def test_inline_commands_name_commands_and_flags_that_exist(page, code):
    words = re.sub(r"[\[\],]|\.\.\.", " ", code).split()[1:]
    chosen = [parser for name, parser in commands().items() if name.split()[:1] == words[:1]]
    assert chosen, f"no command {words[0]}"
    known = set().union(*map(flags, chosen))
    assert {word for word in words if word.startswith("--")} <= known


def test_inline_flags_exist():
    known = set().union(*map(flags, commands().values())) | OTHER_FLAGS
    for page in TEXTS:
        for code in _INLINE.findall(prose(page)):
            if code.startswith("--") and not code.startswith("--8<--"):
                assert code.split()[0] in known, f"{page}: {code}"


def test_the_table_of_commands_has_them_all():
    table = TEXTS["README.md"].partition("[start:commands]")[2].partition("[end:commands]")[0]
    listed = [row.split()[0] for row in re.findall(r"^\| `prm-gym ([^`]+)`", table, re.MULTILINE)]
    assert sorted(listed) == sorted({name.split()[0] for name in commands() if name})


# Recipes, names, links, errors


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_yaml_blocks_are_parts_of_a_recipe(block, tmp_path):
    folder = shutil.copytree(ROOT / "recipes" / "embedded", tmp_path / "recipe")
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    part = yaml.safe_load(block.text)
    if "env" in part:
        del values["games"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**values, **part}))
    if "labels" in part:  # the loss of prm.yaml goes with it
        prm = yaml.safe_load((folder / "prm.yaml").read_text())
        kind = part["labels"].get("kind", "monte_carlo")
        prm["loss"] = next((loss for loss, kinds in LABELS.items() if kind in kinds), prm["loss"])
        (folder / "prm.yaml").write_text(yaml.safe_dump(prm))
    recipe.load(folder)


def of_docs(name: str) -> Any:
    """The module of a hook of the site."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_recipes_has_every_section_and_key():
    """The tables are read from the source without importing it; the dataclasses say what should be in them."""
    from prm_gym.envs.named import NamedEnvironment
    from prm_gym.policies.best_of_n import BestOf
    from prm_gym.ray_cluster import Cluster

    shown = of_docs("recipe_keys").on_page_markdown(TEXTS["docs/recipes.md"]).partition("## Reference")[2]
    tables = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", shown, re.MULTILINE | re.DOTALL))
    written = [each for each in vars(recipe_sections).values() if isinstance(each, type)]
    sections = [each for each in written if each.__module__ == recipe_sections.__name__]
    sections += [BestOf, Cluster, NamedEnvironment]
    assert sorted(tables) == sorted(each.__name__ for each in sections)
    for each in sections:
        rows = re.findall(r"^\| `(\w+)` \| `[^`]+` \| (.+) \|$", tables[each.__name__], re.MULTILINE)
        assert [key for key, _ in rows] == [entry.name for entry in dataclasses.fields(each)]
        for (key, default), entry in zip(rows, dataclasses.fields(each), strict=True):
            none = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
            assert (default == "required") == none, key
            if isinstance(entry.default, str | int | float):
                assert default == f"`{entry.default!r}`"


def test_parameters_on_one_line_are_names_and_descriptions():
    pytest.importorskip("griffe", reason="needs the extra 'docs'")
    rule = "\n----------\n"
    said = f"It does.\n\nParameters{rule}a, b : one\n    more\nc: two\n\nRaises nothing.\n\nReturns\n-------\nint"
    entries = "a, b\n    one\n    more\nc\n    two\n"
    wanted = f"It does.\n\nRaises nothing.\n\n\nParameters{rule}{entries}\nReturns\n-------\nint"
    assert of_docs("parameters").described(said) == wanted
    assert of_docs("parameters").described("Nothing.") == "Nothing."


def resolve(name: str) -> Any:
    """The module, class or function that is called `name`. A bridge is not imported, since its package may be missing:
    its source must define or export the name.
    """
    parts = name.split(".")
    if parts[:2] == ["prm_gym", "bridges"] and len(parts) > 2:
        module = importlib.util.find_spec(".".join(parts[:3]))
        assert module is not None, name
        assert module.origin is not None, name
        source = Path(module.origin).read_text()
        assert all(re.search(rf'^(class|def) {part}\b|"{part}"', source, re.MULTILINE) for part in parts[3:]), name
        return module
    for length in range(len(parts), 0, -1):
        with suppress(ImportError):
            found = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part)
            return found
    raise AssertionError(name)


@pytest.mark.parametrize("page", TEXTS)
def test_names_of_the_package_exist(page):
    pytest.importorskip("trl")
    text = TEXTS[page].replace("prm_gym.labels.KIND", "prm_gym.labels.sft")
    for name in sorted(set(_DOTTED.findall(text))):
        resolve(name)
    for name, _, members in re.findall(r"^::: (\S+)\n( +options:\s.*?members: \[([^\]]+)\])?", text, re.M | re.S):
        for member in filter(None, members.split(", ")):
            resolve(f"{name}.{member}")


def slug(heading: str) -> str:
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_and_headings(page):
    for target, anchor in _LINK.findall(prose(page)):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in {slug(line) for line in re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)}


def test_errors_explained_are_errors_raised():
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    rows = re.findall(r"^\| ((?:`[^`]+`[^|`]*)+) \|", TEXTS["docs/troubleshooting.md"], re.MULTILINE)
    messages = [message for row in rows for message in _INLINE.findall(row)]
    assert len(messages) > 40
    for message in messages:
        for part in re.split(r"\.\.\.|: ", message):
            assert part.strip(" ',()") in source, message
