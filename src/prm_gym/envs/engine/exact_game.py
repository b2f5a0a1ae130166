"""The exact engine's games and plays, which implement `prm_gym.envs.engine_interface`."""

from __future__ import annotations

from collections.abc import Sequence

from prm_gym.envs.engine.file_format import FORMAT, Stored
from prm_gym.envs.engine.state_graph import BEGINNING, Graph, Node
from prm_gym.envs.engine_interface import NOTHING_HAPPENS, Snapshot, pack, unpack
from prm_gym.errors import UserError

ENGINE = f"exact {FORMAT}"  # snapshots contain numbers of the compiled game
_NOTHING = -1  # the number of NOTHING_HAPPENS, beside those of texts


class ExactGame:
    """A compiled game, shared by all its plays."""

    def __init__(self, stored: Stored, max_states: int) -> None:
        self.digest = stored.digest
        self.graph = Graph(stored.tables(), max_states)

    @property
    def task(self) -> str:
        return self.graph.task

    def start(self) -> ExactPlay:
        graph = self.graph
        return ExactPlay(self, graph.node(graph.start), 0, graph.text(BEGINNING, 0, 0)[0], BEGINNING)

    def restore(self, snapshot: Snapshot) -> ExactPlay:
        graph = self.graph
        try:
            told = unpack(snapshot, ENGINE, self.digest)
            changed, history, text = int(told[0], 16), int(told[1], 16), int(told[2])
            if text < _NOTHING:
                raise ValueError("no such text")
            node = graph.node(graph.start ^ changed)
            observation = NOTHING_HAPPENS if text == _NOTHING else graph.text(text, node.state, history)[0]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UserError("snapshot", "damaged", "take it again", field="state") from error
        return ExactPlay(self, node, history, observation, text)


class ExactPlay:
    """One episode: a node, the history, and the last text with its number."""

    __slots__ = ("_graph", "_history", "_node", "_text", "game", "observation")

    def __init__(self, game: ExactGame, node: Node, history: int, observation: str, text: int) -> None:
        self.game = game
        self.observation = observation
        self._graph = game.graph
        self._node = node
        self._history = history
        self._text = text

    @property
    def admissible_commands(self) -> Sequence[str]:
        return self._node.choices.commands

    @property
    def won(self) -> bool:
        return self._node.won

    def step(self, command: str) -> str:
        edge = self._node.edges.get(command)
        if edge is None:
            command = command.strip()
            edge = self._node.edges.get(command) or self._graph.edge(self._node, command, self._history)
            if edge is None:
                self._text = _NOTHING
                self.observation = NOTHING_HAPPENS
                return NOTHING_HAPPENS
        text, self._node, operator = edge
        if operator.history_added or operator.history_taken:
            self._history = self._history & ~operator.history_taken | operator.history_added
        if text is None:
            text = self._graph.text(operator.text, self._node.state, self._history)[0]
        self._text = operator.text
        self.observation = text
        return text

    def fork(self) -> ExactPlay:
        return ExactPlay(self.game, self._node, self._history, self.observation, self._text)

    def snapshot(self) -> Snapshot:
        changed = (self._node.state ^ self._graph.start) & ~self._graph.axioms.derived
        return pack(ENGINE, self.game.digest, [f"{changed:x}", f"{self._history:x}", self._text])
