"""Index files that were changed by somebody who set their checksum right again."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashrobust.retrieval import KINDS, MAGIC, HammingIndex

from .mutations import TELLING, examples, mutated

BITS, COUNT = 12, 90


def parts_of(content: bytes) -> tuple[bytes, dict[str, Any]]:
    end = len(content) - len(MAGIC) - 8
    (length,) = struct.unpack_from("<Q", content, end)
    return content[: end - length], json.loads(content[end - length : end])


def sealed(payload: bytes, about: dict[str, Any]) -> bytes:
    about = about | {"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    header = json.dumps(about).encode()
    return payload + header + struct.pack("<Q", len(header)) + MAGIC


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("index") / "index.faiss"
    codes = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (COUNT, BITS))
    params = {"hnsw": {"neighbors": 4}, "ivf": {"lists": 5}}.get(request.param, {})
    HammingIndex.build(codes, request.param, **params).save(path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "index.faiss"


def test_the_whole_file_works(worker, path, whole):
    path.write_bytes(sealed(*parts_of(whole)))
    assert worker("index", path)["value"] == COUNT + 4


@examples(150)
@given(data=st.data())
def test_changed_payloads_are_refused_or_work(worker, path, whole, data):
    payload, about = parts_of(whole)
    path.write_bytes(sealed(data.draw(mutated(payload)), about))
    found = worker("index", path)
    assert "value" in found or (found["code"] == 2 and "damaged" in found["refused"])


@examples(100)
@given(data=st.data())
def test_changed_files_are_refused(worker, path, whole, data):
    changed = data.draw(mutated(whole))
    path.write_bytes(changed)
    found = worker("index", path)
    assert found.get("code") == 2 or parts_of(changed)[0] == parts_of(whole)[0]


@examples(60)
@given(
    fact=st.sampled_from(["version", "kind", "bits", "count"]),
    value=st.one_of(st.sampled_from([*TELLING, *KINDS]), st.none(), st.floats(), st.lists(st.none())),
)
def test_changed_facts_are_refused_or_work(worker, path, whole, fact, value):
    payload, about = parts_of(whole)
    path.write_bytes(sealed(payload, about | {fact: value}))
    found = worker("index", path)
    assert "value" in found or found["code"] == 2
