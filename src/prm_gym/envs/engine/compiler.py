"""Compile a game file to plain data (`compiled_game`), once per game.

Variables, operators and entities are ordered by name, so the same game gives the same bytes, independent of the
translator's order. A game that cannot be proved exact raises `Unsupported`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from prm_gym.envs.engine import grammar as grammars
from prm_gym.envs.engine.axioms import Axioms
from prm_gym.envs.engine.bitsets import mask
from prm_gym.envs.engine.compiled_game import Compiled, Row
from prm_gym.envs.engine.fact_index import NEGATION, Entity, FactIndex, Known
from prm_gym.envs.engine.invariants import check_commands, exclusive_group
from prm_gym.envs.engine.sas import Literal, Operator
from prm_gym.envs.engine.text_dependencies import Placeholder, read
from prm_gym.envs.engine.text_templates import TemplateBuilder
from prm_gym.envs.engine.translate import Translation, translate
from prm_gym.envs.engine.unsupported import Unsupported
from prm_gym.envs.games import Source

# A row of `compiled_game`, with literals as numbers and conditional effects last.
Operation = tuple[str, int, list[int], list[int], list[tuple[list[int], list[int]]]]
INTRO = [["rule", "intro"]]


def compile_game(source: Source) -> Compiled:
    """Translate and check a game. Raises `Unsafe`, `Unsupported` or `UserError` (see `translate`)."""
    grammars.check_safe(source.grammar)
    return _Compiler(source, translate(source)).compile()


class _Compiler:
    """The compilation of one game. Methods are its steps, in the order of `compile`."""

    def __init__(self, source: Source, translation: Translation) -> None:
        self.source = source
        self.translation = translation
        self.task = translation.task
        self.grammar = grammars.parse(source.grammar, translation.types)
        self.rules = {
            name: [(rule.condition, rule.symbols) for rule in rules] for name, rules in self.grammar.rules.items()
        }
        self.shown = {operator.action: len(operator.arguments) for operator in self.task.operators}
        self.changing = {name for name, _ in self.task.facts}
        self.derived = [variable for variable, layer in enumerate(self.task.layers) if layer >= 0]
        self.axioms = Axioms.of_task(self.task)
        start = mask(v for v, true in enumerate(self.task.initial) if true)
        self.start = self.axioms.close(start)
        # Stock's facts at the start: those of the problem and of the planner's state.
        self.always = set(translation.facts) - set(self.task.facts)
        self.facts = self.always | {fact for variable, fact in enumerate(self.task.facts) if self.start >> variable & 1}
        self.entities = self.name_entities()
        self.number = {entity.id: number for number, entity in enumerate(self.entities)}
        # For the intro and the commands, which depend on facts at the start alone.
        at_start = [(name, self.numbers_of(arguments), None) for name, arguments in sorted(self.facts)]
        self.beginnings = TemplateBuilder(self.rules, FactIndex(self.entities, at_start))

    def compile(self) -> Compiled:
        self.check_shape()
        actions = sorted({operator.action for operator in self.task.operators})
        asked = set().union(*map(self.read_action, actions))
        self.check_readable(asked)
        history = self.history_variables(asked)
        kept = self.kept_variables(asked, history)
        place = exclusive_group(self.task)
        order = sorted(kept, key=lambda v: (self.task.layers[v], self.task.facts[v]))
        renumber = {variable: number for number, variable in enumerate(order)}
        texts = self.texts(history, renumber)
        rows, checks = [], []
        for operator in sorted(self.task.operators, key=lambda operator: (operator.action, operator.arguments)):
            row = self.operation(operator, texts, renumber)
            rows.append(row)
            checks.append((row[0], repr((row[1], row[3:])), operator.preconditions))
        check_commands(checks, place)
        places = {renumber[variable] for variable in place if variable in renumber}
        roads = _roads(rows, places)
        return {
            "task": self.source.task,
            "texts": texts.table(),
            "size": len(order),
            "initial": [renumber[v] for v in order if self.task.initial[v] and self.task.layers[v] == -1],
            "history": sorted(renumber[v] for v in history),
            "goal": _encoded(_literals(self.task.goal, renumber)),
            "axioms": self.axioms.as_data(renumber),
            "places": sorted(places),
            "roads": [_row(road) for _, road in sorted(roads.items())],
            "sections": _sections([row for row in rows if _road(row) not in roads], places),
        }

    def name_entities(self) -> list[Entity]:
        """Entities sorted by id, with alfworld's names for those that occur in a fact."""
        from alfworld.agents.utils.misc import Demangler

        known = {argument for _, arguments in {*self.translation.facts, *self.facts} for argument in arguments}
        types = self.translation.entities
        unnamed = {id_: Entity(id_, types[id_], id_) for id_ in sorted(types)}
        names = Demangler(game_infos={id_: unnamed[id_] for id_ in sorted(known)})
        return [
            Entity(id_, types[id_], names.demangle_alfred_name(id_) if id_ in known else "") for id_ in sorted(types)
        ]

    def check_shape(self) -> None:
        for predicate, _ in self.facts | set(self.task.facts):
            if predicate.startswith(NEGATION):
                raise Unsupported(f"a predicate is called {predicate!r}")
        for operator in self.task.operators:
            if operator.action not in self.grammar.commands or operator.action not in self.translation.parameters:
                raise Unsupported(f"the grammar has no action {operator.action!r}")
            for argument in operator.arguments:
                if not self.entities[self.number[argument]].name:
                    raise Unsupported(f"{argument!r} takes part in an action and in no fact")
            for effect in operator.effects:
                if self.task.layers[effect.result[0]] >= 0:
                    raise Unsupported("an action changes a derived fact")

    def placeholders(self, action: str) -> tuple[Placeholder, ...]:
        """The parameters with arguments in operators; variables quantified inside the action have none."""
        return self.translation.parameters[action][: self.shown[action]]

    def read_action(self, action: str) -> set[str]:
        """The predicates that the feedback of an action reads. Its command must depend on constant facts only."""
        placeholders = self.placeholders(action)
        for name in read(self.rules, self.grammar.commands[action], placeholders):
            if name.removeprefix(NEGATION) in self.changing:
                raise Unsupported(f"the command of {action!r} depends on {name!r}, which changes")
        return read(self.rules, self.grammar.feedback[action], placeholders)

    def check_readable(self, asked: Iterable[str]) -> None:
        """Refuse texts that read derived facts or those of conditional effects: stock updates them incorrectly."""
        doubtful = {self.task.facts[v][0] for v in self.derived}
        for operator in self.task.operators:
            doubtful |= {self.task.facts[e.result[0]][0] for e in operator.effects if e.conditions}
        for name in asked:
            if name.removeprefix(NEGATION) in doubtful:
                raise Unsupported(f"a text reads {name!r}, which depends on a condition")

    def history_variables(self, asked: set[str]) -> set[int]:
        """Facts that some action deletes, and whose absence some text reads."""
        taken = {e.result[0] for operator in self.task.operators for e in operator.effects if not e.result[1]}
        return {variable for variable in taken if NEGATION + self.task.facts[variable][0] in asked}

    def kept_variables(self, asked: set[str], history: set[int]) -> set[int]:
        """All variables that are read anywhere; others (such as what was examined) would only split states."""
        kept = {v for v, (name, _) in enumerate(self.task.facts) if name in asked} | history
        kept |= {v for v, _ in self.task.goal}
        kept |= {v for operator in self.task.operators for v, _ in operator.preconditions}
        size = -1
        while size != len(kept):
            size = len(kept)
            for operator in self.task.operators:
                for effect in operator.effects:
                    if effect.result[0] in kept:
                        kept |= {v for v, _ in effect.conditions}
            for axiom in self.task.axioms:
                if axiom.head[0] in kept:
                    kept |= {v for v, _ in axiom.conditions}
        return kept

    def texts(self, history: set[int], renumber: dict[int, int]) -> TemplateBuilder:
        """The builder of feedback texts, with the intro as text number 0."""
        read(self.rules, INTRO, ())
        facts: list[Known] = [(name, self.numbers_of(arguments), None) for name, arguments in sorted(self.always)]
        for variable, number in renumber.items():
            name, arguments = self.task.facts[variable]
            facts.append((name, self.numbers_of(arguments), number))
            if variable in history:
                facts.append((NEGATION + name, self.numbers_of(arguments), len(renumber) + number))
        texts = TemplateBuilder(self.rules, FactIndex(self.entities, facts))
        texts.text([self.beginnings.constant(INTRO, {})], {})
        return texts

    def operation(self, operator: Operator, texts: TemplateBuilder, renumber: dict[int, int]) -> Operation:
        """The operator, in the numbering of the kept variables."""
        always: dict[int, bool] = {}
        sometimes: list[tuple[list[int], list[int]]] = []
        for effect in operator.effects:
            variable, true = effect.result
            if variable not in renumber:
                continue
            if effect.conditions:
                sometimes.append((_literals(effect.conditions, renumber), _literals([effect.result], renumber)))
            elif always.setdefault(variable, true) != true:
                raise Unsupported(f"{operator.action!r} adds and takes the same fact")
        if any(renumber[variable] in (change, ~change) for variable in always for _, (change,) in sometimes):
            raise Unsupported(f"{operator.action!r} changes a fact with and without a condition")
        binding = dict(zip(self.placeholders(operator.action), self.numbers_of(operator.arguments), strict=True))
        command = self.beginnings.constant(self.grammar.commands[operator.action], binding)
        if "{" in command or "}" in command:
            raise Unsupported(f"the command of {operator.action!r} has a brace in it")
        return (
            command,
            texts.text(self.grammar.feedback[operator.action], binding),
            _literals(operator.preconditions, renumber),
            _literals(always.items(), renumber),
            sometimes,
        )

    def numbers_of(self, arguments: Iterable[str]) -> tuple[int, ...]:
        return tuple(self.number[argument] for argument in arguments)


