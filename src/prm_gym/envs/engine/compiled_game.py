"""The form of a compiled game: plain data, which JSON holds. Needs nothing of what compiled it.

Variables and texts are numbers; a literal is a variable that is true, or the complement `~variable` of one that is
false; literals are written in one string, parted by blanks, as there are many; a set of variables is a hexadecimal
number. A row is one operator:

    [command, text, needs, changes]  or  [command, text, needs, changes, [[needs, changes], ...]]

`text` is what it says, `needs` are the literals that must hold, `changes` those that do afterwards; the last part are
effects that have a condition of their own, judged by the state before.

The tables:

    task        the task's sentence
    texts       texts by number, number 0 the one that a game begins with: a text that never changes, or
                [what it depends on, template], see `text_rendering`. Bits from `size` on are the history's
    size        the number of variables
    initial     the variables that are true at the start
    history     the variables of which texts ask whether they were ever taken back
    goal        the literals that make a win
    axioms      see `axioms.Axioms`
    places      the variables that say where the agent is: at most one is true
    roads       rows that lead to one place from every other, sorted; the place that they leave is not listed
    sections    [place, what its operators depend on, [[key, rows], ...]]: the other operators

The place of a section is the variable that says that the agent is there, or -1 for operators that need no place.
Within it a row is listed under one of the facts it needs, its key (-1 if it needs none), so that only rows are looked
at whose key is true. Place and key are left out of what a row needs.
"""

from __future__ import annotations

from typing import Any

Row = list[Any]
Compiled = dict[str, Any]
