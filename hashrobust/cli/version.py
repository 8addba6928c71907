"""`hashrobust --version`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from hashrobust.cli._processes import refuse_several


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hashrobust {version('hashrobust')}")
        raise typer.Exit


def callback(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Deep hashing with sign-symmetry learning rules, and an honest measure of its robustness."""
    refuse_several(context.invoked_subcommand)
