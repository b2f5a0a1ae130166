"""The form of a compiled game: plain data, which JSON holds. Needs nothing of what compiled it.

Variables, entities and actions are numbers; lists of variables are sorted. A row is one operator:

    [command, action, shown, required, forbidden, added, taken, conditional]

`shown` are the entities that its text can depend on; `required` and `forbidden` the variables that must be true and
false, `added` and `taken` those that become so; `conditional` has `[required, forbidden, variable, becomes]` for every
effect that has a condition of its own, judged by the state before.

The tables:

    task, intro     the task's sentence, and the text that a game begins with
    entities        [id, type, name]
    facts           [variable, predicate, entities]: the variables that texts can read
    always          [predicate, entities]: facts that texts can read and that never change
    initial         the variables that are true at the start
    history         the variables of which texts ask whether they were ever taken back
    goal            [required, forbidden]
    axioms          see `axioms.Axioms`
    places          the variables that say where the agent is: at most one is true
    roads           rows that lead to one place from every other; what they take, the place left, is not listed
    rules           the grammar's rules that feedback needs, see `grammar`
    actions         [symbols of the feedback, [[position, name, type] of what is shown, ...]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Row = list[Any]
# (place, variables that its operators depend on, rows by key), see `Compiled`
Section = tuple[int, list[int], list[tuple[int, list[Row]]]]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A game as data: the tables described above, and the operators by place.

    The place of a section is the variable that says that the agent is there, or -1 for operators that need no place.
    Within it a row is listed under one of the facts it requires, its key (-1 if it requires none), so that only rows
    are looked at whose key is true. Place and key are left out of what a row requires.
    """

    tables: dict[str, Any]
    sections: list[Section]
