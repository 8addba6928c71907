from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from pyarrow import parquet

from hashrobust.errors import InputError, StoreError, UnwritableError
from hashrobust.experiments.audit.plan import AuditConfig
from hashrobust.experiments.checksums import read_times, self_sealed
from hashrobust.experiments.external import read_array
from hashrobust.experiments.files import locked, staging, writing
from hashrobust.experiments.store import (
    Folder,
    config_hash,
    find_run,
    list_runs,
    read_arrays,
    sealed_writing,
)
from hashrobust.models import save_tensors

CONFIG = {"task": "finetune", "bits": 12, "patience": None}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.create(tmp_path / "results" / "digits-one", CONFIG)


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_creating_again_opens_what_is_there(folder: Folder) -> None:
    folder.write_json("metrics.json", {"map": 0.5})
    again = Folder.create(folder.path, CONFIG)
    assert again.config == {"format": 1, "task": "finetune", "bits": 12}
    assert again.read_json("metrics.json", made_by="evaluate") == {"map": 0.5}


def test_a_folder_whose_making_was_interrupted_is_completed(folder: Folder) -> None:
    (folder.path / "checksums.json").unlink()
    assert Folder.open(folder.path).config["bits"] == 12
    assert Folder.create(folder.path, CONFIG).has("config.toml")
    (folder.path / "checksums.json").unlink()
    (folder.path / "config.toml").unlink()
    with pytest.raises(StoreError, match=r"is no run folder, it has no config\.toml"):
        Folder.open(folder.path)
    assert Folder.create(folder.path, CONFIG).config["bits"] == 12


def test_files_count_once_their_checksum_stands(folder: Folder) -> None:
    with writing(folder.path / "model.safetensors") as temporary:
        temporary.write_bytes(b"weights")
    assert not folder.has("model.safetensors")
    with pytest.raises(StoreError, match=r"has no model.safetensors yet: run `hashrobust finetune` first"):
        folder.file("model.safetensors", made_by="finetune")
    folder.seal("model.safetensors")
    assert folder.file("model.safetensors", made_by="finetune").read_bytes() == b"weights"
    assert folder.damaged() == []


def test_changed_and_missing_files_are_found(folder: Folder) -> None:
    folder.write_json("a.json", 1)
    folder.write_json("b.json", 2)
    (folder.path / "a.json").write_text("3")
    (folder.path / "b.json").unlink()
    assert folder.damaged() == ["a.json", "b.json"]
    with pytest.raises(
        StoreError, match=r"does not match its checksum.*make it again with `hashrobust attack --ov"
    ):
        folder.read_json("a.json", made_by="attack")
    assert not folder.has("b.json")


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({"task": "finetune"}, "finetune"),
        ({"task": "pretrain"}, "pretrain"),
        ({"attack": "center"}, "attack"),
        (AuditConfig().to_dict(), "audit"),
    ],
)
def test_a_configuration_changed_by_hand_is_refused(
    tmp_path: Path, config: dict[str, Any], command: str
) -> None:
    folder = Folder.create(tmp_path / "run", config)
    with (folder.path / "config.toml").open("a") as file:
        file.write("another = 0.5\n")
    for opening in (
        lambda: Folder.open(folder.path),
        lambda: Folder.create(folder.path, config),
        lambda: list_runs(tmp_path),
    ):
        with pytest.raises(
            StoreError, match=f"config.toml' does not match its checksum.*`hashrobust {command} --ov"
        ):
            opening()


@pytest.mark.parametrize(
    ("content", "message"),
    [("format = 2\n", "has format 2, this version reads 1"), ("bits = 12\n", "has format None"),
     ("bits = \n", "is damaged"), (b"\xff\xfe", "is damaged")],
)  # fmt: skip
def test_other_formats_are_refused(folder: Folder, content: str | bytes, message: str) -> None:
    (folder.path / "config.toml").write_bytes(content.encode() if isinstance(content, str) else content)
    folder.seal("config.toml")
    with pytest.raises(StoreError, match=message):
        Folder.open(folder.path)


