"""Stored documents and tables held against what they should look like, before anything is made of them.

A run folder may come from anybody, its checksums with it: nothing read from one has a type until it was looked at.
No torch here.
"""

from __future__ import annotations

import errno
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import tomli_w

from hashrobust.errors import HashRobustError, StoreError
from hashrobust.experiments.measures import MEASURES
from hashrobust.options import fits

if TYPE_CHECKING:
    import pandas as pd

TEXT, YES_OR_NO, NUMBER, WHOLE = (str,), (bool,), (int, float, type(None)), (int,)
"""What a value may be; a number that JSON has no word for is stored as null."""

Place = tuple[str | int, ...]
"""Keys of tables and positions in lists that lead to a value."""

Shape = Any
"""Such a tuple of types; a function that says what a value should be and is not; a list with the shape of its entries;
or a dict, from patterns of names to shapes of values, of which the first that fits counts. What no pattern fits may be
anything."""


def _finite_number(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if is_number and math.isfinite(value) else "finite number"


def _above_zero(value: Any) -> str:
    return "" if not _finite_number(value) and value > 0 else "number above 0"


def _measured(value: Any) -> str:
    return "" if isinstance(value, str) and value in MEASURES else " or ".join(MEASURES)


_SCORES = {
    r"(.*_)?(map|accuracy)(_.*)?|.*_(low|high|mean|max|share|cosine|agreement|evaluations|ratio)": NUMBER,
    r".*(advantage|gap|queries)|k|bits|database|steps|restarts|step_size|chance|clean|worst|depth|value": NUMBER,
    r"precision.*|recall.*|empty.*|bit_.*|distinct_codes|shared_attacks|epsilon|norm_ratio": NUMBER,
    "goal|step_schedule": TEXT,
}
_NAMED = {"part|access|attack|gradient|layer|name|status|limit|meaning|folder": TEXT}

CONFIGURATION: Shape = {
    "format|seed|bits|epochs|epoch|batch_size|image_size|threads|patience|max_steps|queries|query_seed": WHOLE,
    "steps|restarts|search": WHOLE,
    "epsilon": _above_zero,
    "learning_rate|weight_decay|head_learning_rate_factor": (int, float),
    "task|protocol|model|dataset|backbone|objective|rule|feedback_scale|layers|defence|rotate|weights": TEXT,
    "weights_digest|optimizer|schedule|augment|attack|gradient|preset|surrogate|surrogate_digest": TEXT,
    "budget|control|control_digest|weights_of": TEXT,
    "mixed_precision": YES_OR_NO,
    "params|objective_params|defence_params": {},
    "start_epsilons": [_above_zero],
    "also": [TEXT],
    "input_shape": [WHOLE],
}
DOCUMENTS: Mapping[str, Shape] = {
    "metrics.json": _SCORES,
    "accuracy.json": _SCORES,
    "environment.json": {"data_fingerprint": TEXT, "versions": {".*": TEXT}},
    "timing.json": {},
    "audit.json": {
        "task": _measured,
        "verdict|sentence|rule": TEXT,
        "matched": (bool, type(None)),
        "headline": _SCORES,
        "checks": [_NAMED | {"value": NUMBER}],
        "attacks": [
            _NAMED | {"on_control": YES_OR_NO, "error": (str, type(None)), "epsilon": _above_zero} | _SCORES
        ],
        "gradient_by_depth": [_NAMED | {"depth": _finite_number} | _SCORES],
        "determinism": {},
    },
}
"""By name of the file; any other document is a table of names and values."""

TABLES: Mapping[str, tuple[set[str], set[str]]] = {
    "history.csv": ({"epoch", "loss", "learning_rate"}, set()),
    "alignment.csv": ({"epoch", "layer", "angle_degrees", "norm_ratio"}, {"layer"}),
    "queries.parquet": ({"query_id"}, {"target"}),
}
"""By name of the file, the columns that are always there, and those that hold text; all others hold numbers."""


class Document(dict[str, Any]):
    """A stored table of names and values; one that is not in it is told together with the file."""

    path: Path | None = None

    def __missing__(self, name: str) -> Any:
        raise StoreError(
            f"'{self.path}' does not tell '{name}', it is damaged or not made here: make it again"
        )


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Say of a stored file that it is damaged, whatever its reader stumbles over within the block.

    Raises:
        StoreError: the reader raised anything but an error of ours, or of the system.
    """
    try:
        yield
    except HashRobustError:
        raise
    except Exception as error:  # readers of damaged files raise whatever they come upon
        # EINVAL is of a zip whose directory begins before its file does.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(f"'{path}' is damaged ({said}): make it again, or restore it") from error


def as_document(content: Any, path: Path, shape: Shape = None) -> Document:
    """What was read from a file as a document, held against a shape, by default that of its name.

    Raises:
        ValueError: it is none, or a value is of another kind.
    """
    check_numbers(content)
    check_shape(content, DOCUMENTS.get(path.name, {}) if shape is None else shape)
    if not isinstance(content, dict):
        raise ValueError("it is no table of names and values")
    found: Document = _with_path(content, path)
    return found


def json_text(content: Any) -> str:
    """A document as JSON; numbers that JSON has no word for become null."""
    return json.dumps(_finite(content), indent=1, sort_keys=True, allow_nan=False) + "\n"


def toml_text(content: Mapping[str, Any]) -> str:
    """A document as TOML, without the None that TOML cannot hold."""
    return tomli_w.dumps(_without_none(content))


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if value is not None
    }


def check_shape(content: Any, shape: Shape, place: str = "it") -> None:
    """Hold a value against a shape.

    Raises:
        ValueError: it has another one; the message says where.
    """
    if isinstance(shape, tuple):
        # True is an int to Python, and to nobody who reads a table.
        if not isinstance(content, shape) or (isinstance(content, bool) and bool not in shape):
            raise ValueError(f"{place} is {content!r:.60}, no {' or '.join(kind.__name__ for kind in shape)}")
    elif callable(shape):
        if wanted := shape(content):
            raise ValueError(f"{place} is {content!r:.60}, no {wanted}")
    elif isinstance(shape, list):
        if not isinstance(content, list):
            raise ValueError(f"{place} is {content!r:.60}, no list")
        for number, entry in enumerate(content):
            check_shape(entry, shape[0], f"{place}[{number}]")
    else:
        if not isinstance(content, dict):
            raise ValueError(f"{place} is {content!r:.60}, no table of names and values")
        for name, value in content.items():
            fitting = next((kind for pattern, kind in shape.items() if re.fullmatch(pattern, name)), None)
            if fitting is not None:
                check_shape(value, fitting, name if place == "it" else f"{place}.{name}")


def _with_path(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        document = Document({name: _with_path(entry, path) for name, entry in value.items()})
        document.path = path
        return document
    return [_with_path(entry, path) for entry in value] if isinstance(value, list) else value


def place_of_too_much(content: Any, place: Place = ()) -> Place | None:
    """The place in a document of the first whole number of more than 64 bits; None if there is none."""
    if not fits(content):
        return place
    entries = content.items() if isinstance(content, dict) else []
    for key, entry in enumerate(content) if isinstance(content, list) else entries:
        found = place_of_too_much(entry, (*place, key))
        if found is not None:
            return found
    return None


def check_numbers(content: Any) -> None:
    """Refuse whole numbers of more than 64 bits in a document.

    Raises:
        ValueError: there is one.
    """
    place = place_of_too_much(content)
    if place is not None:
        raise ValueError(f"{'.'.join(map(str, place)) or 'it'} is more than 64 bits hold")


def check_table(table: pd.DataFrame, name: str) -> None:
    """Hold a table that was read from a file of this name against what it should look like.

    Raises:
        ValueError: columns are missing, hold text for numbers, or name a query twice.
    """
    needed, words = TABLES.get(name, (set(), set()))
    missing = needed - set(table.columns)
    if missing and len(table.columns):
        raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    for column in set(table.columns) - words:
        if table[column].dtype.kind not in "iufb":
            raise ValueError(f"its column {column} holds no numbers")
    if "query_id" in table and not table["query_id"].is_unique:
        raise ValueError("it names a query twice")


def check_names(names: Mapping[str, str]) -> None:
    """Refuse names of files that lead out of the folder that tells them.

    Raises:
        ValueError: one does.
    """
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ValueError(f"'{name}' leads out of the folder")
