"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hashrobust.errors import InputError
from hashrobust.options import fits


def _load_plugins(paths: list[Path]) -> list[Path]:
    if paths:
        from hashrobust.registry import load_plugin

        for path in paths:
            load_plugin(path)
    return paths


COMMON = "Common options"
"""The panel of a command's help that holds what most commands share."""

Run = Annotated[str, typer.Argument(help="A run's folder, or the beginning of its name in --results.")]
Results = Annotated[
    Path, typer.Option("--results", help="The folder that holds all runs.", rich_help_panel=COMMON)
]
What = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        help="One run, by its folder or the beginning of its name in --results; or a folder of runs.",
        show_default="all of --results",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where to look for datasets.",
        show_default="$HASHROBUST_DATA or data",
        rich_help_panel=COMMON,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...", rich_help_panel=COMMON)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results only, no progress.", rich_help_panel=COMMON)
]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON.", rich_help_panel=COMMON)]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Do the work again even if it is done.", rich_help_panel=COMMON),
]
Plugin = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="A Python file that registers components of your own; repeat for several.",
        callback=_load_plugins,
        rich_help_panel=COMMON,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="CPU threads.", show_default="torch's choice", rich_help_panel=COMMON
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Height and width in pixels.", show_default="the dataset's own"),
]
Seeds = Annotated[str, typer.Option("--seeds", "--seed", help="One or several, a run each: 0 or 0,3 or 0-2.")]
MixedPrecision = Annotated[
    bool, typer.Option("--mixed-precision", help="Train in bfloat16 where torch allows it.")
]

RESULTS = Path("results")
"""Where runs are kept unless --results says otherwise."""


def results_or_run(what: Path | None, results: Path) -> Path:
    """What was named: a folder, or the run in `results` whose name begins so; all of `results` if nothing was.

    Raises:
        StoreError: the names of several runs begin so.
    """
    from hashrobust.experiments.store import find_run

    if what is None:
        return results
    begun = [run for run in results.glob("*") if run.name.startswith(str(what))]
    return what if what.exists() or not begun else find_run(str(what), results).path


def parse_params(texts: list[str]) -> dict[str, Any]:
    """`name=value` texts as a dictionary; values become numbers or booleans where they look like it.

    Raises:
        InputError: a text without `=`, or a number that nobody reckons with.
    """
    params: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"parameter '{text}' is not of the form name=value, such as steps=50")
        params[name.replace("-", "_")] = found = _parse_value(value)
        if not fits(found):
            raise InputError(f"parameter {name} is more than 64 bits hold: give a smaller number")
    return params


def _parse_value(text: str) -> Any:
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else text
    except (ValueError, ZeroDivisionError):
        return text


TASKS = ("hashing", "classification")


def check_task(text: str) -> str:
    """`text` itself.

    Raises:
        InputError: it is neither hashing nor classification.
    """
    if text not in TASKS:
        raise InputError(f"unknown task '{text}': use hashing or classification")
    return text


MOST_SEEDS = 1000


def parse_seeds(text: str) -> list[int]:
    """`0`, `0,3` or `0-2` as a list of seeds.

    Raises:
        InputError: anything else.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            asked = range(int(first), int(last if dash else first) + 1)
            if len(asked) > MOST_SEEDS:
                raise InputError(f"seeds '{text}' are more than {MOST_SEEDS}: name fewer at a time")
            seeds.extend(asked)
    except (ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        seeds = []
    if not seeds:
        raise InputError(f"seeds '{text}' are not understood: write 0, 0,3 or 0-2")
    return list(dict.fromkeys(seeds))


def parse_step_size(text: str) -> float:
    """`1/255` or `0.004` as a number in pixel units.

    Raises:
        InputError: see `parse_epsilon`.
    """
    from hashrobust.experiments.config import parse_epsilon

    try:
        return parse_epsilon(text)
    except InputError as error:
        raise InputError(str(error).replace("epsilon", "step size", 1)) from None


def split_list(texts: list[str], option: str) -> list[str]:
    """Repeated and comma-separated values of an option as one list, doubled ones once; empty if it was not given.

    Raises:
        InputError: it was given, and holds no value.
    """
    return list(dict.fromkeys(split_all(texts, option)))


def split_all(texts: list[str], option: str) -> list[str]:
    """`split_list` with doubled values as often as they stand there."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if texts and not parts:
        raise InputError(f"{option} names nothing: give it a value, or leave it out")
    return parts
