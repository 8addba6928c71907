"""The mutants are what they should be, and a project whose tests are known gets the known answer."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # its files import each other as a script's do

from children import answer_of
from mutations import mutants

HERE = Path(__file__).parent
MODULE = """
import torch
LIMIT = 3

def clipped(values: list[int], limit: int = 5) -> list[int]:
    found = []
    for value in values:
        if value < limit and not value == 0:
            found.append(min(value, LIMIT) + 1)
    return torch.relu(sorted(found, reverse=True))

class Counted:
    start = 1

    @property
    def following(self) -> int:
        return self.start.clone()[self.start:-1]
"""


def of_kind(kind: str, source: str = MODULE) -> set[str]:
    """What stands there instead, of all seeds."""
    found = [mutant for seed in range(20) for mutant in mutants(source, seed) if mutant.kind == kind]
    return {line[1:].strip() for mutant in found for line in mutant.diff.splitlines() if line[0] == "+"}


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("operator", {"found.append(min(value, LIMIT) - 1)", "found.append(min(value, LIMIT) * 1)"}),
        (
            "operand",
            {"found.append(min(value, LIMIT))", "found.append(1)", "if value < limit:", "if not value == 0:"},
        ),
        ("opposite", {"found.append(max(value, LIMIT) + 1)"}),
        ("loop", {"for value in ():"}),
        ("statement", {"pass"}),
        ("keyword", {"return torch.relu(sorted(found))"}),
        ("decorator", set()),
        ("slice", {"return self.start.clone()[:-1]", "return self.start.clone()[self.start:]"}),
    ],
)
def test_kinds(kind: str, lines: set[str]) -> None:
    assert of_kind(kind) == lines


def test_conditions_are_turned_and_signs_dropped() -> None:
    assert "if not (value < limit and (not value == 0)):" in of_kind("condition")
    assert "if value < limit or not value == 0:" in of_kind("condition")
    assert of_kind("sign") == {"if value < limit and value == 0:", "return self.start.clone()[self.start:1]"}
    assert {"if value <= limit and (not value == 0):", "if value < limit and (not value != 0):"} <= of_kind(
        "comparison"
    )


def test_a_call_becomes_what_it_was_made_of() -> None:
    assert {"return sorted(found, reverse=True)", "return torch.relu(found)"} <= of_kind("call")
    assert "return self.start[self.start:-1]" in of_kind("call")


def test_constants_move_by_one_or_become_0() -> None:
    assert {f"LIMIT = {number}" for number in (0, 2, 4)} <= of_kind("constant")
    assert "return torch.relu(sorted(found, reverse=False))" in of_kind("constant")


def test_other_statements() -> None:
    source = "def f(x):\n    try:\n        x += 1\n        raise E\n    except E:\n        assert x\n        x.y = 2\n"
    assert "except ():" in of_kind("exception", source)
    assert len([mutant for mutant in mutants(source) if mutant.kind == "statement"]) == 4
    assert of_kind("statement", "while x:\n    break\n") == {"continue"}
    assert of_kind("condition", "[x for x in y if x]") == {"[x for x in y if not x]"}


def test_annotations_and_docstrings_are_left_alone() -> None:
    assert (
        mutants('x: Literal[1]\ndef f(a: b[1 + 2]) -> c | None:\n    """d"""\nif TYPE_CHECKING:\n    f(1)\n')
        == []
    )


def test_each_is_another_module_that_can_be_read_and_the_same_for_a_seed() -> None:
    found = mutants(MODULE, 3)
    assert found == mutants(MODULE, 3) != mutants(MODULE, 4)
    assert len({mutant.source for mutant in found}) > 20
    for mutant in found:
        assert ast.unparse(ast.parse(mutant.source)) != ast.unparse(ast.parse(MODULE))


def test_where_a_mutant_is_reached() -> None:
    def places(kind: str) -> list[tuple[int, tuple[int, int], bool]]:
        return [
            (mutant.line, mutant.span, mutant.at_import) for mutant in mutants(MODULE) if mutant.kind == kind
        ]

    assert places("loop") == [(7, (7, 7), False)]
    assert places("operator") == [(9, (9, 9), False)]
    assert places("decorator") == [(16, (16, 17), True)]
    constants = places("constant")
    assert constants[:2] == [(3, (1, 17), True), (5, (5, 10), True)]  # LIMIT, and a default
    assert (13, (12, 17), True) in constants


def test_a_child_answers_or_is_stopped_or_dies() -> None:
    assert answer_of(lambda: {"a": [1]}, 5) == {"a": [1]}
    assert answer_of(lambda: [None for _ in iter(int, 1)], 1) == "timeout"
    assert answer_of(lambda: os.kill(os.getpid(), signal.SIGKILL), 5) == "died"
    assert answer_of(lambda: 1 / 0, 5) == "died"


TOY = """
def sign(x):
    return 1 if x >= 0 else -1

def unused(x):
    return x + 1
"""
TOY_TESTS = """
from toy import sign

def test_right():
    assert sign(3) > 0 and sign(-3) == -1

def test_wrong():
    assert sign(1) == 2
"""


def test_a_project_whose_tests_are_known(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TOY_TESTS)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, HERE / "run.py", "toy.py", "--tests", "test_*.py", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )

    first = run()
    assert "left out, since it does not pass: test_toy.py::test_wrong" in first.stderr
    total = first.stdout.splitlines()[-1].split()
    count = len(mutants(TOY))
    # Those of `unused` are reached by no test; `sign(0)` is never asked, nor whether sign(3) is 1.
    assert total == ["all", *map(str, (count, count, count - 3 - 2, 0, 2, 3))]
    assert "-    return 1 if x >= 0 else -1" in first.stdout and "unreached" in first.stdout
    assert (tmp_path / "toy.py").read_text() == TOY

    (tmp_path / "test_toy.py").write_text(TOY_TESTS + "\ndef test_0():\n    assert sign(0) == 1\n")
    assert run("--show").stdout == first.stdout
    assert run().stdout == first.stdout
    again = run("--again").stdout.splitlines()[-1].split()
    assert int(again[5]) < 2 and again[6] == "3"


def test_loops_run_as_python_where_they_are_to_be_changed() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import run; run.interpret()\n"
        "from hashrobust.metrics import _kernel, average_precision\n"
        "print(type(_kernel._counter(1, 0)).__name__, type(_kernel._take_margins).__name__)\n"
        "codes, labels = [[1, 1], [1, -1], [-1, 1]], [0, 1, 0]\n"
        "for ties in ('best', 'worst', 'position'):\n"
        "    print(average_precision(codes[:1], codes, labels[:1], labels, ties=ties))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["function function", "[1.]", "[0.83333333]", "[0.83333333]"]
