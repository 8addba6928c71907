"""`hashrobust --version`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hashrobust {version('hashrobust')}")
        raise typer.Exit


def callback(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Deep hashing with sign-symmetry learning rules, and an honest measure of its robustness."""
