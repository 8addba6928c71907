"""The data in a pickle, without an unpickler: few of its instructions are followed, and none that could do anything.

Python's unpickler is not for files of others even where it may call nothing: a memo of 2^32 places fills the
memory, a key of tuples in tuples ends the process or takes for ever, and NumPy's own `__setstate__` believes what
it is told. So instructions are only listed (`pickletools`), and what they make of data is made here.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

_PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_BYTES_OF_PYTHON_2 = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NAMES = {
    **{f"{module}._reconstruct": "array" for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{"numpy.ndarray": "array type", "numpy.dtype": "dtype", "_codecs.encode": "bytes"},
}
"""What Python and NumPy themselves name to write bytes and arrays down, and what it means."""
_NUMBERS = re.compile(r"[<>=|]?[iuf][1248]")


class _Mark:
    """Where the items of the next list, dict or tuple begin."""


@dataclass(frozen=True)
class _Name:
    meaning: str


@dataclass
class _Dtype:
    name: str
    order: str = "="


@dataclass
class _Array:
    values: Any = None


def read_data(content: bytes) -> Any:
    """What a pickle holds: None, numbers, bytes, text, lists, tuples, dicts with keys of bytes or text, arrays.

    Raises:
        ValueError: it names anything else, or does what only other pickles need.
        Exception: a damaged one; whatever comes of it.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for code, argument, _ in pickletools.genops(content):
        name = code.name
        if name in _PLAIN:
            stack.append(argument)
        elif name in _BYTES_OF_PYTHON_2:
            stack.append(argument.encode("latin1"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return _finished(stack.pop())
        elif name not in ("PROTO", "FRAME"):
            _follow(name, argument, stack)
    raise ValueError("it has no end")


def _follow(name: str, argument: Any, stack: list[Any]) -> None:
    """One instruction that makes something of what is on the stack."""
    match name:
        case "MARK":
            stack.append(_Mark())
        case "EMPTY_LIST" | "EMPTY_DICT":
            stack.append([] if name == "EMPTY_LIST" else {})
        case "LIST" | "TUPLE" | "DICT":
            items = _since_mark(stack)
            stack.append(_filled({}, items) if name == "DICT" else items if name == "LIST" else tuple(items))
        case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        case "APPEND" | "APPENDS":
            items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
            _expect(stack[-1], list).extend(_finished(item) for item in items)
        case "SETITEM" | "SETITEMS":
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else _since_mark(stack)
            _filled(_expect(stack[-1], dict), items)
        case "GLOBAL":
            stack.append(_named(*argument.split(" ")))
        case "STACK_GLOBAL":
            last, module = stack.pop(), stack.pop()
            stack.append(_named(module, last))
        case "REDUCE":
            arguments = _expect(stack.pop(), tuple)
            stack.append(_made(_expect(stack.pop(), _Name), arguments))
        case "BUILD":
            _build(_expect(stack.pop(), tuple), stack[-1])
        case _:
            raise ValueError(f"its instruction {name} is none that data need")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"it takes a {type(value).__name__} for a {kind.__name__}")
    return value


def _since_mark(stack: list[Any]) -> list[Any]:
    place = next(place for place in range(len(stack) - 1, -1, -1) if isinstance(stack[place], _Mark))
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _filled(table: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, bytes | str):
            raise ValueError("a key of it is no text")
        table[key] = _finished(value)
    return table


def _finished(value: Any) -> Any:
    """An array in place of what it is made from."""
    return value.values if isinstance(value, _Array) else value


def _named(module: Any, name: Any) -> _Name:
    full = f"{_expect_text(module)}.{_expect_text(name)}"
    if full not in _NAMES:
        raise ValueError(f"it names '{full[:60]}', which is no data")
    return _Name(_NAMES[full])


def _expect_text(value: Any) -> str:
    """Tuples of shared tuples stand for more than any memory where they are put into words."""
    if not isinstance(value, bytes | str):
        raise ValueError("a name in it is no text")
    return value.decode() if isinstance(value, bytes) else value


def _made(of: _Name, arguments: tuple[Any, ...]) -> Any:
    if of.meaning == "array":
        return _Array()
    if of.meaning == "dtype":
        name = _expect_text(arguments[0])
        if not _NUMBERS.fullmatch(name):
            raise ValueError(f"it holds an array of '{name[:20]}', and no numbers or bytes")
        return _Dtype(name)
    if of.meaning == "bytes":
        text, codec = (_expect_text(part) for part in arguments)
        if codec != "latin1":  # how Python 3 writes bytes for Python 2
            raise ValueError(f"it asks for the codec '{codec[:20]}'")
        return text.encode("latin1")
    raise ValueError(f"it calls an {of.meaning}")


def _build(state: tuple[Any, ...], of: Any) -> None:
    if isinstance(of, _Dtype):
        of.order = _expect_text(state[1])
    elif isinstance(of, _Array):
        _, shape, dtype, by_columns, content = state
        kind = np.dtype(_expect(dtype, _Dtype).name).newbyteorder(dtype.order)
        flat = np.frombuffer(_expect(content, bytes), dtype=kind)
        of.values = flat.reshape(_expect(shape, tuple), order="F" if by_columns else "C")
    else:
        raise ValueError(f"it changes a {type(of).__name__}")
