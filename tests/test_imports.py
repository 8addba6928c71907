"""The direction of imports, as docs/design.md draws it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .arrows import ENTRANCES, FILES, PACKAGE, drawing, drawn, imported_modules, part_of, parts_imported

# From the bottom up; a part may import those of lower layers, never its siblings.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset(
        {"registry", "seeding", "progress", "options", "launch", "_arrays", "_faiss_payload", "_memory"}
    ),
    frozenset(
        {"rules", "objectives", "rotations", "backbones", "datasets", "attacks", "retrieval", "metrics"}
    ),
    frozenset({"models"}),
    frozenset({"training"}),
    frozenset({"experiments"}),
    frozenset({"reports"}),
    frozenset({"cli"}),
)
# `options` checks values with the errors; nothing below `experiments` may know run folders.
DEPTH = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}
NO_TORCH = ("reports", "metrics")
TORCH_FREE_FILES = (
    "experiments/store.py",
    "experiments/files.py",
    "experiments/documents.py",
    "experiments/config.py",
    "options.py",
    "_memory.py",
    "launch.py",
    "progress.py",
    "registry.py",
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = part_of(path)
    if own in ENTRANCES:
        return
    for other in parts_imported(path):
        assert other in DEPTH, f"{own} imports {other}, which has no layer"
        allowed = DEPTH[other] < DEPTH[own]
        assert allowed, f"{path.relative_to(PACKAGE)} imports {other}: {own} may not know it"


def test_arrows_in_the_design_are_those_of_the_code() -> None:
    assert drawn() == drawing(), "the imports have changed: look whether they should, then `make arrows`"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if part_of(p) in NO_TORCH or str(p.relative_to(PACKAGE)) in TORCH_FREE_FILES],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_no_torch(path: Path) -> None:
    heavy = {"torch", "torchvision", "faiss"}
    assert not {module.split(".")[0] for module in imported_modules(path)} & heavy


@pytest.mark.parametrize("arguments", [["--help"], ["attack", "--help"], ["--version"]])
def test_help_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys, hashrobust.cli\n"
        f"sys.argv = ['hashrobust', *{arguments!r}]\n"
        "try:\n    hashrobust.cli.main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'faiss', 'pandas', 'matplotlib', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "hashrobust" in done.stdout
