"""The format of a compiled game: plain data for JSON. Playing it needs none of the compiler's dependencies.

Variables and texts are numbers. A literal is a variable that is true, or the complement `~variable` of one that is
false. Literals are written as one string, separated by blanks, to save space. A set of variables is a hexadecimal
number. A row is one operator:

    [command, text, needs, changes]  or  [command, text, needs, changes, [[needs, changes], ...]]

`text` is its feedback, `needs` are its preconditions, `changes` its effects, as literals; the last part are conditional
effects, whose conditions are evaluated in the state before.

The tables:

    task        the task's sentence
    texts       texts by number; number 0 is the first observation. A constant text, or
                [bits it depends on, template], see `text_rendering`. Bits from `size` on are the history's
    size        the number of variables
    initial     the variables that are true at the start
    history     the variables whose deletion in the past changes texts
    goal        the literals of the goal
    axioms      see `axioms.Axioms`
    places      the variables of the agent's location; at most one is true
    roads       rows that lead to one place from every other, sorted; the place that they leave is not listed
    sections    [place, variables its operators depend on, [[key, rows], ...]]: the other operators

The place of a section is the variable of the agent's location, or -1 for operators at any place. Within a section, rows
are indexed by one of their true preconditions, the key (-1 without one), so only rows with a true key are checked.
Place and key are omitted from `needs`.
"""

from __future__ import annotations

from typing import Any

Row = list[Any]
Compiled = dict[str, Any]
