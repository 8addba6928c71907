"""The command line: parse options, call the library, print. Data to stdout, words and progress to stderr."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer

from hashrobust._memory import keep_freed_memory
from hashrobust.cli import (
    attack,
    audit,
    check,
    data,
    evaluate,
    export,
    finetune,
    importing,
    index,
    listing,
    pretrain,
    report,
    search,
    study,
    verify,
    version,
)
from hashrobust.cli._console import pass_over_odd_sizes, print_error, stderr
from hashrobust.cli._processes import (
    answer_signals,
    has_last_word,
    let_signals_end_it,
    one_voice,
    undisturbed,
)
from hashrobust.errors import NO_ROOM, HashRobustError

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM, as shells expect it."""

app = typer.Typer(
    name="hashrobust",
    help="Deep hashing with sign-symmetry learning rules, and an honest measure of its robustness.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="To begin: `hashrobust check`, then `hashrobust pretrain`, which trains a small network on images of digits "
    "that come along. Every command that makes something names the one to go on with.",
)
app.callback()(version.callback)
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Train": {"pretrain": pretrain.command, "finetune": finetune.command},
    "Retrieve": {"index": index.command, "search": search.command, "evaluate": evaluate.command},
    "Attack": {"attack": attack.command, "audit": audit.command},
    "Many runs": {"study": study.command, "report": report.command},
    "Look up": {"list": listing.command, "data": data.command, "check": check.command},
    "Share and keep": {"export": export.command, "import": importing.command, "verify": verify.command},
}
for _panel, _named in _COMMANDS.items():
    for _name, _command in _named.items():
        app.command(_name, rich_help_panel=_panel)(_command)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 asked wrongly, 130 interrupted."""
    answer_signals()
    keep_freed_memory()
    pass_over_odd_sizes()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # as stderr has it: letters that a terminal lacks end nothing
    try:
        with one_voice():
            code = app(prog_name="hashrobust", standalone_mode=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.Abort as error:
        # The parser takes that of a plugin for the end of its input.
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None
        code = INTERRUPTED
    except HashRobustError as error:
        code = _failed(str(error), error.exit_code)
    except SystemExit as error:
        # Nothing of ours leaves so: without this, a plugin's `sys.exit()` would pass for success.
        by_pipe = isinstance(error.__context__, BrokenPipeError)
        code = _reader_has_left() if by_pipe else _failed(_left(error), 1)
    except BrokenPipeError:
        code = _reader_has_left()
    except OSError as error:
        code = 1 if error.errno in NO_ROOM else 2
        code = _failed(f"{error}: check the path, its permissions and the room on the disk", code)
    except Exception as error:
        if _lacks_memory(error):
            code = _failed(
                f"there is not enough memory for this ({_first_words(error)}): ask for less of it", 1
            )
        elif hasattr(error, "format_message"):  # one of the parser's own usage errors
            # Without a word: help was shown.
            code = _failed(_usage(error), 2) if error.format_message() else 2
        else:
            raise
    if code == INTERRUPTED:
        let_signals_end_it()
        if has_last_word():
            with suppress(OSError):  # the terminal may be gone
                stderr.print(
                    "interrupted: what was finished is kept, the same command again goes on from there",
                    soft_wrap=True,
                )
    sys.exit(code if isinstance(code, int) else 0)


def _failed(sentence: str, code: int) -> int:
    """Say what went wrong, if another process has not; the exit code."""
    with undisturbed():
        if has_last_word():
            with suppress(OSError):  # nobody may be there to read it
                print_error(sentence)
    return code


def _left(error: SystemExit) -> str:
    """Who ended Python, as a sentence."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{place.filename}, line {place.lineno}, ended Python before the command was done: "
        "let it raise an error, or return"
    )


def _reader_has_left() -> int:
    """Nobody reads the output any more, and Python must not stumble over the pipe at its end; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 1


def _lacks_memory(error: Exception) -> bool:
    """Python's and NumPy's own kind of error, or torch's, which has none of its own on the processor."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _usage(error: Any) -> str:
    """A usage error as one sentence that names the command's help."""
    context = getattr(error, "ctx", None)
    named = [word for word in sys.argv[1:2] if any(word in commands for commands in _COMMANDS.values())]
    command = context.command_path if context is not None else " ".join(["hashrobust", *named])
    sentence = " ".join(error.format_message().split()).rstrip(".")
    return f"{sentence}: see `{command} --help`"
