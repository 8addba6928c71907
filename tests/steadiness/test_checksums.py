"""Every stored file has a checksum, and whatever happens to one is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashrobust.errors import StoreError
from hashrobust.experiments.attack_runs import is_done
from hashrobust.experiments.checksums import SealedFolder, read_times
from hashrobust.experiments.crafting import discard_parts
from hashrobust.experiments.store import Folder, list_runs
from hashrobust.experiments.verification import verify

Command = Callable[..., tuple[int, str, str]]

KINDS = (
    *("config.toml", "environment.json", "conversion.json", "history.csv", "alignment.csv", "timing.json"),
    *(
        "model.safetensors",
        "feedback.safetensors",
        "codes.npz",
        "index.faiss",
        "metrics.json",
        "checksums.json",
    ),
    *("checkpoints/epoch-001.safetensors", "checkpoints/state.safetensors", "gradient_checks/*.json"),
    *("fitted/*.safetensors", "attacks/*/queries.parquet", "attacks/*/examples/examples.npz"),
    *(
        "attacks/*/examples/examples.png",
        "audits/*/audit.json",
        "study-tiny/study.toml",
        "study-tiny/plan.csv",
    ),
    *(
        "report/results.parquet",
        "report/summary.md",
        "report/*.png",
        "page.html",
        "found.png",
        "export/model.py",
    ),
    "attacks/*/parts/*.npz",
)


@pytest.fixture(scope="module")
def whole(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with an attack in progress. Tests leave it as it was."""
    results = Path(shutil.copytree(everything, tmp_path_factory.mktemp("whole") / "results"))
    attack = next(attack for run in list_runs(results) for attack in run.attacks())
    begun = Folder.create(attack.path.with_name("center-00000000"), {"attack": "center"})
    begun.write_arrays("parts/0000000.npz", {"clean": [1, 2, 3]})
    return results


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(whole, tmp_path / "results"))


def stored(results: Path) -> list[Path]:
    return [path for path in sorted(results.rglob("*")) if path.is_file() and path.name != ".lock"]


