"""Downloads from a server on this machine that cuts connections, knows ranges or not, and serves wrong files."""

from __future__ import annotations

import fcntl
import hashlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hashrobust.datasets._download import Remote, download_missing
from hashrobust.errors import BusyError, HashRobustError

CONTENT = bytes(range(256)) * 20_000  # five parts of a mebibyte, the last one short
MD5 = hashlib.md5(CONTENT).hexdigest()


def remote(site: Any, *, md5: str = MD5, most_bytes: int = 2 * len(CONTENT)) -> Remote:
    return Remote((f"{site.address}/set.bin",), md5, most_bytes, ("set.bin",))


def fetch(site: Any, folder: Path, **changes: object) -> None:
    download_missing("set", [remote(site, **changes)], folder)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_once(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT
    fetch(site, tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    fetch(site, tmp_path)
    assert site.ranges == [None] and names(tmp_path) == ["set.bin"]


def test_cut_connections_are_taken_up_where_they_ended(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT
    site.cut_after = [1_500_000, 1_000_000]
    fetch(site, tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=1500000-", "bytes=2500000-"]


def test_what_came_before_a_failure_is_kept_for_the_next_call(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT
    site.cut_after = [700_000, 0]
    with pytest.raises(
        HashRobustError, match=r"cut after 700000 of 5120000 bytes.*goes on from there"
    ) as caught:
        fetch(site, tmp_path)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "set.bin").exists()
    fetch(site, tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert site.ranges[-1] == "bytes=700000-" and names(tmp_path) == ["set.bin"]


def test_a_server_without_ranges_starts_anew(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT
    site.knows_ranges = False
    site.cut_after = [700_000]
    fetch(site, tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("old", [b"another version", b"x" * (len(CONTENT) + 3), CONTENT])
def test_a_beginning_is_kept_only_if_the_whole_is_right(site: Any, tmp_path: Path, old: bytes) -> None:
    (tmp_path / ".set.bin.part").write_bytes(old)
    site.files["set.bin"] = CONTENT
    fetch(site, tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT and names(tmp_path) == ["set.bin"]


def test_another_content_is_refused_and_thrown_away(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT[:-1] + b"!"
    with pytest.raises(HashRobustError, match=r"set could not be downloaded.*another checksum"):
        fetch(site, tmp_path)
    assert names(tmp_path) == []


def test_an_endless_file_is_cut_short(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT
    with pytest.raises(HashRobustError, match="longer than it can be"):
        fetch(site, tmp_path, most_bytes=2_000_000)
    assert names(tmp_path) == []


def test_mirrors_are_tried_in_turn(site: Any, tmp_path: Path) -> None:
    site.files["second/set.bin"] = CONTENT
    addresses = (f"{site.address}/first/set.bin", f"{site.address}/second/set.bin")
    download_missing("set", [Remote(addresses, MD5, 2 * len(CONTENT), ("a/set.bin",), into="a")], tmp_path)
    assert (tmp_path / "a" / "set.bin").read_bytes() == CONTENT


def test_no_server_and_no_file_are_told_in_a_sentence(site: Any, tmp_path: Path) -> None:
    with pytest.raises(
        HashRobustError, match=r"set could not be downloaded \(.*Not Found\): check the network"
    ):
        fetch(site, tmp_path)
    nobody = Remote(("http://127.0.0.1:1/set.bin",), MD5, 10, ("set.bin",))
    with pytest.raises(HashRobustError, match=r"\(.*refused\)"):
        download_missing("set", [nobody], tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        b"200 OK\r\nContent-Length: many\r\n\r\nabc",
        b"302 Found\r\nLocation: http://[::1\r\n\r\n",
        b"302 Found\r\nLocation: http://a..b/\r\n\r\n",
    ],
)
def test_what_no_server_should_answer_is_told_in_a_sentence(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(b"HTTP/1.1 " + answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/set.bin"
        with pytest.raises(HashRobustError, match="set could not be downloaded"):
            download_missing("set", [Remote((address,), MD5, 10, ("set.bin",))], tmp_path)
        thread.join()


def test_two_processes_do_not_write_one_file(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT
    with (tmp_path / ".set.bin.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another process"):
            fetch(site, tmp_path)


def test_progress_counts_what_was_there(site: Any, tmp_path: Path) -> None:
    site.files["set.bin"] = CONTENT
    (tmp_path / ".set.bin.part").write_bytes(CONTENT[: 2 * 2**20])
    seen: list[tuple[int, int]] = []

    class Noting:
        def track(self, description: str, total: int, unit: str, done: int = 0):  # type: ignore[no-untyped-def]
            from contextlib import nullcontext

            seen.append((total, done))
            return nullcontext(lambda amount, note: seen.append((amount, -1)))

        def say(self, text: str) -> None:
            pass

    download_missing("set", [remote(site)], tmp_path, Noting())
    assert seen[0] == (4, 2) and sum(amount for amount, mark in seen[1:]) == 2
