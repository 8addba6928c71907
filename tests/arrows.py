"""What imports what, read from the code: the drawing in docs/design.md, and what `test_imports.py` checks.

python tests/arrows.py    # draw it anew (`make arrows`)
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hashrobust"
FILES = sorted(PACKAGE.rglob("*.py"))
DESIGN = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- drawn by tests/arrows.py -->\n", "<!-- end of the drawing -->"
ENTRANCES = {"__init__", "__main__"}


def part_of(path: Path) -> str:
    """The file or folder right below the package that a file belongs to."""
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


def parts_imported(path: Path) -> set[str]:
    """The other parts of the package that a file imports."""
    names = (module.split(".") for module in imported_modules(path))
    return {name[1] for name in names if name[0] == "hashrobust" and len(name) > 1} - {part_of(path)}


def imports_of_parts() -> dict[str, set[str]]:
    """Every part, and the parts that any of its files imports; without the package's entrances."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        if part_of(path) not in ENTRANCES:
            found.setdefault(part_of(path), set()).update(parts_imported(path))
    return found


def without_detours(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no longer path replaces (the transitive reduction)."""

    def reached(part: str) -> set[str]:
        direct = imports.get(part, set())
        return direct.union(*map(reached, direct))

    return {
        part: direct - set().union(*(reached(other) for other in direct)) for part, direct in imports.items()
    }


def drawing() -> str:
    """The imports as a Mermaid graph, which GitHub draws."""
    lines = ["```mermaid", "graph TD"]
    for part, direct in sorted(without_detours(imports_of_parts()).items()):
        lines += [f"  {part} --> {other}" for other in sorted(direct)]
    return "\n".join([*lines, "```"]) + "\n"


def drawn() -> str:
    """The drawing that docs/design.md holds."""
    return DESIGN.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    before, _, rest = DESIGN.read_text().partition(BEGIN)
    DESIGN.write_text(before + BEGIN + drawing() + END + rest.partition(END)[2])
