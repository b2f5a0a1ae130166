"""A compiled game as a graph of states, built lazily and shared by all plays of the game.

A node is a distinct state; its edges are the commands taken from it so far. Following a known edge is one look-up. A
new state is computed with a few operations on integers, its commands are looked up by the facts they depend on, and its
text is rendered from a template.

Plays may run in several threads: entries are only added, or cleared all together, and computing one twice gives equal
results.
"""

from __future__ import annotations

from prm_gym.envs.engine.axioms import Axioms
from prm_gym.envs.engine.bitsets import mask, numbers, split
from prm_gym.envs.engine.compiled_game import Compiled, Row
from prm_gym.envs.engine.text_rendering import Text, write

BEGINNING = 0  # the number of the first observation


class Operator:
    """An operator: bits to add and to delete, in the state and the history, conditional effects, and its text.

    `left` is the place that a road leaves, 0 for other operators.
    """

    __slots__ = ("added", "conditional", "history_added", "history_taken", "taken", "text")

    def __init__(self, row: Row, history: int, left: int) -> None:
        _, self.text, _, changes, *conditional = row
        self.added, taken = split(changes)
        self.taken = taken | left
        self.history_added = self.taken & history
        self.history_taken = self.added & history
        self.conditional = [(split(needs), split(effects)) for needs, effects in conditional[0]] if conditional else ()

    def apply(self, state: int) -> int:
        """The state after the operator, with derived facts unchanged."""
        after = state & ~self.taken | self.added
        for (true, false), (added, taken) in self.conditional:
            if state & true == true and not state & false:
                after = after & ~taken | added
        return after


class Choices:
    """The commands of a state, sorted, and the rows of those that are not roads. Shared by states that agree in the
    variables they depend on.
    """

    __slots__ = ("commands", "rows")

    def __init__(self, roads: list[str], rows: dict[str, Row]) -> None:
        self.commands = tuple(sorted([*roads, *rows]))
        self.rows = rows


class Node:
    """A state. An edge is (text, next node, operator); the text is None if it depends on the history."""

    __slots__ = ("choices", "edges", "state", "won")

    def __init__(self, state: int, choices: Choices, won: bool) -> None:
        self.state = state
        self.choices = choices
        self.won = won
        self.edges: dict[str, tuple[str | None, Node, Operator]] = {}


class Section:
    """The operators at one place."""

    def __init__(self, reads: str, rows: list[tuple[int, list[Row]]]) -> None:
        self.reads = int(reads, 16)
        self._rows = dict(rows)
        self._always = self._rows.pop(-1, [])
        self._keys = mask(self._rows)

    def applicable(self, state: int) -> dict[str, Row]:
        """The applicable rows in `state`, by command."""
        rows = [*self._always]
        for key in numbers(state & self._keys):
            rows += self._rows[key]
        return {row[0]: row for row in rows if not row[2] or _holds(row[2], state)}


def _holds(needs: str, state: int) -> bool:
    true, false = split(needs)
    return state & true == true and not state & false


class Graph:
    """The states of one game.

    Parameters
    ----------
    tables: the compiled game.
    max_states: the number of cached states. When it is reached, the cache is cleared. Running plays are not affected.
    """

    def __init__(self, tables: Compiled, max_states: int) -> None:
        self.max_states = max_states
        self.task: str = tables["task"]
        self.axioms = Axioms.from_data(tables["axioms"])
        self.places = mask(tables["places"])
        self.start = mask(tables["initial"])
        self.history = mask(tables["history"])
        self._size: int = tables["size"]
        self._goal, self._goal_absent = split(tables["goal"])
        self._texts = [text if isinstance(text, str) else Text(*text) for text in tables["texts"]]
        self._roads: dict[str, Row] = {row[0]: row for row in tables["roads"]}
        self._road_ends = {row[0]: int(row[3]) for row in tables["roads"]}
        self._sections = {place: Section(reads, rows) for place, reads, rows in tables["sections"]}
        self._nodes: dict[int, Node] = {}
        self._choices: dict[tuple[int, int], Choices] = {}
        self._written = 0

    def node(self, state: int) -> Node:
        """The node of a state, with its derived facts recomputed."""
        state = self.axioms.close(state)
        node = self._nodes.get(state)
        if node is None:
            if len(self._nodes) >= self.max_states:
                self.forget()
            won = state & self._goal == self._goal and not state & self._goal_absent
            node = Node(state, self._choices_of(state), won)
            node = self._nodes.setdefault(state, node)
        return node

    def edge(self, node: Node, command: str, history: int) -> tuple[str | None, Node, Operator] | None:
        """The new edge of a command from a node, None if it is not admissible. `history` is that before the command."""
        row, left = node.choices.rows.get(command), 0
        if row is None:
            row, left = self._roads.get(command), node.state & self.places
            if row is None or left in (0, 1 << self._road_ends[command]):
                return None
        operator = Operator(row, self.history, left)
        reached = self.node(operator.apply(node.state))
        history = history & ~operator.history_taken | operator.history_added
        text, depends = self.text(operator.text, reached.state, history)
        edge = node.edges[command] = (None if depends else text, reached, operator)
        return edge

    def text(self, number: int, state: int, history: int) -> tuple[str, bool]:
        """Text `number` in a state, and whether it depends on the history."""
        text = self._texts[number]
        if isinstance(text, str):
            return text, False
        known = (state | history << self._size) & text.reads
        written = text.written.get(known)
        if written is None:
            # Rendered texts are limited too: a state may have many that depend on the history.
            self._written += 1
            if self._written > 4 * self.max_states:
                self.forget()
            facts = {"", *map(str, numbers(known))}
            written = text.written[known] = write(text.template, self._texts, facts)
        return written, text.reads >> self._size != 0

    @property
    def states(self) -> int:
        """The number of cached states."""
        return len(self._nodes)

    def forget(self) -> None:
        """Clear the cache of states. Plays keep their current node, without its edges."""
        nodes = list(self._nodes.values())
        self._nodes.clear()
        self._choices.clear()
        for text in self._texts:
            if isinstance(text, Text):
                text.written.clear()
        self._written = 0
        self.axioms.forget()
        for node in nodes:
            node.edges.clear()

    def _choices_of(self, state: int) -> Choices:
        place = (state & self.places).bit_length() - 1
        here, anywhere = self._sections.get(place) if place >= 0 else None, self._sections.get(-1)
        reads = (here.reads if here else 0) | (anywhere.reads if anywhere else 0)
        key = place, state & reads
        choices = self._choices.get(key)
        if choices is None:
            # A road leads from every place, and from one place only.
            roads = [command for command, end in self._road_ends.items() if end != place] if place >= 0 else []
            rows = {**(here.applicable(state) if here else {}), **(anywhere.applicable(state) if anywhere else {})}
            choices = self._choices.setdefault(key, Choices(roads, rows))
        return choices
