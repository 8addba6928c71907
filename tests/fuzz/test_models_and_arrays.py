"""Models, weights, exports and arrays of anybody."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hashrobust.experiments.checksums import SealedFolder
from hashrobust.models import HashModel, save_model

from .mutations import JUNK, TELLING, examples, misshapen, mutated

# Safetensors


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    with torch.random.fork_rng():
        model = HashModel("lenet", 8, image_size=8)
    model.rotate(torch.eye(8), "itq")
    save_model(model, path)
    return path.read_bytes()


def parts_of(content: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: object, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def check(found) -> None:
    assert "value" in found or (found["code"] == 2 and "model.safetensors" in found["refused"]), found


def test_the_whole_model_works(worker, tmp_path, whole):
    (tmp_path / "model.safetensors").write_bytes(whole)
    assert worker("model", tmp_path / "model.safetensors")["value"] == 2


@examples(40)
@given(data=st.data())
def test_changed_models(worker, tmp_path, whole, data):
    path = tmp_path / "model.safetensors"
    header, body = parts_of(whole)
    path.write_bytes(
        data.draw(
            st.one_of(
                mutated(whole),
                misshapen(header, st.one_of(JUNK, st.lists(st.sampled_from(TELLING)))).map(
                    lambda changed: joined(changed, body)
                ),
            )
        )
    )
    check(worker("model", path))


def described(content: bytes, description: str) -> bytes:
    header, body = parts_of(content)
    return joined(header | {"__metadata__": {"hashrobust": description}}, body)


@examples(40)
@given(data=st.data())
def test_descriptions_of_another_shape(worker, tmp_path, whole, data):
    path = tmp_path / "model.safetensors"
    own = json.loads(parts_of(whole)[0]["__metadata__"]["hashrobust"])
    changed = data.draw(st.one_of(misshapen(own), misshapen(own), JUNK))
    path.write_bytes(described(whole, json.dumps(changed)))
    check(worker("model", path))


@pytest.mark.parametrize("fact", ["outputs", "channels", "image_size"])
@pytest.mark.parametrize("value", [2**31, 65_000, -1, 0, 1.5, True, "8", None, []])
def test_descriptions_of_models_that_fill_the_memory(worker, tmp_path, whole, fact, value):
    path = tmp_path / "model.safetensors"
    own = json.loads(parts_of(whole)[0]["__metadata__"]["hashrobust"])
    path.write_bytes(described(whole, json.dumps(own | {fact: value})))
    found = worker("model", path)
    assert found.get("code") == 2 and "model.safetensors" in found["refused"], found


def test_a_description_without_a_bottom(worker, tmp_path, whole):
    path = tmp_path / "model.safetensors"
    path.write_bytes(described(whole, "[" * 100_000))
    assert "not a readable" in worker("model", path)["refused"]


# Weights and exports, by the command line


@examples(10)
@given(data=st.data())
def test_changed_weights(worker, tmp_path, whole, data):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data.draw(mutated(whole)))
    size = ["--image-size", 8, "--bits", 8, "--max-steps", 0, "--epochs", 1, "--quiet"]
    worker.command("finetune", *size, "--weights", path, "--results", tmp_path / "results")


@pytest.fixture(scope="module")
def export(worker, tmp_path_factory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("export")
    size = ["--image-size", 8, "--bits", 8, "--rule", "frsf", "--epochs", 1, "--max-steps", 1, "--quiet"]
    worker.command("finetune", *size, "--results", place / "results", codes=(0,))
    worker.command("export", "digits", "--to", place / "out", "--results", place / "results", codes=(0,))
    return {path.name: path.read_bytes() for path in (place / "out").iterdir()}


def write_export(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_the_whole_export_is_imported(worker, tmp_path, export):
    write_export(tmp_path / "out", export)
    worker.command("import", tmp_path / "out", "--results", tmp_path / "results", codes=(0,))


@examples(20)
@given(data=st.data(), sealed=st.booleans())
def test_changed_exports(worker, tmp_path, export, data, sealed):
    folder = tmp_path / "out"
    write_export(folder, export)
    name = data.draw(st.sampled_from([*export]))
    content = export[name]
    if name.endswith(".json") and data.draw(st.booleans()):
        changed = data.draw(st.one_of(misshapen(json.loads(content)), JUNK))
        (folder / name).write_text(json.dumps(changed))
    else:
        (folder / name).write_bytes(data.draw(mutated(content)))
    if sealed and name != "checksums.json":
        SealedFolder(folder).seal(name)
    worker.command("import", folder, "--results", tmp_path / "results")


# Arrays


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + body


HEADERS = [
    "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 8)}",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1000, 8)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1, 8)}",
    "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (0, 8)}",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (0, 8)}",
    "{[]: 3}",
    "[" * 100,
    "{'descr': '<f8'",
]
CODES = np.where(np.random.default_rng(0).random((5, 8)) < 0.5, -1, 1).astype(np.int8)


def evaluate(worker, place: Path, name: str, content: bytes) -> None:
    for part, array in {"q": CODES, "d": CODES, "ql": np.arange(5), "dl": np.arange(5)}.items():
        np.save(place / f"{part}.npy", array)
    (place / f"{name}.npy").write_bytes(content)
    files = {part: place / f"{part}.npy" for part in ("q", "d", "ql", "dl")}
    worker.command("evaluate", "--codes", files["q"], files["d"], "--labels", files["ql"], files["dl"])


@pytest.mark.parametrize("content", [*map(npy, HEADERS), b"PK\x03\x04junk", b"\x80\x04N.", b""])
def test_arrays_that_are_none(worker, tmp_path, content):
    evaluate(worker, tmp_path, "d", content)


@examples(80)
@given(data=st.data(), name=st.sampled_from(["q", "d", "ql", "dl"]))
def test_changed_arrays(worker, tmp_path, data, name):
    array = CODES if name in "qd" else np.arange(5)
    np.save(
        tmp_path / "whole.npy",
        array.astype(data.draw(st.sampled_from(["i1", "i8", "f4", "u8", "c8", "U3", "?"]))),
    )
    evaluate(worker, tmp_path, name, data.draw(mutated((tmp_path / "whole.npy").read_bytes(), most=2)))
