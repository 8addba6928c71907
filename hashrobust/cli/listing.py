"""`hashrobust list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hashrobust.cli._console import key_value_table, print_json, stdout
from hashrobust.cli._options import DataDir, Json, Plugin, Results
from hashrobust.errors import InputError
from hashrobust.registry import Registry, did_you_mean

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


def command(
    what: Annotated[
        str,
        typer.Argument(help="attacks, backbones, datasets, defences, objectives, rotations, rules or runs."),
    ],
    results: Results = Path("results"),
    data_dir: DataDir = None,
    plugin: Plugin = [],  # noqa: B006
    json: Json = False,
) -> None:
    """List the registered names of a kind with their descriptions, or the runs that there are."""
    if what == "datasets":
        _datasets(data_dir, json)
        return
    rows = _runs(results) if what == "runs" else _components(what)
    if json:
        print_json([{"name": name, "description": text} for name, text in rows])
        return
    table = Table("name", "description")
    for name, text in rows:
        table.add_row(escape(name), escape(text))
    stdout.print(table)


def _datasets(data_dir: Path | None, json: bool) -> None:
    """A dataset has more to tell: what it is, whose, by which licence, where it is looked for, what fetches it."""
    from hashrobust.cli.data import passport_rows, words_of
    from hashrobust.datasets import dataset_info

    rows = [
        {"name": name, "description": text} | passport_rows(dataset_info(name, data_dir=data_dir))
        for name, text in _components("datasets")
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        name = row.pop("name")
        stdout.print(key_value_table(name, [(key, words_of(value)) for key, value in row.items()]))


def _components(what: str) -> list[tuple[str, str]]:
    import importlib

    if what not in HOMES:
        raise InputError(f"cannot list '{what}': {did_you_mean(what, [*HOMES, 'runs'])}")
    registry: Registry[object] = getattr(importlib.import_module(HOMES[what]), what)
    return [(name, registry.describe(name)) for name in registry] + list(registry.families.items())


def _runs(results: Path) -> list[tuple[str, str]]:
    from hashrobust.experiments.store import FOREIGN, list_runs

    rows = []
    for run in list_runs(results):
        state = "trained" if run.has("model.safetensors", "history.csv") else "unfinished"
        if run.config.get("task") == FOREIGN:
            state = "imported"
        attacks = [attack for attack in run.attacks() if attack.has("metrics.json")]
        rows.append((run.name, f"{run.config.get('task')}, {state}, {len(attacks)} attacks"))
    return rows
