"""A study file as TOML, and the line on which each of its keys stands. No torch here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashrobust.errors import InputError
from hashrobust.experiments.documents import Place, place_of_too_much

Keys = Place
"""Where something stands: keys of tables, and positions in arrays of tables from 0."""

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\s\[\]](?:[^\[\]]*[^\s\[\]])?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*([A-Za-z0-9_."'-]+)\s*=""")


@dataclass(frozen=True)
class StudyFile:
    """The content of a study file, and its lines for what has to be said of it."""

    path: Path
    text: str
    content: Mapping[str, Any]
    _places: Mapping[Keys, int] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> StudyFile:
        """Read a study file.

        Raises:
            InputError: it is missing, no text, or no TOML.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"study file '{path}' does not exist: see studies/quick.toml for one") from None
        except (UnicodeDecodeError, IsADirectoryError) as error:
            raise InputError(f"study file '{path}' is no text file ({error}): give a TOML file") from error
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also a number of thousands of digits
            raise InputError(
                f"study file '{path}' is no TOML: {error}: see studies/quick.toml for one"
            ) from error
        file = cls(path, text, content, _places(text.splitlines()))
        if too_much := place_of_too_much(content):
            name = next(key for key in reversed(too_much) if isinstance(key, str))
            raise file.error(too_much, f"{name} is more than 64 bits hold: give a smaller number")
        return file

    def error(self, keys: Keys, sentence: str, *values: object, within: Keys = ()) -> InputError:
        """An error that names the file and the line of a key, or of values that stand below it.

        With `within`, the key of that table is meant if it has one, else the same key at the top.
        """
        return InputError(f"{self.path}, line {self.line(keys, *values, within=within)}: {sentence}")

    def line(self, keys: Keys, *values: object, within: Keys = ()) -> int:
        """The line (from 1) that `error` names: of those below the key the first with the most of the words."""
        own, top = self._longest(within + keys), self._longest(keys)
        place = own if len(own) > len(within) or not top else top
        first = self._places.get(place, 1)
        lines = self.text.splitlines()
        end = min((number for number in self._places.values() if number > first), default=len(lines) + 1)
        words = {*values, *(key for key in keys if isinstance(key, str) and key not in place)}
        return max(
            range(first, end),
            key=lambda number: sum(_stands_in(word, lines[number - 1]) for word in words),
            default=first,  # the file is empty
        )

    def _longest(self, keys: Keys) -> Keys:
        """The longest beginning of the keys whose line is known."""
        while keys and keys not in self._places:
            keys = keys[:-1]
        return keys


def _places(lines: Sequence[str]) -> dict[Keys, int]:
    """The line (from 1) of every key and table that begins one."""
    places: dict[Keys, int] = {}
    counts: dict[Keys, int] = {}
    table: Keys = ()
    for number, line in enumerate(lines, start=1):
        if header := _HEADER.match(line):
            table = ()
            for name in _split(header[2]):
                table = (*table, counts[table] - 1, name) if table in counts else (*table, name)
                places.setdefault(table, number)
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table = (*table, counts[table] - 1)
                places[table] = number
        elif key := _KEY.match(line):
            names = _split(key[1])
            for length in range(1, len(names) + 1):
                places.setdefault((*table, *names[:length]), number)
    return places


def _split(dotted: str) -> Keys:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _stands_in(word: object, line: str) -> bool:
    if isinstance(word, bool):
        word = str(word).lower()
    return re.search(rf"(?<![\w.-]){re.escape(str(word))}(?![\w.-])", line) is not None
