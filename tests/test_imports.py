"""The direction of imports, as docs/design.md draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hashrobust"

# From the bottom up; a part may import those of lower layers, never its siblings.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"registry", "seeding", "progress", "options", "_arrays"}),
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
FREE = {"__init__", "__main__"}
NO_TORCH = ("reports", "metrics")
TORCH_FREE_FILES = (
    "experiments/store.py",
    "experiments/files.py",
    "experiments/config.py",
    "options.py",
    "progress.py",
    "registry.py",
)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever the statement stands."""
    package = ["hashrobust", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found.add(stem)
            if stem == "hashrobust":
                found.update(f"hashrobust.{alias.name}" for alias in node.names)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = part_of(path)
    if own in FREE:
        return
    for module in imported_modules(path):
        names = module.split(".")
        if names[0] != "hashrobust" or len(names) == 1 or names[1] == own:
            continue
        other = names[1]
        assert other in DEPTH, f"{own} imports {module}, which has no layer"
        allowed = DEPTH[other] < DEPTH[own]
        assert allowed, f"{path.relative_to(PACKAGE)} imports {module}: {own} may not know {other}"


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