def test_every_kind_of_file_has_a_checksum(whole: Path) -> None:
    assert [kind for kind in KINDS if not list(whole.rglob(kind))] == []
    found = verify(whole)
    assert (found.wrong, found.unsealed) == (0, [])
    assert found.matching == len(stored(whole))


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_is_found_and_named(whole: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    path = data.draw(st.sampled_from(sorted(whole.rglob(kind))))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(changed)
        found = verify(whole)
    finally:
        path.write_bytes(content)
    assert (found.changed, found.missing) == ([path], [])


def test_every_bit_of_the_lists_themselves_counts(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path / "run", {"task": "finetune"})
    folder.add_timing(training_seconds=1.5)
    for name in ("checksums.json", "timing.json"):
        path = folder.path / name
        content = path.read_bytes()
        for bit in range(8 * len(content)):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            assert verify(tmp_path).changed == [path], (name, bit)
        path.write_bytes(content)
    assert verify(tmp_path).wrong == 0


def test_the_command_names_what_is_changed_missing_and_unknown(command: Command, results: Path) -> None:
    assert command("verify", results)[0] == 0
    run = next(run for run in list_runs(results) if run.has("feedback.safetensors"))
    (run.path / "model.safetensors").write_bytes(b"")
    (run.path / "history.csv").unlink()
    (run.path / "checkpoints" / "epoch-001.txt").write_text("what is this?")
    (results / "report" / "notes.txt").write_text("my own notes are nobody's business")
    code, out, err = command("verify", results)
    assert code == 1
    assert out.splitlines()[:3] == [
        f"changed: {run.path / 'model.safetensors'}",
        f"missing: {run.path / 'history.csv'}",
        f"unknown: {run.path / 'checkpoints' / 'epoch-001.txt'}",
    ]
    assert "3 files are wrong (1 changed, 1 missing, 1 unknown)" in err and "notes.txt" in err
    code, out, _ = command("verify", results, "--json", "--quiet")
    told = json.loads(out)
    assert code == 1 and told["missing"] == [str(run.path / "history.csv")]
    assert told["unsealed"] == [str(results / "report" / "notes.txt")]


def test_what_a_process_at_work_removes_meanwhile_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the batches of an attack that ends just then."""
    attack = Folder.create(tmp_path / "attack", {"attack": "center"})
    attack.write_arrays("parts/0000000.npz", {"clean": [1]})
    read = SealedFolder.checksums
    assert isinstance(read, property) and read.fget is not None

    def removed_meanwhile(folder: SealedFolder) -> dict[str, str]:
        monkeypatch.setattr(SealedFolder, "checksums", read)
        listed = folder.checksums
        discard_parts(attack)
        return listed

    monkeypatch.setattr(SealedFolder, "checksums", property(removed_meanwhile))
    assert verify(tmp_path).wrong == 0 and not attack.has("parts/0000000.npz")


def test_folders_without_results_are_asked_wrongly(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no results")
    code, _, err = command("verify", tmp_path)
    assert code == 2 and "holds no results" in err
    assert command("verify", tmp_path / "nowhere")[0] == 2


def test_old_folders_are_read_and_said_to_have_no_checksum(command: Command, results: Path) -> None:
    """Flat lists without a checksum of their own; checkpoints, times, pictures and reports without any."""
    for path in results.rglob("checksums.json"):
        sums = SealedFolder(path.parent).checksums
        sealed = ("checkpoints/", "parts/", "examples/examples.png")
        old = {name: digest for name, digest in sums.items() if not name.startswith(sealed)}
        path.write_text(json.dumps(old, indent=1) + "\n")
    for path in results.rglob("timing.json"):
        path.write_text(json.dumps(read_times(path)[0]))
    for folder in ("report", "study-tiny", "."):
        (results / folder / "checksums.json").unlink()
    code, out, err = command("verify", results)
    assert code == 0, out
    assert "no checksum:" in err
    unsealed = {path.name for path in verify(results).unsealed}
    assert {"state.safetensors", "timing.json", "results.csv", "study.toml", "page.html"} <= unsealed
    run = next(run for run in list_runs(results) if run.has("feedback.safetensors"))
    assert command("report", run.path)[0] == 0
    run.add_timing(index_seconds=2.0)
    times, sealed_now = read_times(run.path / "timing.json")
    assert sealed_now and {"training_seconds", "index_seconds"} <= set(times)


def test_nothing_that_is_written_is_unknown(results: Path) -> None:
    """Not even where a killed process could not list it any more."""
    for path in results.rglob("checksums.json"):
        path.unlink()
    found = verify(results)
    assert found.wrong == 0 and len(found.unsealed) + found.matching == len(stored(results))


def test_a_changed_checkpoint_is_refused(command: Command, results: Path) -> None:
    run = next(run for run in list_runs(results) if run.has("feedback.safetensors"))
    run.unseal("model.safetensors")
    state = run.path / "checkpoints" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    study = results.parent / "tiny.toml"
    study.write_text((results / "study-tiny" / "study.toml").read_text())
    code, _, err = command("study", study, "--results", results)
    assert code == 1 and "state.safetensors' does not match its checksum" in err


def test_a_changed_part_of_an_attack_is_refused(tmp_path: Path) -> None:
    attack = Folder.create(tmp_path, {"attack": "center"})
    attack.write_arrays("parts/0000000.npz", {"clean": [1]})
    assert not is_done(attack)
    (tmp_path / "parts" / "0000000.npz").write_bytes(b"other")
    with pytest.raises(StoreError, match=r"parts/0000000\.npz' does not match its checksum"):
        attack.file("parts/0000000.npz", made_by="attack")


def test_a_file_is_never_at_odds_with_the_list_whenever_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step of writing a file anew the list says nothing wrong."""
    folder = Folder.create(tmp_path, {"attack": "center"})
    folder.write_json("metrics.json", 1)
    replace, seen = Path.replace, []

    def look(temporary: Path, target: Path) -> Path:
        seen.append(verify(tmp_path).wrong)
        replaced = replace(temporary, target)
        seen.append(verify(tmp_path).wrong)
        return replaced

    monkeypatch.setattr(Path, "replace", look)
    folder.write_json("metrics.json", 2)
    assert len(seen) == 6 and not any(seen)
