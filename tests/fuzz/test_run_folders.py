"""Run folders of anybody: stored files changed, cut, missing or of another shape, their checksums set right or not."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

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
                 "exact_map": 0.1, "rule_map": 0.3, "advantage": 0.0, "advantage_low": 0.0, "advantage_high": 0.1},
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


def test_the_whole_folder_is_usable(worker, made, results):
    renewed(made, results)
    assert worker("tables", results)["value"] > 0
    for words in (["evaluate", "digits"], ["index", "digits"], ["search", "digits", "--query", 0]):
        worker.command(*words, "--results", results, codes=(0,))
    worker.command("verify", results, codes=(0,))


@examples(15)
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


@examples(15)
@given(data=st.data())
def test_documents_of_another_shape(worker, made, results, data):
    renewed(made, results)
    path = results / data.draw(st.sampled_from(files(made, ".json")))
    document = json.loads(path.read_text())
    path.write_text(json.dumps(data.draw(st.one_of(misshapen(document), misshapen(document), JUNK))))
    if path.name != "checksums.json":
        seal(path)
    use(worker, results)


@examples(15)
@given(data=st.data())
def test_configurations_of_another_shape(worker, made, results, data):
    renewed(made, results)
    path = results / data.draw(st.sampled_from(files(made, "config.toml")))
    document = data.draw(misshapen(tomllib.loads(path.read_text()), JUNK.filter(lambda v: v is not None)))
    path.write_text(tomli_w.dumps(toml_values(document)))
    seal(path)
    use(worker, results)