def _literals(literals: Iterable[Literal], renumber: dict[int, int]) -> list[int]:
    return sorted(renumber[variable] if true else ~renumber[variable] for variable, true in literals)


def _encoded(literals: Iterable[int]) -> str:
    """Literals in the format of a compiled game."""
    return " ".join(map(str, literals))


def _row(row: Operation) -> Row:
    """An operation in the format of a compiled game."""
    command, text, needs, changes, sometimes = row
    conditional = [[_encoded(conditions), _encoded(effects)] for conditions, effects in sometimes]
    return [command, text, _encoded(needs), _encoded(changes), *([conditional] if conditional else [])]


def _roads(rows: Iterable[Operation], places: set[int]) -> dict[str, Operation]:
    """The operators that lead to one place from every other, by `_road`, without the place that they leave.

    No other operator may have the command of a road.
    """
    commands: dict[str, set[str]] = defaultdict(set)
    begins: dict[str, set[int]] = defaultdict(set)
    found: dict[str, Operation] = {}
    for row in rows:
        command, text, needs, changes, sometimes = row
        if len(needs) == 1 and [~needs[0]] == changes[:-1] and not sometimes:
            commands[command].add(_road(row))
            begins[_road(row)] |= set(needs)
            found[_road(row)] = command, text, [], changes[-1:], []
        else:
            commands[command].add("something else")
    return {
        name: road
        for name, road in found.items()
        if set(road[3]) <= places and begins[name] == places - set(road[3]) and commands[road[0]] == {name}
    }


def _road(row: Operation) -> str:
    """A key that is equal for operators that differ only in their start."""
    command, text, _, changes, _ = row
    return repr([command, text, [literal for literal in changes if literal >= 0]])


def _sections(rows: Iterable[Operation], places: set[int]) -> list[tuple[int, str, list[tuple[int, list[Row]]]]]:
    """Operators by place and key, without these in their preconditions."""
    by_place: dict[int, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    reads: dict[int, set[int]] = defaultdict(set)
    for command, text, needs, changes, sometimes in rows:
        place = next((need for need in needs if need in places), None)
        rest = [need for need in needs if need != place]
        key = next((need for need in rest if need >= 0), None)
        section = -1 if place is None else place
        reads[section] |= {max(need, ~need) for need in rest}
        row = _row((command, text, [need for need in rest if need != key], changes, sometimes))
        by_place[section][-1 if key is None else key].append(row)
    return [
        (place, f"{mask(reads[place]):x}", [(key, sorted(by_place[place][key])) for key in sorted(by_place[place])])
        for place in sorted(by_place)
    ]
