"""Translate PDDL to a grounded planning task with the translator of stock alfworld. Needed to compile, not to play."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prm_gym.envs.engine import sas
from prm_gym.envs.engine.unsupported import Unsupported
from prm_gym.envs.games import Source
from prm_gym.envs.textworld_lock import exclusive
from prm_gym.errors import UserError


@dataclass(frozen=True, slots=True)
class Translation:
    """A game's problem: entities and their types, the facts at the start, and the grounded task.

    `types` lists each type with its supertypes, `parameters` each action's placeholders as (name, type).
    """

    types: tuple[tuple[str, tuple[str, ...]], ...]
    entities: dict[str, str]
    facts: tuple[sas.Fact, ...]
    parameters: dict[str, tuple[tuple[str, str], ...]]
    task: sas.Task


def translate(source: Source) -> Translation:
    """Ground the problem of `source`.

    Raises `UserError` if it is not valid PDDL or the translator is not installed; `Unsupported` if this engine does not
    support it.
    """
    try:
        import fast_downward
    except ImportError as error:
        remedy = "pip install 'prm-gym[alfworld]', or compile the games where it is installed"
        raise UserError(source.path, f"not compiled, and {error.name} is not installed", remedy) from error
    try:
        with exclusive():
            problem, text = fast_downward.pddl2sas(source.domain, source.problem)
    # The translator raises any error of its parser, and calls sys.exit for those it detects.
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "generate or download the game again"
        raise UserError(source.path, f"cannot be translated ({reason})", remedy, field="pddl_problem") from error
    entities = {entity.name: entity.type_name for entity in problem.objects}
    _check_names(entities)
    return Translation(
        types=tuple((kind.name, tuple(kind.supertype_names)) for kind in problem.types),
        entities=entities,
        facts=tuple(fact for item in problem.init if (fact := _fact(item)) is not None),
        parameters={
            action.name: tuple((part.name.strip("?"), part.type_name) for part in action.parameters)
            for action in problem.actions
        },
        task=sas.parse(text),
    )


def _fact(item: Any) -> sas.Fact | None:
    """A fact of the initial state; None for equality and for numbers, which TextWorld omits."""
    if hasattr(item, "predicate"):
        return None if item.predicate == "=" else (item.predicate, tuple(item.args))
    if item.fluent.symbol == "total-cost" or str(item.expression.value).isdigit():
        return None
    raise Unsupported(f"the problem assigns {item.fluent.symbol} something other than a whole number")


def _check_names(entities: dict[str, str]) -> None:
    for name in entities:
        # TextWorld changes the case of these two.
        if name.lower() in ("i", "p"):
            raise Unsupported(f"an entity is called {name!r}")
