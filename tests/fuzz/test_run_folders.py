"""Run folders of anybody: stored files changed, cut, missing or of another shape, their checksums set right or not."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pyarrow
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet

from hashrobust.experiments.checksums import SealedFolder
from hashrobust.experiments.store import Folder

from .mutations import JUNK, examples, misshapen, mutated, toml_values

AUDIT = {
    "verdict": "FAIL",
    "task": "hashing",
    "sentence": "Failed: masking.",
    "matched": True,
    "rule": "frsf",
    "headline": {"queries": 4, "clean_map": 0.5, "worst_map": 0.1, "worst_map_low": 0.1, "worst_map_high": 0.2,
                 "exact_map": 0.1, "rule_map": 0.3, "masking_gap": 0.2, "masking_gap_low": 0.1, "masking_gap_high": 0.3,
                 "gradient_cosine": 0.3, "gradient_sign_agreement": 0.6,
                 "advantage": 0.0, "advantage_low": 0.0, "advantage_high": 0.1},
    "checks": [{"name": "masking", "status": "FAIL", "value": 0.2, "limit": "0.02", "meaning": "it masks"}],
    "attacks": [{"part": "main", "access": "white box", "on_control": False, "epsilon": 0.1, "attack": "hag",
                 "gradient": "exact", "error": None, "map": 0.1, "map_low": 0.1, "map_high": 0.2, "clean_map": 0.5,
                 "theory_map": 0.1, "gradient_evaluations": 2.0, "model_queries": 0.0, "folder": "a/attacks/b"}],
    "gradient_by_depth": [{"layer": "head", "depth": 1, "cosine": 0.5, "sign_agreement": 0.6, "norm_ratio": 1.0}],
    "determinism": {"differing_bits": 0.0},
}  # fmt: skip
CONFIGURED = {"epsilon": 0.1, "attack": "hag", "budget": "quick", "queries": 4, "steps": 2, "restarts": 1}


@pytest.fixture(scope="module")
def made(worker, tmp_path_factory) -> Path:
    """A results folder with one run: trained for a step, indexed, evaluated, attacked, and an audit made up."""
    results = tmp_path_factory.mktemp("made")
    where = ["--results", results, "--quiet"]
    size = ["--image-size", 8, "--bits", 8, "--rule", "frsf", "--epochs", 1, "--max-steps", 2, "--threads", 1]
    worker.command("finetune", *size, *where, codes=(0,))
    for words in (["index"], ["evaluate"], ["attack"]):
        rest = ["--attack", "hag", "--gradient", "exact,rule", "--steps", 1, "--queries", 4, "--no-picture"]
        worker.command(*words, "digits", *(rest if words == ["attack"] else []), *where, codes=(0,))
    (run,) = results.iterdir()
    Folder(run).unseal(*(f"checkpoints/{path.name}" for path in (run / "checkpoints").iterdir()))
    shutil.rmtree(run / "checkpoints")
    audit = Folder.create(run / "audits" / "audit-00000000", CONFIGURED)
    audit.write_json("audit.json", AUDIT)
    return results


@pytest.fixture
def results(made, tmp_path) -> Path:
    return tmp_path / "results"


def renewed(made: Path, results: Path) -> None:
    shutil.rmtree(results, ignore_errors=True)
    shutil.copytree(made, results)


def seal(path: Path) -> None:
    """Set the checksum of a changed file right, as whoever forges a run would."""
    folder = next(folder for folder in path.parents if (folder / "checksums.json").is_file())
    SealedFolder(folder).seal(path.relative_to(folder).as_posix())


def use(worker, results: Path) -> None:
    """Whatever reads run folders without long work."""
    where = ["--results", results]
    worker("tables", results)
    worker.command("list", "runs", *where)
    worker.command("verify", results)
    worker.command("evaluate", "digits", *where)
    worker.command("index", "digits", *where)
    worker.command("search", "digits", "--query", 0, *where)


def files(made: Path, suffix: str = "") -> list[str]:
    found = [path for path in sorted(made.rglob(f"*{suffix}")) if path.is_file() and path.name != ".lock"]
    return [str(path.relative_to(made)) for path in found]


TABLES = (".parquet", ".csv", ".npz")


def check_stored(worker, path: Path) -> None:
    found = worker("stored", path)
    assert "value" in found or (found["code"] == 2 and path.name in found["refused"]), found


def check_report(worker, results: Path) -> None:
    place = results.parent / "report"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    found = worker("report", results, place)
    assert "value" in found or found["code"] == 2, found


def test_the_whole_folder_is_usable(worker, made, results):
    renewed(made, results)
    assert worker("report", results, results.parent)["value"] > 5
    assert worker("tables", results)["value"] > 0
    for words in (["evaluate", "digits"], ["index", "digits"], ["search", "digits", "--query", 0]):
        worker.command(*words, "--results", results, codes=(0,))
    worker.command("verify", results, codes=(0,))


@examples(12)
@given(data=st.data(), sealed=st.booleans())
def test_changed_bytes(worker, made, results, data, sealed):
    renewed(made, results)
    name = data.draw(st.sampled_from(files(made)))
    path = results / name
    if data.draw(st.sampled_from([False] * 9 + [True])):
        path.unlink()
    else:
        path.write_bytes(data.draw(mutated(path.read_bytes())))
        if sealed and path.name != "checksums.json":
            seal(path)
    use(worker, results)


# Tables and arrays by themselves


@examples(20)
@given(data=st.data())
def test_changed_tables_and_arrays(worker, made, tmp_path, data):
    whole = made / data.draw(st.sampled_from([name for suffix in TABLES for name in files(made, suffix)]))
    path = tmp_path / whole.name
    path.write_bytes(data.draw(mutated(whole.read_bytes())))
    check_stored(worker, path)


COLUMNS = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.floats()), min_size=4, max_size=4),
    st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=4, max_size=4),
    st.sampled_from(
        [[True, None, False, True], [None] * 4, [[1], [], None, [2, 3]], [{"a": 1}] * 4, [b"\xff"] * 4]
    ),
)


@examples(3)
@given(data=st.data())
def test_tables_of_other_columns(worker, made, results, data):
    """Of what an attack or a training left, seen by a report."""
    renewed(made, results)
    path = results / data.draw(st.sampled_from(files(made, ".parquet") + files(made, ".csv")))
    is_text = path.suffix == ".csv"
    table = csv.read_csv(path) if is_text else parquet.read_table(path)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.one_of(st.sampled_from(table.column_names), st.text(max_size=4)))
        values = pyarrow.array((data.draw(COLUMNS) * len(table))[: len(table)])
        if name not in table.column_names:
            table = table.append_column(name, values)
        elif data.draw(st.booleans()):
            table = table.drop_columns(name)
        else:
            table = table.set_column(table.column_names.index(name), name, values)
        if not table.column_names:
            break
    if is_text:
        path.write_text(table.to_pandas().to_csv(index=False), errors="replace")
    else:
        parquet.write_table(table, path)
    seal(path)
    check_stored(worker, path)
    check_report(worker, results)


@examples(2)
@given(data=st.data())
def test_reports_of_changed_folders(worker, made, results, data):
    renewed(made, results)
    path = results / data.draw(st.sampled_from(files(made)))
    if path.suffix == ".json" and path.name != "checksums.json":
        path.write_text(json.dumps(data.draw(misshapen(json.loads(path.read_text())))))
    elif path.suffix == ".toml":
        document = data.draw(misshapen(tomllib.loads(path.read_text()), JUNK.filter(lambda v: v is not None)))
        path.write_text(tomli_w.dumps(toml_values(document)))
    else:
        path.write_bytes(data.draw(mutated(path.read_bytes())))
    if path.name != "checksums.json":
        seal(path)
    check_report(worker, results)


@examples(12)
@given(data=st.data())
def test_documents_of_another_shape(worker, made, results, data):
    renewed(made, results)
    path = results / data.draw(st.sampled_from(files(made, ".json")))
    document = json.loads(path.read_text())
    path.write_text(json.dumps(data.draw(st.one_of(misshapen(document), misshapen(document), JUNK))))
    if path.name != "checksums.json":
        seal(path)
    use(worker, results)


@examples(12)
@given(data=st.data())
def test_configurations_of_another_shape(worker, made, results, data):
    renewed(made, results)
    path = results / data.draw(st.sampled_from(files(made, "config.toml")))
    document = data.draw(misshapen(tomllib.loads(path.read_text()), JUNK.filter(lambda v: v is not None)))
    path.write_text(tomli_w.dumps(toml_values(document)))
    seal(path)
    use(worker, results)
