"""The command line: parse options, call the library, print. Data to stdout, words and progress to stderr."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from hashrobust.cli import (
    attack,
    check,
    evaluate,
    finetune,
    index,
    listing,
    pretrain,
    report,
    search,
    verify,
    version,
)
from hashrobust.cli._console import stderr
from hashrobust.errors import HashRobustError

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM, as shells expect it."""

app = typer.Typer(
    name="hashrobust",
    help="Deep hashing with sign-symmetry learning rules, and an honest measure of its robustness.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(version.callback)
app.command("pretrain")(pretrain.command)
app.command("finetune")(finetune.command)
app.command("index")(index.command)
app.command("search")(search.command)
app.command("evaluate")(evaluate.command)
app.command("attack")(attack.command)
app.command("report")(report.command)
app.command("list")(listing.command)
app.command("verify")(verify.command)
app.command("check")(check.command)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 asked wrongly, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except HashRobustError as error:
        stderr.print("[bold red]error:[/]", end=" ")
        stderr.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        stderr.print("interrupted: what was finished is kept, the same command again goes on from there")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        stderr.print("[bold red]error:[/]", end=" ")
        stderr.print(f"{error}: check the path, its permissions and the room on the disk", markup=False)
        sys.exit(2)
    except Exception as error:
        shown = getattr(error, "show", None)  # click's own usage errors
        if shown is None:
            raise
        shown()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
