"""Would the tests notice a wrong line? One small mistake at a time is put into a module, in memory alone, and the
tests that reach it are run, the fastest first: a mutant is killed when one fails (docs/reliability.md, Mutants).

python tests/mutants/run.py rules                  # all mutants, or those that were not tried yet
python tests/mutants/run.py metrics --sample 0.1   # a tenth of them, drawn by --seed
python tests/mutants/run.py rules --again          # those that lived once more, with the tests of today
python tests/mutants/run.py rules --show           # runs nothing: the mutants that live, and the table
python tests/mutants/run.py kernel                 # loops that numba compiles, run as Python
python tests/mutants/run.py hashrobust/attacks/hag.py --tests tests/attacks/test_formulas.py
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from children import answer_of, first_failure
from mutations import Mutant, mutants
from reach import Reach, measure


@dataclass(frozen=True)
class Area:
    """Modules to be changed and files of tests that stand for them, as patterns."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    interpreted: bool = False
    """Whether loops that numba compiles run as Python: neither compiled for each mutant nor hidden from tracers."""


LOOP = ("_loop", "_ball", "_best", "_optimizers", "_alpha", "_random")
OF_LOOP = ("loop", "best", "ball", "eot", "warm_start", "settings", "measures")
SCORES = ("_ties", "ranking", "bootstrap", "_inputs", "styles", "summary")
AREAS = {
    "rules": Area(("hashrobust/rules/*.py",), ("tests/rules/test_*.py", "tests/test_attackable.py")),
    "attacks": Area(
        tuple(f"hashrobust/attacks/{name}.py" for name in LOOP),
        tuple(f"tests/attacks/test_{name}.py" for name in OF_LOOP),
    ),
    "metrics": Area(tuple(f"hashrobust/metrics/{name}.py" for name in SCORES), ("tests/test_metrics_*.py",)),
    "kernel": Area(
        ("hashrobust/metrics/_kernel.py",),
        ("tests/test_metrics_ties.py", "tests/test_metrics_ranking.py"),
        interpreted=True,
    ),
    "attackable": Area(
        ("hashrobust/models/attackable.py", "hashrobust/models/layout.py"),
        ("tests/test_attackable.py", "tests/test_layout.py", "tests/test_training.py"),
    ),
    "training": Area(
        ("hashrobust/training/loop.py",), ("tests/test_training.py", "tests/training/test_*.py")
    ),
}
IMPORTED = (
    "torch",
    "torchvision",
    "numba",
    "faiss",
    "sklearn.datasets",
    "hypothesis.extra.numpy",
    "rich.console",
)
OUTCOMES = ("killed", "timeout", "survived", "unreached")
STARTING = 20
"""Seconds of the processor that a child may take besides its tests; a mutant that takes more is one of `timeout`."""


@dataclass(frozen=True)
class Task:
    """A mutant, the module that it is one of, and a name that changes with either."""

    path: Path
    mutant: Mutant
    key: str


def tasks_of(area: Area, seed: int) -> list[Task]:
    """All mutants of an area, in an order drawn by the seed."""
    found = []
    for path in files_of(area.modules):
        text = path.read_text()
        for mutant in mutants(text, seed):
            key = hashlib.sha256(
                "\0".join((str(path), mutant.kind, text, mutant.source)).encode()
            ).hexdigest()
            found.append(Task(path, mutant, key[:16]))
    Random(seed).shuffle(found)
    return found


def files_of(patterns: tuple[str, ...]) -> list[Path]:
    """Files that fit patterns, from the folder of the project."""
    found = sorted(path for pattern in patterns for path in Path().glob(pattern))
    if not found:
        sys.exit(f"no file fits {' '.join(patterns)}: run this in the folder of the project")
    return found


def attempt(task: Task, reach: Reach, seconds: float) -> dict[str, object]:
    """Try a mutant with as many of its tests, fastest first, as take so many seconds together."""
    path = task.path.resolve()
    names = reach.tests_of(path, task.mutant)
    chosen, total = [], 0.0
    for name in names:
        total += reach.seconds[name]
        if chosen and total > seconds:
            break
        chosen.append(name)
    start, killer = time.monotonic(), None
    if not chosen:
        outcome = "unreached"
    else:
        killer = answer_of(lambda: first_failure(path, task.mutant.source, chosen), 2 * seconds + STARTING)
        outcome = "timeout" if killer == "timeout" else "survived" if killer == "" else "killed"
    return {
        "key": task.key,
        "path": str(task.path),
        "line": task.mutant.line,
        "kind": task.mutant.kind,
        "diff": task.mutant.diff,
        "outcome": outcome,
        "killer": killer,
        "tests": len(chosen),
        "left_out": len(names) - len(chosen),
        "seconds": round(time.monotonic() - start, 2),
    }


