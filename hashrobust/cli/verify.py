"""`hashrobust verify`."""

from __future__ import annotations

from dataclasses import asdict

from hashrobust.cli._console import ConsoleProgress, print_json
from hashrobust.cli._options import RESULTS, Json, Quiet, Results, What, results_or_run
from hashrobust.errors import HashRobustError

_SHOWN = 5
"""At most so many files without a checksum are named; --json names them all."""


def command(
    what: What = None,
    results: Results = RESULTS,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare every stored file with its checksum.

    Names the files that were changed, are missing, or are unknown.
    """
    from hashrobust.experiments.verification import verify

    progress = ConsoleProgress(quiet=quiet)
    found = verify(results_or_run(what, results), progress)
    wrong = "1 file is wrong" if found.wrong == 1 else f"{found.wrong} files are wrong"
    if json:
        print_json(asdict(found))
    else:
        for word in ("changed", "missing", "unknown"):
            for path in getattr(found, word):
                print(f"{word}: {path}")
        print(
            f"{found.folders} folders, {found.matching} files: all match their checksums"
            if not found.wrong
            else f"{found.folders} folders, {found.matching} files match their checksums, {wrong}"
        )
    if found.unsealed:
        names = ", ".join(str(path) for path in found.unsealed[:_SHOWN])
        more = ", ..." if len(found.unsealed) > _SHOWN else ""
        progress.say(f"no checksum: {len(found.unsealed)} files ({names}{more})")
    if found.wrong:
        kinds = {word: len(getattr(found, word)) for word in ("changed", "missing", "unknown")}
        counts = ", ".join(f"{count} {word}" for word, count in kinds.items() if count)
        first = (*found.changed, *found.missing, *found.unknown)[0]
        raise HashRobustError(
            f"{wrong} ({counts}), such as '{first}': make it again with --overwrite, or restore it"
        )
