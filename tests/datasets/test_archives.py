"""Archives well and badly meant."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hashrobust.datasets import _archives
from hashrobust.datasets._archives import unpack
from hashrobust.errors import BusyError, DataError

ROOM = 10_000


def tar(file: Path, *entries: tuple[str, Any]) -> Path:
    """Bytes make a file; a dictionary makes the fields of another kind of entry."""
    with tarfile.open(file, "w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                archive.addfile(info)
    return file


def packed(file: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is, with whatever separators
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_a_killed_unpacking_left_is_removed(tmp_path: Path, folder: Path) -> None:
    """It may be as large as the set itself."""
    archive = packed(tmp_path / "a.zip", ("a.txt", b"whole"))
    with _archives._staging(folder, archive.name) as place:
        (place / "set").mkdir()
        (place / "set" / "a.txt").write_bytes(b"half")
        with pytest.raises(BusyError, match=r"'a\.zip' is being unpacked by another process"):
            unpack(archive, folder, most_bytes=ROOM)
        left = shutil.copytree(place, tmp_path / "left")
    shutil.move(left, place)  # as if its process had been killed
    unpack(archive, folder, most_bytes=ROOM)
    assert everything(folder) == {"a.txt": b"whole"}
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_files_and_folders_are_unpacked(tmp_path: Path, folder: Path) -> None:
    content = [("set/a.txt", b"a"), ("set/deep/b.txt", b"b"), ("c.txt", b"")]
    expected = dict(content)
    unpack(packed(tmp_path / "a.zip", *content, ("set/empty/", b"")), folder, most_bytes=2)
    assert everything(folder) == expected and (folder / "set" / "empty").is_dir()
    other = tmp_path / "other"
    unpack(tar(tmp_path / "a.tar.gz", ("set", {"type": tarfile.DIRTYPE}), *content), other, most_bytes=2)
    assert everything(other) == expected


BAD_NAMES = ["../out.txt", "set/../../out.txt", "/out.txt", "a\\..\\..\\out.txt", "C:/out.txt", "..", "."]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_names_that_lead_out_are_refused(tmp_path: Path, folder: Path, name: str, kind: str) -> None:
    make = packed if kind == "zip" else tar
    archive = make(tmp_path / f"a.{kind}", ("fine.txt", b"fine"), (name, b"bad"))
    with pytest.raises(DataError, match="leads out"):
        unpack(archive, folder, most_bytes=ROOM)
    assert everything(tmp_path).keys() == {archive.name}


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "fine.txt"},
        {"type": tarfile.LNKTYPE, "linkname": "fine.txt"},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE},
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, folder: Path, fields: dict[str, Any]) -> None:
    archive = tar(tmp_path / "a.tar.gz", ("fine.txt", b"fine"), ("odd", fields))
    with pytest.raises(DataError, match="'odd' is a link or a device"):
        unpack(archive, folder, most_bytes=ROOM)
    assert list(folder.iterdir()) == []


def test_links_in_zips_are_refused(tmp_path: Path, folder: Path) -> None:
    info = zipfile.ZipInfo("odd")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'odd' is a link"):
        unpack(tmp_path / "a.zip", folder, most_bytes=ROOM)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused_while_they_unpack(tmp_path: Path, folder: Path, kind: str) -> None:
    make = packed if kind == "zip" else tar
    archive = make(tmp_path / f"a.{kind}", ("one", b"\0" * 6_000), ("two", b"\0" * 6_000))
    assert archive.stat().st_size < 1_000
    with pytest.raises(DataError, match="more than it should hold"):
        unpack(archive, folder, most_bytes=ROOM)
    assert list(folder.iterdir()) == []
    unpack(archive, folder, most_bytes=12_000)


def test_a_header_that_promises_little_does_not_hide_a_bomb(tmp_path: Path, folder: Path) -> None:
    """The size in the directory of a zip is a claim; it is the bytes that come that count."""
    archive = packed(tmp_path / "a.zip", ("one", b"\0" * 600_000))
    lying = archive.read_bytes().replace((600_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(lying)
    with pytest.raises(DataError, match="not unpacked"):
        unpack(archive, folder, most_bytes=ROOM)
    assert list(folder.iterdir()) == []


def test_long_headers_of_a_tar_are_bounded_too(tmp_path: Path, folder: Path) -> None:
    """An extended header is read into memory whole, whatever length it claims."""
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 50_000_000
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        stream.write(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * info.size)
    with pytest.raises(DataError, match="more than it should hold"):
        unpack(tmp_path / "a.tar.gz", folder, most_bytes=ROOM)


def test_many_entries_are_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archives, "MOST_ENTRIES", 3)
    archive = packed(tmp_path / "a.zip", *((f"{number}", b"") for number in range(4)))
    with pytest.raises(DataError, match="more than 3 entries"):
        unpack(archive, folder, most_bytes=ROOM)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.zip", b""), ("a.zip", b"no archive"), ("a.tar.gz", b""), ("a.tar.gz", b"no archive"),
     ("a.tar.gz", gzip.compress(b"no tar" * 300, mtime=0))],
)  # fmt: skip
def test_what_is_no_archive_is_refused(tmp_path: Path, folder: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"archive '.*' is not unpacked"):
        unpack(tmp_path / name, folder, most_bytes=ROOM)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_damaged_archives_leave_nothing_behind(tmp_path: Path, folder: Path, kind: str) -> None:
    make = packed if kind == "zip" else tar
    noise = bytes(range(256)) * 20
    archive = make(tmp_path / f"a.{kind}", ("one", b"fine"), ("two", noise[:5000]))
    whole = bytearray(archive.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    archive.write_bytes(whole)
    with pytest.raises(DataError, match="not unpacked"):
        unpack(archive, folder, most_bytes=ROOM)
    archive.write_bytes(bytes(whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="not unpacked"):
        unpack(archive, folder, most_bytes=ROOM)
    assert list(folder.iterdir()) == []


def test_an_entry_without_a_name_is_refused(tmp_path: Path, folder: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("x", b""))
    content = archive.read_bytes()
    place = content.rindex(b"PK\x01\x02")
    directory = content[place:].replace(b"x", b"", 1)
    directory = directory[:28] + bytes(2) + directory[30:]  # the length of the name
    end = directory.index(b"PK\x05\x06")
    directory = directory[: end + 12] + end.to_bytes(4, "little") + directory[end + 16 :]
    archive.write_bytes(content[:place] + directory)
    with pytest.raises(DataError, match=r"a\.zip' is not unpacked"):
        unpack(archive, folder, most_bytes=ROOM)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("names", [("a", "a/b/c"), ("x" * 300,)])
def test_names_that_no_folder_takes_are_refused(
    tmp_path: Path, folder: Path, kind: str, names: tuple[str, ...]
) -> None:
    make = packed if kind == "zip" else tar
    archive = make(tmp_path / f"a.{kind}", *((name, b"x") for name in names))
    with pytest.raises(DataError, match="is not unpacked"):
        unpack(archive, folder, most_bytes=ROOM)
    assert list(folder.iterdir()) == []


def test_a_name_that_comes_twice_is_refused(tmp_path: Path, folder: Path) -> None:
    archive = tar(tmp_path / "a.tar.gz", ("one", b"1"), ("one", b"2"))
    with pytest.raises(DataError, match="not unpacked"):
        unpack(archive, folder, most_bytes=ROOM)


def test_nothing_of_the_user_is_overwritten(tmp_path: Path, folder: Path) -> None:
    (folder / "set").mkdir()
    (folder / "set" / "mine.txt").write_text("mine")
    archive = packed(tmp_path / "a.zip", ("other", b"x"), ("set/a.txt", b"a"))
    with pytest.raises(DataError, match="is in the way"):
        unpack(archive, folder, most_bytes=ROOM)
    assert everything(folder) == {"set/mine.txt": b"mine"}


def test_a_zip_whose_directory_would_begin_before_its_file_is_refused(tmp_path):
    place = tmp_path / "set.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("set/a.txt", "a")
    content = bytearray(place.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = (len(content) * 2).to_bytes(4, "little")
    place.write_bytes(content)
    with pytest.raises(DataError, match=r"archive .*set\.zip' is not unpacked"):
        unpack(place, tmp_path / "data", most_bytes=1000)
