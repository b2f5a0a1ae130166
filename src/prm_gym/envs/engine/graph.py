"""A compiled game as a graph of states, built as it is walked and shared by all plays of the game.

A node is a distinct state; its edges are the commands taken from it so far. Walking a known edge is one look-up.
A new state is computed with a few operations on integers, its commands are looked up by the few facts they depend on,
and its text by the facts that an earlier text of the same kind has read, so that little is ever computed twice.

Plays may run in several threads: what the graph remembers is only ever added, or dropped as a whole, and computing a
thing twice gives equal results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache

from prm_gym.envs.engine.axioms import Axioms
from prm_gym.envs.engine.bits import mask, numbers
from prm_gym.envs.engine.compiled import Row
from prm_gym.envs.engine.facts import Entity, FactIndex, View
from prm_gym.envs.engine.storage import Stored, section
from prm_gym.envs.engine.texts import Writer

Topic = tuple[int, ...]  # what a text is about: an action and its arguments, as numbers


class Operator:
    """What a command does: bits added and taken, the same for the history, and effects with a condition.

    `left` is the place that a road leaves, 0 for other operators.
    """

    __slots__ = ("added", "conditional", "history_added", "history_taken", "taken", "topic")

    def __init__(self, row: Row, history: int, left: int) -> None:
        _, action, shown, _, _, added, taken, conditional = row
        self.topic: Topic = (action, *shown)
        self.added = mask(added)
        self.taken = mask(taken) | left
        self.history_added = self.taken & history
        self.history_taken = self.added & history
        self.conditional = [
            (mask(yes) | mask(no), mask(yes), 1 << variable, bool(true)) for yes, no, variable, true in conditional
        ]

    def apply(self, state: int) -> int:
        """The state after the operator; derived facts are left as they were."""
        after = state & ~self.taken | self.added
        for wanted, value, bit, true in self.conditional:
            if state & wanted == value:
                after = after | bit if true else after & ~bit
        return after


class Choices:
    """The commands of a state, sorted, and the row of each. Shared by all states that agree where it matters."""

    __slots__ = ("commands", "rows")

    def __init__(self, rows: dict[str, Row]) -> None:
        self.commands = tuple(sorted(rows))
        self.rows = rows


class Node:
    """A state. An edge is (text, next node, operator); the text is None where it depends on the history."""

    __slots__ = ("choices", "edges", "state", "won")

    def __init__(self, state: int, choices: Choices, won: bool) -> None:
        self.state = state
        self.choices = choices
        self.won = won
        self.edges: dict[str, tuple[str | None, Node, Operator]] = {}


class Section:
    """The operators at one place, unpacked when their key first holds."""

    def __init__(self, packed: bytes) -> None:
        self.reads, self._keys, self._packed = section(packed)
        self._rows: dict[int, list[tuple[int, int, Row]]] = {}

    def applicable(self, state: int) -> Iterator[Row]:
        """The rows that `state` allows here."""
        keys = [*numbers(state & self._keys)]
        if -1 in self._packed:
            keys.append(-1)
        for key in keys:
            for wanted, value, row in self._rows.get(key) or self._unpack(key):
                if state & wanted == value:
                    yield row

    def _unpack(self, key: int) -> list[tuple[int, int, Row]]:
        unpacked = []
        for row in json.loads(self._packed[key]):
            required, forbidden = row[3], row[4]
            unpacked.append((mask(required) | mask(forbidden), mask(required), row))
        self._rows[key] = unpacked
        return unpacked


class TextMemory:
    """The texts on one topic seen so far, by the facts that they depend on."""

    __slots__ = ("_by_reads",)

    def __init__(self) -> None:
        self._by_reads: dict[tuple[int, int], dict[tuple[int, int], str]] = {}

    def find(self, state: int, history: int) -> tuple[str, bool] | None:
        """The text and whether it depends on the history, if an earlier one depended on facts that are the same."""
        for (state_read, history_read), texts in list(self._by_reads.items()):
            text = texts.get((state & state_read, history & history_read))
            if text is not None:
                return text, history_read != 0
        return None

    def keep(self, view: View, text: str) -> None:
        reads = view.state_read, view.history_read
        self._by_reads.setdefault(reads, {})[view.state & reads[0], view.history & reads[1]] = text


class Graph:
    """The states of one game.

    Parameters
    ----------
    stored: the compiled game.
    max_states: how many states are remembered; beyond it all are forgotten, and remembered anew as they are visited.
        Plays under way are not affected.
    """

    def __init__(self, stored: Stored, max_states: int) -> None:
        tables = stored.tables()
        self.max_states = max_states
        self.task: str = tables["task"]
        self.intro: str = tables["intro"]
        self.axioms = Axioms.from_data(tables["axioms"])
        self.places = mask(tables["places"])
        self.start = mask(tables["initial"])
        self.history = mask(tables["history"])
        required, forbidden = tables["goal"]
        self._goal, self._goal_value = mask(required) | mask(forbidden), mask(required)
        self._index = FactIndex(
            [Entity(*entity) for entity in tables["entities"]],
            [(predicate, tuple(arguments)) for predicate, arguments in tables["always"]],
            {variable: (predicate, tuple(arguments)) for variable, predicate, arguments in tables["facts"]},
            tables["history"],
        )
        writer = _writer(json.dumps(tables["rules"]))
        self._actions = [
            (writer.text(symbols), [(name, kind) for _, name, kind in shown]) for symbols, shown in tables["actions"]
        ]
        self._roads: dict[str, Row] = {row[0]: row for row in tables["roads"]}
        self._sections = {place: Section(packed) for place, packed in stored.sections.items()}
        self._nodes: dict[int, Node] = {}
        self._choices: dict[tuple[int, int], Choices] = {}
        self._texts: dict[Topic, TextMemory] = {}
        self._written = 0

    def node(self, state: int) -> Node:
        """The node of a state; derived facts in it are put right."""
        state = self.axioms.close(state)
        node = self._nodes.get(state)
        if node is None:
            if len(self._nodes) >= self.max_states:
                self.forget()
            node = Node(state, self._choices_of(state), state & self._goal == self._goal_value)
            node = self._nodes.setdefault(state, node)
        return node

    def edge(self, node: Node, command: str, history: int) -> tuple[str | None, Node, Operator] | None:
        """Take a command from a node for the first time; None if it is not admissible. `history` is that before it."""
        row = node.choices.rows.get(command)
        if row is None:
            return None
        left = node.state & self.places if command in self._roads else 0
        operator = Operator(row, self.history, left)
        reached = self.node(operator.apply(node.state))
        history = history & ~operator.history_taken | operator.history_added
        text, depends = self.text(operator.topic, reached.state, history)
        edge = node.edges[command] = (None if depends else text, reached, operator)
        return edge

    def text(self, topic: Topic, state: int, history: int) -> tuple[str, bool]:
        """What the game says on a topic in a state, and whether the history matters to it."""
        memory = self._texts.get(topic)
        if memory is None:
            memory = self._texts.setdefault(topic, TextMemory())
        found = memory.find(state, history)
        if found is None:
            # Texts are bounded as states are: one state may have many, where they depend on the history.
            self._written += 1
            if self._written > 4 * self.max_states:
                self.forget()
                memory = self._texts.setdefault(topic, TextMemory())
            text, shown = self._actions[topic[0]]
            view = View(self._index, state, history)
            binding = dict(zip(shown, topic[1:], strict=True))
            written = text(({name: entity for (name, _), entity in binding.items()}, binding, view))
            memory.keep(view, written)
            found = written, view.history_read != 0
        return found

    @property
    def states(self) -> int:
        """How many states are remembered."""
        return len(self._nodes)

    def forget(self) -> None:
        """Drop all states that are remembered. Plays keep the node they stand on, and nothing else of the old graph."""
        nodes = list(self._nodes.values())
        self._nodes.clear()
        self._choices.clear()
        self._texts.clear()
        self._written = 0
        self.axioms.forget()
        for node in nodes:
            node.edges.clear()

    def _choices_of(self, state: int) -> Choices:
        place = (state & self.places).bit_length() - 1
        here, anywhere = self._sections.get(place), self._sections.get(-1)
        reads = (here.reads if here else 0) | (anywhere.reads if anywhere else 0)
        key = place, state & reads
        choices = self._choices.get(key)
        if choices is None:
            rows = {command: row for command, row in self._roads.items() if row[5] != [place]} if place >= 0 else {}
            for part in {place: here, -1: anywhere}.values():
                if part is not None:
                    rows.update((row[0], row) for row in part.applicable(state))
            choices = self._choices.setdefault(key, Choices(rows))
        return choices


@lru_cache(maxsize=256)
def _writer(rules: str) -> Writer:
    """The compiled rules; nearly all games share theirs."""
    return Writer(json.loads(rules))
