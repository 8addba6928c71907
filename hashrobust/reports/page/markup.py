"""HTML as text: what is not markup already is escaped, so that no name from a file can become markup."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from typing import Any

_IN_SCRIPT = {letter: f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}
_VOID = ("input", "meta", "img", "br")


class Markup(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: str, **attributes: str | bool | None) -> Markup:
    """One element. Children that are no `Markup` are escaped; in attribute names `_` stands for `-`, a trailing one
    is dropped (`class_`), and True gives an attribute without a value, None and False none.
    """
    shown = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Children one after the other, escaped where they are no `Markup`."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c, quote=False) for c in children))


def json_script(identifier: str, content: Any) -> Markup:
    """A script element that holds data; nothing in it can end the element. Numbers that JSON has no word for
    become null.
    """
    text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for letter, harmless in _IN_SCRIPT.items():
        text = text.replace(letter, harmless)
    return tag("script", Markup(text), type="application/json", id=identifier)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
