"""What is around a command: its environment, its terminal, what it remembers, and servers that answer anything."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from .conftest import Worker
from .mutations import examples, mutated

VARIABLES = [
    *(
        "HASHROBUST_CACHE",
        "HASHROBUST_DATA",
        "XDG_CACHE_HOME",
        "HOME",
        "TMPDIR",
        "TORCH_HOME",
        "PATH",
        "COLUMNS",
        "LINES",
    ),
    *(
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NO_COLOR",
        "TERM",
        "OMP_NUM_THREADS",
    ),
]
VALUES = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "",
            ".",
            "file",
            "file/x",
            "nowhere",
            "/dev/null",
            "/proc/x",
            "a" * 5000,
            "0",
            "-1",
            "9" * 30,
            "9" * 5000,
            "²",
        ]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
)
LINES = [
    ["data", "folder:images"], ["data", "check", "folder:images"], ["data", "mnist"], ["list", "runs"],
    ["list", "datasets"], ["report"], ["verify"], ["study", "study.toml"], ["nothing"], ["data", "list:images"],
]  # fmt: skip


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "file").touch()
    for number in range(10):
        path = tmp_path / "images" / ("duck", "goose")[number // 5] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path


@examples(12)
@given(
    variables=st.dictionaries(st.sampled_from(VARIABLES), VALUES, max_size=3),
    width=st.sampled_from([0, 1, 2, 3, 5, 20, 80, 5000]),
    words=st.sampled_from(LINES),
)
def test_environments_and_terminals(worker, place, variables, width, words):
    Worker.check(worker("surrounded", place, json.dumps(variables), width, *words)["value"])


# What is remembered of images


@examples(10)
@given(data=st.data())
def test_changed_memories(worker, place, data):
    """They cost time, and nothing else."""
    cache = place / "cache"
    # Else what another hash of a file led to stays there as well.
    shutil.rmtree(cache, ignore_errors=True)
    assert worker("remembered", place / "images", cache)["value"] == 10
    kept = sorted(path for path in cache.rglob("*") if path.is_file())
    assert len(kept) == 2
    changed = data.draw(st.sampled_from(kept))
    head = data.draw(st.sampled_from([b"", b"PK\3\4", b"\x80\4N."]))
    content = head + data.draw(mutated(changed.read_bytes()[:-32]))
    checksum = hashlib.sha256(content).digest() if data.draw(st.booleans()) else b""
    changed.write_bytes(content + checksum)
    assert worker("remembered", place / "images", cache)["value"] == 10


# Servers


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """The port of a server that says one thing to whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                with connection:
                    try:
                        connection.recv(2**16)
                        connection.sendall(answer)
                    except OSError:  # the other side has gone
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent",
    b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 3-6/7\r\nContent-Length: 4\r\n\r\ntent",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/set.bin\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\n\r\n",
]


def test_a_server_that_answers_well(worker, tmp_path):
    with answering(ANSWERS[0]) as port:
        assert worker("downloaded", port, tmp_path / "whole")["value"] == 1


@examples(60)
@given(data=st.data(), begun=st.sampled_from([b"", b"con", b"wrong", b"content", b"content and more"]))
def test_servers_that_answer_anything(worker, tmp_path, data, begun):
    folder = tmp_path / "set"
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    (folder / ".set.bin.part").write_bytes(begun)
    with answering(data.draw(mutated(data.draw(st.sampled_from(ANSWERS))))) as port:
        found = worker("downloaded", port, folder)
    assert "value" in found or (found["code"] == 1 and "could not be downloaded" in found["refused"]), found
    assert {path.name for path in folder.iterdir()} <= {"set.bin", ".set.bin.part"}
