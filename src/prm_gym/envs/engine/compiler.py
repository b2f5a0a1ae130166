"""From a game file to the data that a play needs, once per game.

The result is plain data: numbers, texts and lists. Variables, operators and entities are ordered by name, so that the
same game gives the same bytes whatever order the translator worked in. What this engine cannot prove exact raises
`Unsupported`. `compiled` describes the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from prm_gym.envs.engine import grammar as grammars
from prm_gym.envs.engine.axioms import Axioms
from prm_gym.envs.engine.bits import mask
from prm_gym.envs.engine.compiled import Compiled, Row, Section
from prm_gym.envs.engine.facts import NEGATION, Atom, Entity, FactIndex, View
from prm_gym.envs.engine.invariants import check_commands, exclusive_group
from prm_gym.envs.engine.reading import Placeholder, Reading, read
from prm_gym.envs.engine.sas import Literal, Operator
from prm_gym.envs.engine.texts import Text, Writer
from prm_gym.envs.engine.translate import Translation, translate
from prm_gym.envs.engine.unsupported import Unsupported
from prm_gym.envs.games import Source

INTRO = [["rule", "intro"]]


def compile_game(source: Source) -> Compiled:
    """Translate and check a game. Raises `Unsafe`, `Unsupported` or `UserError` (see `translate`)."""
    grammars.check_safe(source.grammar)
    return _Compiler(source, translate(source)).compile()


class _Compiler:
    """One game on its way. The steps are the methods, in the order of `compile`."""

    def __init__(self, source: Source, translation: Translation) -> None:
        self.source = source
        self.translation = translation
        self.task = translation.task
        self.grammar = grammars.parse(source.grammar, translation.types)
        self.rules = {
            name: [(rule.condition, rule.symbols) for rule in rules] for name, rules in self.grammar.rules.items()
        }
        self.writer = Writer(self.rules)
        self.command_texts: dict[str, Text] = {}
        self.shown = {operator.action: len(operator.arguments) for operator in self.task.operators}
        self.derived = [variable for variable, layer in enumerate(self.task.layers) if layer >= 0]
        self.axioms = Axioms.of_task(self.task)
        start = mask(v for v, true in enumerate(self.task.initial) if true)
        self.start = self.axioms.close(start)
        # What stock's facts hold at the start: the problem's, and those of the planner's state.
        self.facts = set(translation.facts) | {
            fact for variable, fact in enumerate(self.task.facts) if self.start >> variable & 1
        }
        self.entities = self.name_entities()
        self.number = {entity.id: number for number, entity in enumerate(self.entities)}

    def compile(self) -> Compiled:
        self.check_shape()
        index = self.index_of_everything()
        actions = sorted({operator.action for operator in self.task.operators})
        readings = {action: self.read_action(action) for action in actions}
        self.check_readable(readings.values())
        shown = {action: self.shown_parameters(action, readings[action], index) for action in actions}
        history = self.history_variables(readings.values())
        kept = self.kept_variables(readings.values(), history)
        place = exclusive_group(self.task)
        order = sorted(kept, key=lambda v: (self.task.layers[v], self.task.facts[v]))
        renumber = {variable: number for number, variable in enumerate(order)}
        rows, checks = [], []
        for operator in self.task.operators:
            row = self.row(operator, actions.index(operator.action), shown[operator.action], renumber, index)
            rows.append(row)
            checks.append((row[0], repr(row[1:3] + row[5:]), operator.preconditions))
        check_commands(checks, place)
        places = {renumber[variable] for variable in place if variable in renumber}
        roads = _roads(rows, places)
        read_predicates = set().union(*(reading.predicates for reading in readings.values()))
        return Compiled(
            tables={
                "task": self.source.task,
                "intro": self.intro(index),
                "entities": [[entity.id, entity.type, entity.name] for entity in self.entities],
                "facts": [
                    [renumber[v], self.task.facts[v][0], self.numbers_of(self.task.facts[v][1])]
                    for v in order
                    if self.task.facts[v][0] in {name.removeprefix(NEGATION) for name in read_predicates}
                ],
                "always": [
                    [name, self.numbers_of(arguments)]
                    for name, arguments in sorted(self.facts - set(self.task.facts))
                    if name in read_predicates
                ],
                "initial": [renumber[v] for v in order if self.task.initial[v] and self.task.layers[v] == -1],
                "history": sorted(renumber[v] for v in history),
                "goal": _split(self.task.goal, renumber),
                "axioms": self.axioms.as_data(renumber),
                "places": sorted(places),
                "roads": [road for _, road in sorted(roads.items())],
                "rules": {name: self.rules[name] for name in self.rules_of(readings.values())},
                "actions": [[self.grammar.feedback[action], shown[action]] for action in actions],
            },
            sections=_sections([row for row in rows if _road(row) not in roads], places),
        )

    def name_entities(self) -> list[Entity]:
        """Entities in the order of their ids, with the names that alfworld gives to those that stand in a fact."""
        from alfworld.agents.utils.misc import Demangler

        known = {argument for _, arguments in self.facts for argument in arguments}
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

    def index_of_everything(self) -> FactIndex:
        always = [(name, tuple(self.numbers_of(args))) for name, args in sorted(self.facts - set(self.task.facts))]
        variables = {v: (name, tuple(self.numbers_of(args))) for v, (name, args) in enumerate(self.task.facts)}
        return FactIndex(self.entities, always, variables, ())

    def placeholders(self, action: str) -> tuple[Placeholder, ...]:
        """The parameters that an operator has arguments for; those quantified inside the action have none."""
        return self.translation.parameters[action][: self.shown[action]]

    def read_action(self, action: str) -> Reading:
        """What the feedback of an action may read. Its command must depend on facts that never change."""
        placeholders = self.placeholders(action)
        changing = {name for name, _ in self.task.facts}
        for name in read(self.rules, self.grammar.commands[action], placeholders).predicates:
            if name.removeprefix(NEGATION) in changing:
                raise Unsupported(f"the command of {action!r} depends on {name!r}, which changes")
        self.command_texts[action] = self.writer.text(self.grammar.commands[action])
        return read(self.rules, self.grammar.feedback[action], placeholders)

    def check_readable(self, readings: Iterable[Reading]) -> None:
        """Stock updates neither derived facts nor, rightly, those that conditional effects change."""
        doubtful = {self.task.facts[v][0] for v in self.derived}
        for operator in self.task.operators:
            doubtful |= {self.task.facts[e.result[0]][0] for e in operator.effects if e.conditions}
        for reading in readings:
            for name in reading.predicates:
                if name.removeprefix(NEGATION) in doubtful:
                    raise Unsupported(f"a text reads {name!r}, which depends on a condition")

    def shown_parameters(self, action: str, reading: Reading, index: FactIndex) -> list[tuple[int, str, str]]:
        """The parameters, as (position, name, type), that the action's feedback can depend on.

        Those are the ones it prints or asks about, and those that stand for an entity which a placeholder of a query
        could otherwise take.
        """
        types: dict[int, set[str]] = defaultdict(set)
        for operator in self.task.operators:
            if operator.action == action:
                for position, argument in enumerate(operator.arguments):
                    types[position].add(self.translation.entities[argument])
        asked, free_types = set(), set()
        for predicate, placeholders, signatures, bound in reading.atoms:
            asked |= set(placeholders)
            atom = Atom(predicate, tuple(placeholders), tuple(map(tuple, signatures)))
            for placeholder, found in zip(placeholders, index.types_at(atom), strict=True):
                if placeholder not in bound:
                    free_types |= found
        return [
            (position, *placeholder)
            for position, placeholder in enumerate(self.placeholders(action))
            if placeholder[0] in reading.variables or placeholder in asked or types[position] & free_types
        ]

    def history_variables(self, readings: Iterable[Reading]) -> set[int]:
        """Facts that some action takes back and some text asks to be absent."""
        asked = {name.removeprefix(NEGATION) for r in readings for name in r.predicates if name.startswith(NEGATION)}
        taken = {e.result[0] for operator in self.task.operators for e in operator.effects if not e.result[1]}
        return {variable for variable in taken if self.task.facts[variable][0] in asked}

    def kept_variables(self, readings: Iterable[Reading], history: set[int]) -> set[int]:
        """All variables that anything reads; the others (such as what was looked at) would only split states."""
        asked = {name for reading in readings for name in reading.predicates}
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

    def row(
        self,
        operator: Operator,
        action: int,
        shown: Sequence[tuple[int, str, str]],
        renumber: dict[int, int],
        index: FactIndex,
    ) -> Row:
        """The operator in the numbering that is kept."""
        always: dict[int, bool] = {}
        sometimes = []
        for effect in operator.effects:
            variable, true = effect.result
            if variable not in renumber:
                continue
            if effect.conditions:
                sometimes.append([*_split(effect.conditions, renumber), renumber[variable], int(true)])
            elif always.setdefault(variable, true) != true:
                raise Unsupported(f"{operator.action!r} adds and takes the same fact")
        if any(renumber[variable] == effect[2] for variable in always for effect in sometimes):
            raise Unsupported(f"{operator.action!r} changes a fact with and without a condition")
        return [
            self.command(operator, index),
            action,
            [self.number[operator.arguments[position]] for position, _, _ in shown],
            *_split(operator.preconditions, renumber),
            *_split(always.items(), renumber),
            sometimes,
        ]

    def command(self, operator: Operator, index: FactIndex) -> str:
        binding = dict(zip(self.placeholders(operator.action), self.numbers_of(operator.arguments), strict=True))
        names = {name: entity for (name, _), entity in binding.items()}
        command = self.command_texts[operator.action]((names, binding, View(index, self.start, 0)))
        if "{" in command or "}" in command:
            raise Unsupported(f"the command of {operator.action!r} has a brace in it")
        return command

    def intro(self, index: FactIndex) -> str:
        read(self.rules, INTRO, ())
        return self.writer.text(INTRO)(({}, {}, View(index, self.start, 0)))

    def rules_of(self, readings: Iterable[Reading]) -> list[str]:
        return sorted(set().union(*(reading.rules for reading in readings)))

    def numbers_of(self, arguments: Iterable[str]) -> list[int]:
        return [self.number[argument] for argument in arguments]


def _split(literals: Iterable[Literal], renumber: dict[int, int]) -> tuple[list[int], list[int]]:
    """The variables that are to be true, and those that are to be false."""
    found = [(renumber[variable], true) for variable, true in literals]
    return sorted(v for v, true in found if true), sorted(v for v, true in found if not true)


def _roads(rows: Iterable[Row], places: set[int]) -> dict[str, Row]:
    """The operators that lead to one place from every other, by `_road`; what they take is the place left behind.

    No other operator has the command of a road.
    """
    commands: dict[str, set[str]] = defaultdict(set)
    begins: dict[str, set[int]] = defaultdict(set)
    found: dict[str, Row] = {}
    for row in rows:
        command, action, shown, required, forbidden, added, taken, sometimes = row
        commands[command].add(_road(row))
        if required == taken and len(taken) == 1 and len(added) == 1 and not forbidden and not sometimes:
            begins[_road(row)] |= set(taken)
            found[_road(row)] = [command, action, shown, [], [], added, [], []]
    return {
        name: road
        for name, road in found.items()
        if set(road[5]) <= places and begins[name] == places - set(road[5]) and commands[road[0]] == {name}
    }


def _road(row: Row) -> str:
    """The same for all operators that differ only in where they begin."""
    command, action, shown, _, _, added, _, _ = row
    return repr([command, action, shown, added])


def _sections(rows: Iterable[Row], places: set[int]) -> list[Section]:
    """Operators by place and key, both left out of what they still require."""
    by_place: dict[int, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    reads: dict[int, set[int]] = defaultdict(set)
    for command, action, shown, required, forbidden, *effects in rows:
        place = next((variable for variable in required if variable in places), -1)
        rest = [variable for variable in required if variable != place]
        key = rest[0] if rest else -1
        reads[place] |= {*rest, *forbidden}
        by_place[place][key].append([command, action, shown, rest[1:], forbidden, *effects])
    return [
        (place, sorted(reads[place]), [(key, sorted(by_place[place][key])) for key in sorted(by_place[place])])
        for place in sorted(by_place)
    ]
