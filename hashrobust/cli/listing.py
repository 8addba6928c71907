"""`hashrobust list`."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hashrobust.cli._console import key_value_table, print_json, stdout, table
from hashrobust.cli._options import RESULTS, DataDir, Json, Plugin, Results
from hashrobust.errors import InputError
from hashrobust.registry import Registry, did_you_mean

if TYPE_CHECKING:
    from hashrobust.experiments.store import Folder

HOMES = {
    "attacks": "hashrobust.attacks",
    "backbones": "hashrobust.backbones",
    "datasets": "hashrobust.datasets",
    "defences": "hashrobust.training.defences",
    "objectives": "hashrobust.objectives",
    "rotations": "hashrobust.rotations",
    "rules": "hashrobust.rules",
}
"""The package that holds the registry of each kind."""

WITH_PARAMETERS = ("attacks", "defences", "objectives")
"""Kinds whose components take --param, or --defence-param."""


def command(
    what: Annotated[
        str,
        typer.Argument(help="attacks, backbones, datasets, defences, objectives, rotations, rules or runs."),
    ],
    name: Annotated[
        str | None, typer.Argument(help="One of them, such as hag: what it does, and its parameters.")
    ] = None,
    results: Results = RESULTS,
    data_dir: DataDir = None,
    plugin: Plugin = [],  # noqa: B006
    json: Json = False,
) -> None:
    """List what there is to choose from, or the runs made so far."""
    if name is not None:
        _component(what, name, json)
    elif what == "datasets":
        _datasets(data_dir, json)
    elif what == "runs":
        _runs(results, json)
    else:
        rows = _components(_registry(what))
        if json:
            print_json(rows)
        else:
            stdout.print(_table(rows))


def _registry(what: str) -> Registry[Any]:
    if what not in HOMES:
        raise InputError(f"cannot list '{what}': {did_you_mean(what, [*HOMES, 'runs'])}")
    registry: Registry[Any] = getattr(importlib.import_module(HOMES[what]), what)
    return registry


def _components(registry: Registry[Any]) -> list[dict[str, str]]:
    found = [(name, registry.describe(name)) for name in registry] + list(registry.families.items())
    return [{"name": name, "description": text} for name, text in found]


def _component(what: str, name: str, json: bool) -> None:
    """One component: its documentation, the parameters that can be given to it, and the presets of an attack.

    Raises:
        InputError: no such component, or it is a run.
    """
    if what == "runs":
        raise InputError("`hashrobust list runs` takes no name: see `hashrobust report` for what a run holds")
    registry = _registry(what)
    documentation = inspect.getdoc(registry[name]) or ""
    parameters = {
        parameter.name: parameter.default
        for parameter in registry.parameters(name).values()
        if what in WITH_PARAMETERS and parameter.default is not parameter.empty
    }
    presets: dict[str, dict[str, Any]] = getattr(registry[name], "presets", {})
    if json:
        facts = {"name": name, "documentation": documentation, "parameters": parameters, "presets": presets}
        print_json(facts)
        return
    stdout.print(f"{documentation}\n", markup=False, highlight=False, soft_wrap=True)
    if parameters:
        defaults = [(key, _words(key, value)) for key, value in parameters.items()]
        stdout.print(table(("parameter", "default"), defaults))
    if presets:
        settings = [
            (preset, ", ".join(f"{key}={_words(key, value)}" for key, value in own.items()))
            for preset, own in presets.items()
        ]
        stdout.print(table(("preset", "settings"), settings))


def _datasets(data_dir: Path | None, json: bool) -> None:
    """A dataset has more to tell: what it is, whose, by which licence, where it is looked for, what fetches it."""
    from hashrobust.cli.data import passport_rows, words_of
    from hashrobust.datasets import dataset_info, datasets

    rows = [
        row | passport_rows(dataset_info(row["name"], data_dir=data_dir)) for row in _components(datasets)
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        name = row.pop("name")
        stdout.print(key_value_table(name, [(key, words_of(value)) for key, value in row.items()]))


def _runs(results: Path, json: bool) -> None:
    from hashrobust.experiments.store import list_runs

    rows = [_run(run) for run in list_runs(results)]
    if json:
        print_json(rows)
    else:
        # The task shows in the name, and the name needs the room.
        stdout.print(_table([{key: value for key, value in row.items() if key != "task"} for row in rows]))


def _run(run: Folder) -> dict[str, Any]:
    from hashrobust.experiments.store import AT_EPOCH, FOREIGN

    made = {FOREIGN: "imported", "pretrain": "pre-trained"}.get(run.config["task"], "trained")
    # What a run was at one of its epochs has no history of its own.
    needed = ("model.safetensors",) if AT_EPOCH in run.name else ("model.safetensors", "history.csv")
    finished = run.config["task"] == FOREIGN or run.has(*needed)
    attacks = sum(attack.has("metrics.json") for attack in run.attacks())
    audits = sum(audit.has("audit.json") for audit in run.audits())
    return {
        "name": run.name,
        "task": "classification" if run.classifies else "hashing",
        "state": made if finished else "unfinished",
        "attacks": attacks,
        "audits": audits,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    """Rows of equal keys, which head the columns; the first of them names what can be asked for."""
    columns = list(rows[0]) if rows else ["name"]
    cells = [[str(value) for value in row.values()] for row in rows]
    return table(columns, cells, whole=columns[0], numbers=("attacks", "audits"))


def _words(name: str, value: Any) -> str:
    """A setting as it is given on the command line; epsilons and step sizes in 255ths where those are short."""
    pixels = 255 * value if name in ("epsilon", "step_size") and isinstance(value, float) else None
    if pixels is not None and round(pixels, 3) == pixels:
        return f"{pixels:g}/255"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