def read(log: Path) -> dict[str, dict[str, object]]:
    """The last record of each mutant that was tried."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {record["key"]: record for record in map(json.loads, lines)}


def prepare() -> None:
    """Import what children need and mutants do not change; leave nothing for children to do twice."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # children cannot use the threads of another process
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in IMPORTED:
        importlib.import_module(name)
    with contextlib.redirect_stdout(sys.stderr):
        pytest.main(["--version"])  # imports most of what pytest is made of
    sys.dont_write_bytecode = False
    gc.freeze()


def interpret() -> None:
    """Put Python in the place of numba's compiler and of the two instructions that the package takes from it.

    NUMBA_DISABLE_JIT=1 is not enough: those two cannot be called then.
    """
    numba, extending = importlib.import_module("numba"), importlib.import_module("numba.extending")
    arrays = importlib.import_module("numba.np.unsafe.ndarray")
    numba.njit = lambda function, **options: function
    extending.intrinsic = lambda generate: lambda word: type(word)(int(word).bit_count())
    arrays.to_fixed_tuple = lambda array, length: tuple(array[:length])


def run(area: Area, tasks: list[Task], log: Path, seconds: float, again: bool) -> None:
    """Try what was not tried; with `again` also what lived."""
    done = read(log)
    alive = ("survived", "unreached")
    left = [task for task in tasks if task.key not in done or (again and done[task.key]["outcome"] in alive)]
    if not left:
        return
    prepare()
    if area.interpreted:
        interpret()
    modules = [path.resolve() for path in files_of(area.modules)]
    reach = measure([str(path) for path in files_of(area.tests)], modules, log.with_suffix(".reach"))
    with log.open("a") as records:
        for count, task in enumerate(left, start=1):
            record = attempt(task, reach, seconds)
            print(json.dumps(record), file=records, flush=True)
            where = f"{count}/{len(left)} {task.path}:{task.mutant.line} {task.mutant.kind}"
            print(f"{where}: {record['outcome']}", file=sys.stderr, flush=True)


def show(tasks: list[Task], log: Path) -> None:
    """Print the mutants that live, with their difference, and a table of all."""
    done, counts, total = read(log), {}, Counter[str]()
    for task in sorted(tasks, key=lambda task: (task.path, task.mutant.line)):
        count = counts.setdefault(str(task.path), Counter[str]())
        record = done.get(task.key, {"outcome": "untried"})
        count.update(["mutants", str(record["outcome"])])
        if record["outcome"] in ("survived", "unreached"):
            left_out = f", {record['left_out']} tests left out" if record["left_out"] else ""
            print(f"{task.path}:{task.mutant.line} {task.mutant.kind}, {record['outcome']}{left_out}")
            print(f"{task.mutant.diff}\n")
    for count in counts.values():
        total.update(count)
    print(f"{'module':45}{'mutants':>10}{'tried':>10}" + "".join(f"{name:>10}" for name in OUTCOMES))
    for path, count in (*counts.items(), ("all", total)):
        numbers = (count["mutants"], count["mutants"] - count["untried"], *(count[name] for name in OUTCOMES))
        print(f"{path:45}" + "".join(f"{number:10}" for number in numbers))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("area", help=f"{', '.join(AREAS)}, or modules (a pattern) with --tests")
    parser.add_argument("--tests", nargs="+", default=[], help="files of tests (patterns)")
    parser.add_argument("--sample", type=float, default=1.0, help="share of the mutants, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="draws mutants and their order")
    parser.add_argument("--seconds", type=float, default=20.0, help="of tests for each mutant")
    parser.add_argument("--folder", type=Path, default=Path(".mutants"), help="for what was found")
    parser.add_argument("--again", action="store_true", help="try those that lived once more")
    parser.add_argument("--show", action="store_true", help="run nothing")
    options = parser.parse_args()
    area = AREAS.get(options.area) or Area((options.area,), tuple(options.tests))
    log = options.folder / f"{options.area.replace('/', '.')}.jsonl"
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / ".gitignore").write_text("*\n")
    os.environ.setdefault("NUMBA_CACHE_DIR", str(options.folder.resolve() / "compiled"))
    tasks = tasks_of(area, options.seed)
    tasks = tasks[: round(options.sample * len(tasks))]
    if not options.show:
        run(area, tasks, log, options.seconds, options.again)
    show(tasks, log)


if __name__ == "__main__":
    main()
