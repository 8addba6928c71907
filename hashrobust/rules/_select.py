"""Layers chosen by patterns over the names of modules."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate

from hashrobust.errors import InputError


def chosen_names(names: Sequence[str], patterns: str, within: Collection[str]) -> set[str]:
    """Those of `names` that one of the comma-separated patterns fits, such as `backbone.*` or `conv1,head`.

    `*`, `?` and `[...]` are those of shells, `*` also across dots; a pattern that fits a module stands for all that is
    in it. A pattern that fits no whole name is held against names without their first part, so that `features.*`
    finds `backbone.features.0`. `within` are the names of all modules, for the message.

    Raises:
        InputError: a pattern that fits none of `names`; near ones are listed.
    """
    chosen: set[str] = set()
    for pattern in (part.strip() for part in patterns.split(",")):
        fitting = {name for name in names if _fits(name, pattern)}
        fitting = fitting or {name for name in names if "." in name and _fits(name.split(".", 1)[1], pattern)}
        if not fitting:
            raise InputError(_nothing(pattern, names, within))
        chosen |= fitting
    return chosen


def _fits(name: str, pattern: str) -> bool:
    """Whether the pattern fits a name or that of a module around it: `a.b.c` stands in `a.b` and `a`."""
    around = accumulate(name.split("."), "{}.{}".format)
    return any(fnmatchcase(module, pattern) for module in around)


def _nothing(pattern: str, names: Sequence[str], within: Collection[str]) -> str:
    if any(name and _fits(name, pattern) for name in within):
        return f"layers '{pattern}' hold no layer that the rule could convert: they stay on backpropagation"
    wanted = pattern.rstrip("*").rstrip(".")
    near = difflib.get_close_matches(wanted, [name for name in within if name], n=3, cutoff=0.4)
    mend = f"near are {', '.join(near)}" if near else f"there are {', '.join(names[:5])}"
    return f"layers '{pattern}' fit no module of the network: {mend}"
