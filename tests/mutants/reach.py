"""Which tests run which lines, and how long they take: measured once for each file of tests and kept."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest
from children import OPTIONS, answer_of, first_failure
from mutations import Mutant

LONGEST = 900
"""Seconds of the processor that a file of tests may take while it is followed."""


class _Followed:
    """A plugin that tells the tracer whose lines come now, and times each test."""

    def __init__(self, tracer: coverage.Coverage, file: str) -> None:
        self.tracer, self.file, self.context = tracer, file, ""
        self.seconds: dict[str, float] = {}
        self.not_passed: set[str] = set()

    def switch(self, context: str) -> None:
        self.context = context
        self.tracer.switch_context(context)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.process_time()
        self.switch(item.nodeid)
        yield
        self.switch("")
        self.seconds[item.nodeid] = round(time.process_time() - start, 3)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """What is made once for several tests counts for all of the file."""
        before = self.context
        if fixturedef.scope != "function":
            self.switch(self.file)
        yield
        self.switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.not_passed.add(report.nodeid)


def _follow(file: str, modules: list[Path]) -> dict[str, Any]:
    """Seconds of each test of a file, names of those that do not pass, and tests by module and line. For a child."""
    tracer = coverage.Coverage(data_file=None, config_file=False, include=[str(path) for path in modules])
    plugin = _Followed(tracer, file)
    tracer.start()
    pytest.main([*OPTIONS, file], plugins=[plugin])
    tracer.stop()
    data, lines = tracer.get_data(), {}
    for path in data.measured_files():
        found = data.contexts_by_lineno(path)
        lines[path] = {line: sorted(filter(None, tests)) for line, tests in found.items() if any(tests)}
    return {"seconds": plugin.seconds, "not_passed": sorted(plugin.not_passed), "lines": lines}


@dataclass
class Reach:
    """Seconds of each test, and the tests that reach a line of a module."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, set[str]]]

    def tests_of(self, path: Path, mutant: Mutant) -> list[str]:
        """Tests that may fail for a mutant, the fastest first.

        What runs at import may matter to all of them; those of its definition come first, then those of its module.
        """
        lines = self.lines.get(str(path), {})
        first, last = mutant.span
        near = set().union(*(tests for line, tests in lines.items() if first <= line <= last))
        if not mutant.at_import:
            return sorted(near, key=self._order)
        there = set().union(*lines.values())
        groups = (near, there - near, set(self.seconds) - there)
        return [test for group in groups for test in sorted(group, key=self._order)]

    def _order(self, test: str) -> tuple[float, str]:
        return self.seconds[test], test


def measure(files: list[str], modules: list[Path], kept: Path) -> Reach:
    """Follow files of tests through some modules; what neither they nor the modules changed since is read."""
    reach = Reach({}, {})
    for file in files:
        found = _kept_or_followed(file, modules, kept / f"{file.replace('/', '.')}.json")
        reach.seconds |= found["seconds"]
        for path, lines in found["lines"].items():
            there = reach.lines.setdefault(path, {})
            for line, names in lines.items():
                tests = set(found["seconds"]) if file in names else set(names) & set(found["seconds"])
                there.setdefault(int(line), set()).update(tests)
    return reach


def _kept_or_followed(file: str, modules: list[Path], kept: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    for path in (*modules, Path(file), *Path(file).parent.glob("conftest.py")):
        digest.update(path.read_bytes())
    if kept.exists() and (known := json.loads(kept.read_text()))["digest"] == digest.hexdigest():
        return known["found"]
    found = answer_of(lambda: _follow(file, modules), LONGEST)
    if not isinstance(found, dict):
        sys.exit(f"{file} cannot be followed: {found}")
    found["seconds"] = _passing(found["seconds"], found.pop("not_passed"), modules[0])
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"digest": digest.hexdigest(), "found": found}))
    return found


def _passing(seconds: dict[str, float], not_passed: list[str], module: Path) -> dict[str, float]:
    """Those tests that pass, the fastest first too, with a module that is no mutant: others would kill everything."""
    left = {name: time for name, time in seconds.items() if name not in not_passed}
    out, plain = [*not_passed], ast.unparse(ast.parse(module.read_text()))
    while failure := answer_of(
        lambda: first_failure(module, plain, sorted(left, key=left.__getitem__)), LONGEST
    ):
        if failure not in left:
            sys.exit(f"tests cannot be run by their time: {failure}")
        del left[failure]
        out.append(failure)
    for name in out:
        print(f"left out, since it does not pass: {name}", file=sys.stderr)
    return left