@pytest.mark.parametrize("content", ["{", "[]", '"x"'])
def test_damaged_checksums_are_refused(folder: Folder, content: str) -> None:
    (folder.path / "checksums.json").write_text(content)
    with pytest.raises(StoreError, match=r"checksums\.json' is damaged"):
        Folder.open(folder.path)


@pytest.mark.parametrize("name", ["metrics.json", "timing.json", "config.toml"])
def test_numbers_that_64_bits_do_not_hold_are_damage(folder: Folder, name: str) -> None:
    number = 10**400
    text = {"metrics.json": f'{{"map": {number}}}', "timing.json": self_sealed("times", {"train": number})}
    (folder.path / name).write_text(text.get(name, f"format = 1\nbits = 0x{number:x}\n"))
    folder.seal(name)
    read = {
        "metrics.json": lambda: folder.read_json(name, made_by="evaluate"),
        "timing.json": lambda: read_times(folder.path / name),
        "config.toml": lambda: folder.config,
    }[name]
    with pytest.raises(StoreError, match=r"damaged .*more than 64 bits hold"):
        read()


def test_tables_arrays_and_timing(folder: Folder) -> None:
    table = pd.DataFrame({"epoch": [1, 2], "loss": [0.1, 1 / 3]})
    for name in ("losses.csv", "losses.parquet"):
        folder.write_table(name, table)
        pd.testing.assert_frame_equal(folder.read_table(name, made_by="finetune"), table)
    folder.write_arrays("codes.npz", {"codes": np.arange(3)})
    assert read_arrays(folder.path / "codes.npz")["codes"].tolist() == [0, 1, 2]
    folder.add_timing(a_seconds=1.0)
    folder.add_timing(b_seconds=2.0)
    assert read_times(folder.path / "timing.json") == ({"a_seconds": 1.0, "b_seconds": 2.0}, True)
    assert "timing.json" not in folder.checksums
    assert {"losses.csv", "losses.parquet", "codes.npz"} <= set(folder.checksums)


def test_a_text_that_stands_once_for_all_rows_is_not_spread(folder: Folder) -> None:
    """300 rows of a million letters, in a file of some kilobytes; there might be many more."""
    texts = pyarrow.DictionaryArray.from_arrays(np.zeros(300, dtype=np.int32), ["x" * 1_000_000])
    table = pyarrow.table({"query_id": np.arange(300), "target": texts})
    with folder.writing("queries.parquet") as temporary:
        parquet.write_table(table, temporary, store_schema=False)
    with pytest.raises(StoreError, match="target unpacks to more"):
        folder.read_table("queries.parquet", made_by="attack")


@pytest.mark.parametrize("target", [pyarrow.nulls(2), pyarrow.array([[1], [2]]), pyarrow.array([b"a", b"b"])])
def test_words_of_tables_are_text(folder: Folder, target: pyarrow.Array) -> None:
    with folder.writing("queries.parquet") as temporary:
        parquet.write_table(pyarrow.table({"query_id": [0, 1], "target": target}), temporary)
    with pytest.raises(StoreError, match="target holds no text"):
        folder.read_table("queries.parquet", made_by="attack")


def test_texts_of_tables_come_back(folder: Folder) -> None:
    table = pd.DataFrame({"query_id": [0, 1, 2], "target": ["duck", "goose", "duck"], "ap": [0.5, np.nan, 1]})
    folder.write_table("queries.parquet", table)
    pd.testing.assert_frame_equal(folder.read_table("queries.parquet", made_by="attack"), table)


def test_arrays_whose_directory_begins_before_their_file_are_damage(folder: Folder) -> None:
    folder.write_arrays("codes.npz", {"train": np.ones(3)})
    path = folder.path / "codes.npz"
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x05\x06") + 16  # of the length of what stands before
    content[place : place + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"codes.npz' is damaged"):
        read_arrays(path)


