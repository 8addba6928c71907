"""Names to components: one registry a kind, filled by the modules of one folder.

A component registers itself where it is defined::

    @attacks.register("hag")
    class HAG(Attack): ...

The registry imports the modules of its folder the first time it is asked, so that adding a
component means adding one file.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Generic, TypeVar

from hashrobust.errors import InputError, UnknownNameError

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])
Finder = TypeVar("Finder", bound=Callable[[str], Callable[..., Any]])


MANY = 30
"""Names in a message, at most; of more only the nearest are told."""


def did_you_mean(name: str, known: list[str]) -> str:
    """A suggestion for a mistyped name, followed by all known names, or the nearest of many."""
    close = difflib.get_close_matches(name.lower(), known)
    # Letters in the wrong order are the likelier slip: "hga" is meant for "hag", though "tha" is as near.
    close.sort(key=lambda other: sorted(other) != sorted(name.lower()))
    suggestion = f"did you mean '{close[0]}'? " if close else ""
    if len(known) <= MANY:
        return f"{suggestion}known: {', '.join(known)}"
    nearest = difflib.get_close_matches(name.lower(), known, n=5, cutoff=0) if close else known[:5]
    return f"{suggestion}known: {', '.join(nearest)} and {len(known) - len(nearest)} more"


class Registry(Generic[T]):
    """Components of one kind by name; `package` is the folder whose modules register them."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._builders: dict[str, Callable[..., T]] = {}
        self._families: dict[str, Callable[[str], Callable[..., T]]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[Builder], Builder]:
        """Class or function decorator that adds a component under `name`.

        Raises:
            InputError: the name is taken by another component.
        """

        def add(builder: Builder) -> Builder:
            self._take(self._builders, name, builder)
            return builder

        return add

    def register_family(self, prefix: str) -> Callable[[Finder], Finder]:
        """Function decorator: `prefix:MEMBER` names the component whose class or function it finds for MEMBER.

        The names of its members are not among those of the registry. The function raises UnknownNameError.

        Raises:
            InputError: the prefix is taken.
        """

        def add(find: Finder) -> Finder:
            self._take(self._families, prefix, find)
            return find

        return add

    def _take(self, taken: dict[str, Callable[..., Any]], name: str, component: Callable[..., Any]) -> None:
        """Enter a component into a table; it replaces none but itself, as when its module is imported again."""
        if not component.__module__.startswith(f"{self._package}."):
            self._complete_once()  # else a plugin that comes first could take a name of those that come after it
        present = taken.get(name)
        if present is not None and _home(present) != _home(component):
            raise InputError(f"{self.kind} '{name}' is registered already: choose another name")
        taken[name] = component

    @property
    def families(self) -> dict[str, str]:
        """What to write for a component of each family, and the first line of the family's documentation."""
        self._complete_once()
        return {f"{prefix}:NAME": _first_line(find) for prefix, find in sorted(self._families.items())}

    def _complete_once(self) -> None:
        if self._complete:
            return
        self._complete = True  # before the modules come, which may ask
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self._package}.{module.name}")
        except BaseException:
            self._complete = False
            raise

    def __iter__(self) -> Iterator[str]:
        self._complete_once()
        return iter(sorted(self._builders))

    def __contains__(self, name: object) -> bool:
        try:
            return self[str(name)] is not None
        except UnknownNameError:
            return False

    def __getitem__(self, name: str) -> Callable[..., T]:
        """The class or function registered under `name`.

        Raises:
            UnknownNameError: nothing is; the message suggests the nearest name.
        """
        self._complete_once()
        prefix, colon, member = name.partition(":")
        if colon and prefix in self._families:
            return self._families[prefix](member)
        if name not in self._builders:
            raise UnknownNameError(f"unknown {self.kind} '{name}': {did_you_mean(name, list(self))}")
        return self._builders[name]

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """The parameters that `build(name, ...)` takes."""
        return dict(inspect.signature(self[name]).parameters)

    def build(self, name: str, **params: Any) -> T:
        """Build a component, its parameters checked against the signature first.

        Raises:
            UnknownNameError: no such component.
            InputError: a parameter that it does not take, or one missing.
        """
        builder = self[name]
        known = self.parameters(name)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
        for parameter in params:
            if parameter not in known and not takes_any:
                raise InputError(
                    f"{self.kind} '{name}' has no parameter '{parameter}': "
                    f"{did_you_mean(parameter, sorted(known))}"
                )
        try:
            inspect.signature(builder).bind(**params)
        except TypeError as error:
            raise InputError(f"{self.kind} '{name}': {error}") from error
        for parameter, value in params.items():
            if parameter in known and not _fits(value, known[parameter].annotation):
                raise InputError(
                    f"{parameter} of {self.kind} {name} is {value!r:.60}: give {_words(known[parameter].annotation)}"
                )
        return builder(**params)

    def describe(self, name: str) -> str:
        """The first line of a component's documentation."""
        return _first_line(self[name])


_PLAIN = {"int": Integral, "float": Real, "str": str, "bool": bool, "None": type(None)}
_IN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a word",
    "bool": "true or false",
    "None": "none",
}


def _fits(value: object, annotation: object) -> bool:
    """Whether a value is of a plain type, where the parameter says such a one: what a text or a file gave is any."""
    words = _types(annotation)
    if not all(word in _PLAIN for word in words):
        return True
    # True is a number to Python, and to nobody who writes a study.
    return "bool" in words if isinstance(value, bool) else isinstance(value, tuple(_PLAIN[w] for w in words))


def _words(annotation: object) -> str:
    """A parameter's plain types as people call them."""
    return " or ".join(_IN_WORDS[word] for word in _types(annotation))


def _types(annotation: object) -> list[str]:
    """The names in an annotation, which is text where a module postpones its annotations and a type elsewhere."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return text.split(" | ")


def _home(component: Callable[..., Any]) -> tuple[str, str]:
    """Where a component is defined: equal for one that is imported again."""
    return component.__module__, component.__qualname__


def _first_line(component: object) -> str:
    return (inspect.getdoc(component) or "").split("\n", 1)[0]


def load_plugin(path: str | Path) -> None:
    """Run a user's Python file, whose components register themselves.

    Raises:
        InputError: the file is missing, is not Python, or raises while it is imported.
    """
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise InputError(f"plugin '{path}' is not a Python file: give the path of a .py file")
    # The path belongs to the name, lest two files of one name count as the same one loaded again.
    place = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:8]
    name = f"hashrobust_plugin_{file.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"plugin '{path}' fails when imported: {error!r}") from error