def test_objects_in_arrays_are_not_unpickled(folder: Folder) -> None:
    np.savez(folder.path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(folder.path / "bad.npz")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder: Folder) -> None:
    folder.write_json("a.json", {"map": 1})
    before = names(folder.path)
    with pytest.raises(ZeroDivisionError), folder.writing("a.json") as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert names(folder.path) == before
    assert folder.read_json("a.json", made_by="x") == {"map": 1}


def test_a_copy_without_room_is_told_by_the_name_that_the_user_knows(tmp_path: Path) -> None:
    """Its error names the file that is read first, and the temporary one second."""
    path, source = tmp_path / "copy", tmp_path / "source"
    with pytest.raises(UnwritableError, match=r"'.*/copy' cannot be written") as raised:  # noqa: SIM117
        with writing(path) as temporary:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(source), None, str(temporary))
    assert ".tmp-" not in str(raised.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("place", ["touch", "replace"])
def test_places_that_cannot_be_written_say_so(
    folder: Folder, code: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    before = names(folder.path)
    monkeypatch.setattr(Path, place, refuse)
    with pytest.raises(
        StoreError, match=f"a.json' cannot be written .{os.strerror(code)}.: make room or choose"
    ):
        folder.write_json("a.json", 1)
    monkeypatch.undo()
    assert names(folder.path) == before


def test_a_disk_that_became_read_only_is_told_by_the_name_that_the_user_knows(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be removed there either, not even what was never made."""

    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for place in ("touch", "unlink"):
        monkeypatch.setattr(Path, place, refuse)
    told = "' cannot be written .Read-only file system.: make"
    with pytest.raises(UnwritableError, match=f"^'{folder.path}/a.json{told}"):
        folder.write_json("a.json", 1)
    monkeypatch.setattr(Path, "mkdir", lambda path, **options: None if path.exists() else refuse(path.parent))
    with (
        pytest.raises(UnwritableError, match=f"^'{folder.path}/export{told}"),
        staging(folder.path / "export"),
    ):
        pass


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a list could survive a loss of power that the files on it, or its own content, do not."""
    on_disk: dict[int, bytes] = {}
    renamed: list[str] = []
    replace, rename = Path.replace, Path.rename

    def flush(descriptor: int) -> None:
        file = os.fstat(descriptor).st_ino
        on_disk[file] = Path(f"/dev/fd/{descriptor}").read_bytes()

    def check(temporary: Path, target: Path) -> None:
        renamed.append(target.name)
        files = [temporary] if temporary.is_file() else [p for p in temporary.rglob("*") if p.is_file()]
        assert files and all(on_disk[file.stat().st_ino] == file.read_bytes() for file in files)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", lambda path, to: (check(path, to), replace(path, to))[1])
    monkeypatch.setattr(Path, "rename", lambda path, to: (check(path, to), rename(path, to))[1])
    with folder.writing("model.safetensors") as temporary:
        save_tensors({"weight": torch.ones(3)}, temporary, {})
    folder.write_json("metrics.json", 1)
    folder.add_timing(seconds=1.0)
    with staging(folder.path / "export") as place:
        (place / "model.py").write_text("model = None")
    lists = ["checksums.json"]
    assert renamed == ["model.safetensors", *lists, "metrics.json", *lists, "timing.json", "export"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What the system says of larger ones, whatever library writes them, it says of a full disk too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_tensors_that_find_no_room_are_told_by_the_name_that_the_user_knows(folder: Folder) -> None:
    with (
        pytest.raises(UnwritableError) as raised,
        files_of_at_most(1000),
        folder.writing("model.safetensors") as temporary,
    ):
        save_tensors({"weight": torch.zeros(1000)}, temporary, {})
    assert str(raised.value).startswith(f"'{folder.path / 'model.safetensors'}' cannot be written")
    assert ".tmp" not in str(raised.value)


def test_a_folder_where_a_file_stands_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("no folder")
    with pytest.raises((StoreError, OSError)), Folder.held(tmp_path / "results" / "run", CONFIG):
        pass


def _try_lock(path: Path, answers: multiprocessing.Queue[str]) -> None:
    try:
        with locked(path):
            answers.put("held")
    except StoreError as error:
        answers.put(str(error))


def test_one_process_at_a_time(folder: Folder) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()

    def ask() -> str:
        other = context.Process(target=_try_lock, args=(folder.path, answers))
        other.start()
        other.join(20)
        return answers.get(timeout=20)

    with folder.lock():
        assert "is in use by another process: wait for it to end" in ask()
    assert ask() == "held"


def test_a_file_system_without_locks_is_no_other_process(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for wait in (False, True):
        with pytest.raises(UnwritableError, match="cannot lock files"), folder.lock(wait=wait):
            pass


def test_what_another_process_is_about_to_write_into_a_run_stays(
    at_work: Callable[..., tuple[BaseProcess, Connection]], folder: Folder
) -> None:
    """A report or a picture, for which nobody holds the run."""
    other, pipe = at_work(_write_until_told, folder.path / "report" / "summary.md")
    with folder.lock():
        pipe.send("go on")
        other.join(20)
    assert other.exitcode == 0 and folder.has("report/summary.md")


def test_what_a_killed_process_left_is_removed_when_the_folder_is_next_held(folder: Folder) -> None:
    left = [
        ".tmp-abcd1234.model.safetensors",
        "checkpoints/.tmpXyZ12",
        "attacks/hag-1/.tmp-x.queries.parquet",
    ]
    for name in left:
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(b"half")
    folder.write_json("a.json", 1)
    with folder.lock():
        assert names(folder.path) == {"config.toml", "checksums.json", ".lock", "a.json"}


def _write_until_told(path: Path, pipe: Connection) -> None:
    with sealed_writing(path) as temporary:
        temporary.write_text("half")
        pipe.send("begun")
        pipe.poll(20)


def _stage_until_told(path: Path, pipe: Connection) -> None:
    with staging(path) as place:
        (place / "model.safetensors").write_text("half")
        pipe.send("begun")
        pipe.poll(20)


@pytest.fixture
def at_work() -> Iterator[Callable[..., tuple[BaseProcess, Connection]]]:
    """Starts processes that are in the middle of something, and go on when they are told."""
    context = multiprocessing.get_context("fork")
    started = []

    def start(action: Callable[..., None], path: Path) -> tuple[BaseProcess, Connection]:
        pipe, theirs = context.Pipe()
        process = context.Process(target=action, args=(path, theirs))
        process.start()
        theirs.close()
        started.append(process)
        assert pipe.poll(20) and pipe.recv() == "begun"
        return process, pipe

    yield start
    for process in started:
        process.kill()
        process.join(20)


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL


def test_what_a_killed_report_left_is_removed_by_the_next_one(
    at_work: Callable[..., tuple[BaseProcess, Connection]], tmp_path: Path
) -> None:
    """No process holds the folder of a report as it holds a run; what others are about to write there stays."""
    report = tmp_path / "report"
    killed, _ = at_work(_write_until_told, report / "results.csv")
    kill(killed)
    assert any(name.startswith(".tmp-") for name in names(report))
    other, pipe = at_work(_write_until_told, report / "page.html")
    (report / ".tmp-notes.txt").write_text("the user's own")
    with sealed_writing(report / "summary.md") as temporary:
        temporary.write_text("whole")
    pipe.send("go on")
    other.join(20)
    assert other.exitcode == 0
    assert names(report) == {"checksums.json", "page.html", "summary.md", ".tmp-notes.txt"}
    assert (report / "page.html").read_text() == "half"


def test_what_a_report_is_about_to_write_into_a_run_stays_when_the_run_is_held(
    at_work: Callable[..., tuple[BaseProcess, Connection]], folder: Folder
) -> None:
    other, pipe = at_work(_write_until_told, folder.path / "examples" / "examples.png")
    with folder.lock():
        pipe.send("go on")
        other.join(20)
    assert other.exitcode == 0 and folder.has("examples/examples.png")


def test_a_folder_appears_whole_and_what_a_killed_process_left_goes(
    at_work: Callable[..., tuple[BaseProcess, Connection]], tmp_path: Path
) -> None:
    killed, _ = at_work(_stage_until_told, tmp_path / "export")
    kill(killed)
    (left,) = tmp_path.iterdir()
    at_work(_stage_until_told, tmp_path / "other")
    assert not left.exists()
    with pytest.raises(UnwritableError) as raised, staging(tmp_path / "export") as place:
        (left,) = (path for path in tmp_path.iterdir() if path != place.parent)
        assert (left / "other" / "model.safetensors").is_file()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place / "model.onnx")
    assert str(raised.value).startswith(f"'{tmp_path / 'export'}' cannot be written")
    with staging(tmp_path / "export") as place:
        (place / "model.safetensors").write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"export", left.name}
    with pytest.raises(OSError, match="not empty"), staging(tmp_path / "export") as place:
        (place / "model.safetensors").write_text("other")
    assert (tmp_path / "export" / "model.safetensors").read_text() == "whole"
    for code in (errno.ENOSPC, 0):
        with suppress(UnwritableError), staging(tmp_path / "export", replacing=True) as place:
            (place / "model.py").write_text("new")
            if code:
                raise OSError(code, os.strerror(code))
        assert names(tmp_path / "export") == {"model.safetensors" if code else "model.py"}
    assert {path.name for path in tmp_path.iterdir()} == {"export", left.name}


def test_overwriting_empties_the_folder_but_keeps_holding_it(folder: Folder) -> None:
    folder.write_json("a.json", 1)
    (folder.path / "attacks" / "hag-1").mkdir(parents=True)
    with Folder.held(folder.path, {"bits": 16}, overwrite=True) as fresh:
        assert names(folder.path) == {"config.toml", "checksums.json", ".lock"}
        assert fresh.config["bits"] == 16
        with pytest.raises(StoreError, match="in use"), Folder.held(folder.path, CONFIG, overwrite=True):
            pass
    assert not (folder.path / "attacks").exists()


def test_overwriting_that_is_killed_leaves_nothing_that_counts_as_finished(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = Folder.create(folder.path / "attacks" / "hag-1", CONFIG)
    attack.write_json("metrics.json", {})
    folder.write_json("metrics.json", {})
    removed: list[str] = []
    real = Path.unlink

    def killed_at_the_third(path: Path, **given: bool) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(path.name)
        real(path, **given)

    monkeypatch.setattr(Path, "unlink", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        folder.clear()
    monkeypatch.undo()
    assert not folder.has("metrics.json") and not attack.has("metrics.json")


def test_a_folder_of_another_configuration_is_refused(folder: Folder) -> None:
    """Eight digits may be the same for two."""
    for other in ({**CONFIG, "bits": 16}, {"task": "finetune"}, {**CONFIG, "patience": 3}):
        with pytest.raises(StoreError, match=r"digits-one' holds another configuration .*(bits|patience)"):
            Folder.create(folder.path, other)
    assert Folder.create(folder.path, {**CONFIG, "bits": 16}, overwrite=True).config["bits"] == 16


def test_configurations_have_one_hash_whatever_their_order() -> None:
    assert config_hash({"a": 1, "b": [1, 2]}) == config_hash({"b": [1, 2], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert len(config_hash({})) == 8


def test_runs_are_found_by_path_name_and_beginning(folder: Folder, tmp_path: Path) -> None:
    results = folder.path.parent
    two = Folder.create(results / "digits-two[x]", CONFIG)
    (results / "digits-empty").mkdir()
    for name in (str(folder.path), "digits-one", "digits-o", f"{folder.path}/"):
        assert find_run(name, results).path.resolve() == folder.path.resolve()
    assert find_run("digits-two[", results).path == two.path
    assert [run.name for run in list_runs(results)] == ["digits-one", "digits-two[x]"]
    assert [run.name for run in list_runs(folder.path)] == ["digits-one"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("digits-", r"fits 2 runs \(digits-one, digits-two\): give more"), ("mnist", "no run 'mnist' in"),
     ("", "name of a run is empty"), ("/no/such/run", "no run '/no/such/run'"), ("../*", "no run")],
)  # fmt: skip
def test_names_that_fit_no_run_or_several(folder: Folder, name: str, message: str) -> None:
    Folder.create(folder.path.parent / "digits-two", CONFIG)
    with pytest.raises(StoreError, match=message):
        find_run(name, folder.path.parent)


def test_a_folder_of_the_same_name_here_is_not_in_the_way_of_a_run(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert find_run("digits", folder.path.parent).path == folder.path
    with pytest.raises(StoreError, match="'digits' is no run folder"):
        find_run("digits", tmp_path / "none")


def test_an_attack_is_no_run(folder: Folder) -> None:
    attack = Folder.create(folder.path / "attacks" / "hag-1", {"attack": "hag"})
    with pytest.raises(StoreError, match=r"hag-1' is an attack on run 'digits-one', and no run: name that"):
        find_run(str(attack.path), folder.path.parent)


def test_missing_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run 'x'"):
        find_run("x", tmp_path / "none")
    with pytest.raises(StoreError, match="does not exist: make a run"):
        list_runs(tmp_path / "none")
    with pytest.raises(StoreError, match="does not exist"):
        Folder.open(tmp_path / "none")
    with pytest.raises(StoreError, match="is no run folder"):
        find_run(str(tmp_path), tmp_path)


def test_writing_makes_folders_and_readable_files(tmp_path: Path) -> None:
    with writing(tmp_path / "a" / "b" / "c.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b" / "c.txt").stat().st_mode & 0o777 == 0o644


def test_foreign_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(2))
    assert read_array(tmp_path / "a.npy").tolist() == [[1, 0], [0, 1]]
    np.savez(tmp_path / "several.npz", a=np.eye(2))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "empty.npy").touch()
    for name, message in {
        "none.npy": "does not exist",
        "several.npz": "holds several arrays",
        "objects.npy": "no .npy file of numbers",
        "text.npy": "no .npy file of numbers",
        "empty.npy": "no .npy file of numbers",
    }.items():
        with pytest.raises(InputError, match=message):
            read_array(tmp_path / name)


def test_json_holds_null_for_numbers_that_json_has_no_word_for(tmp_path):
    folder = Folder.create(tmp_path / "run", {"task": "finetune"})
    folder.write_json("metrics.json", {"psnr": float("inf"), "theory": [float("nan"), 0.5], "map": 1.0})
    text = (folder.path / "metrics.json").read_text()
    assert "Infinity" not in text and "NaN" not in text
    assert folder.read_json("metrics.json", made_by="attack") == {
        "psnr": None,
        "theory": [None, 0.5],
        "map": 1.0,
    }


def test_a_run_goes_before_what_it_was_at_an_epoch(tmp_path: Path) -> None:
    for name in (
        "digits-bp-s0-12345678",
        "digits-bp-s0-12345678@epoch-005",
        "digits-bp-s0-12345678@epoch-007",
    ):
        Folder.create(tmp_path / name, CONFIG)
    assert find_run("digits-bp", tmp_path).name == "digits-bp-s0-12345678"
    assert find_run("digits-bp-s0-12345678@epoch-005", tmp_path).name.endswith("@epoch-005")
    Folder.create(tmp_path / "digits-bp-s1-12345678", CONFIG)
    with pytest.raises(StoreError, match="fits 4 runs"):
        find_run("digits-bp", tmp_path)


def test_a_held_folder_can_be_waited_for(folder: Folder) -> None:
    order: list[str] = []
    held = threading.Event()

    def hold() -> None:
        with folder.lock():
            held.set()
            time.sleep(0.3)
            order.append("first")

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with folder.lock(wait=True):
        order.append("second")
    holder.join()
    assert order == ["first", "second"]
