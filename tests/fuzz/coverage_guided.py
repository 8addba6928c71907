"""Parsers fed by a fuzzer that sees which lines an input reaches: atheris, which CI does without.

pip install atheris
python -m tests.fuzz.coverage_guided faiss-hnsw -max_total_time=600

What follows the target are libFuzzer's own options. It ends, and writes the input to a file `crash-...`, `timeout-...`
or `oom-...`, at the first one that gives neither a value nor a refusal; that file in the options' place repeats it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["hashrobust", "pickletools", "tomllib"]):
    import numpy as np
    import torch

    from hashrobust.datasets._cifar_files import read_pickle
    from hashrobust.datasets._idx import read_idx
    from hashrobust.datasets._lists import ListedImages, class_names, read_members
    from hashrobust.errors import InputError
    from hashrobust.experiments.study.file import StudyFile
    from hashrobust.experiments.study.matrix import read_study
    from hashrobust.models import HashModel, load_model, save_model
    from hashrobust.retrieval import HammingIndex

    from .test_data_files import BATCHES
    from .test_index_files import parts_of, sealed
    from .test_requests import STUDY

OPTIONS = ["-timeout=30", "-rss_limit_mb=4096", "-max_len=8192"]
BITS, COUNT = 12, 20
KINDS = {"flat": {}, "ivf": {"lists": 3}, "hnsw": {"neighbors": 2}, "hash": {"tables": 1, "key_bits": 4}}
LISTS = ("train.txt", "test.txt", "database.txt", "classes.txt")


@dataclass(frozen=True)
class Target:
    """Inputs to begin with, and what is done with one; `place` is an empty folder."""

    seeds: Callable[[Path], Iterator[bytes]]
    feed: Callable[[bytes, Path], object]


def index(kind: str) -> Target:
    """The payload of an index, its checksum set right, loaded and used."""
    queries = np.where(np.random.default_rng(1).random((4, BITS)) < 0.5, -1, 1)
    about = {"version": 1, "kind": kind, "bits": BITS, "count": COUNT}

    def seeds(place: Path) -> Iterator[bytes]:
        codes = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (COUNT, BITS))
        HammingIndex.build(codes, kind, **KINDS[kind]).save(place / "seed")
        yield parts_of((place / "seed").read_bytes())[0]

    def feed(payload: bytes, place: Path) -> None:
        path = place / "index.faiss"
        path.write_bytes(sealed(payload, about))
        loaded = HammingIndex.load(path)
        _, positions = loaded.search(queries, 10)
        assert positions.max() < len(loaded) and loaded.codes.shape == (COUNT, BITS)
        loaded.add(queries)
        loaded.search(queries, 10)

    return Target(seeds, feed)


def file_of(name: str, seeds: list[bytes], read: Callable[[Path], object]) -> Target:
    """A file of its own, read."""

    def feed(content: bytes, place: Path) -> object:
        (place / name).write_bytes(content)
        return read(place / name)

    return Target(lambda place: iter(seeds), feed)


def lists() -> Target:
    """The four lists of a data set, parted by a null byte: what stands in them, without the images."""
    lines = [f"duck/{number}.png {number % 2} {1 - number % 2}\n" for number in range(6)]
    seed = "\0".join(["".join(lines[:2]), "".join(lines[2:4]), "".join(lines[4:]), "duck\ngoose\n"])

    def feed(content: bytes, place: Path) -> None:
        for name, part in zip(LISTS, content.split(b"\0", len(LISTS) - 1), strict=False):
            (place / name).write_bytes(part)
        listed = ListedImages(place)
        read_members(listed, place)
        class_names(place, len(listed.labels[0]))

    return Target(lambda place: iter([seed.encode()]), feed)


def described_model() -> Target:
    """What a model's file says of the network, before the same tensors."""

    def whole(place: Path) -> tuple[dict[str, Any], bytes]:
        if not (place / "seed").exists():
            with torch.random.fork_rng():
                save_model(HashModel("lenet", 8, image_size=8), place / "seed")
        content = (place / "seed").read_bytes()
        (length,) = struct.unpack_from("<Q", content)
        return json.loads(content[8 : 8 + length]), content[8 + length :]

    def seeds(place: Path) -> Iterator[bytes]:
        yield whole(place)[0]["__metadata__"]["hashrobust"].encode()

    def feed(description: bytes, place: Path) -> None:
        header, tensors = whole(place)
        header["__metadata__"] = {"hashrobust": description.decode(errors="replace")}
        text = json.dumps(header).encode()
        (place / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + tensors)
        load_model(place / "model.safetensors")

    return Target(seeds, feed)


IDX = b"\0\0\x08\x03" + struct.pack(">3I", 3, 4, 5) + bytes(60)
TARGETS = {
    **{f"faiss-{kind}": index(kind) for kind in KINDS},
    "idx": file_of("images", [IDX], lambda path: read_idx(path, 3)),
    "idx-packed": file_of("images.gz", [gzip.compress(IDX, mtime=0)], lambda path: read_idx(path, 3)),
    "cifar": file_of("batch", BATCHES, lambda path: read_pickle(path, b"labels", 10)),
    "lists": lists(),
    "study": file_of("study.toml", [STUDY.encode()], lambda path: read_study(StudyFile.read(path))),
    "safetensors": described_model(),
}


def main(name: str, options: list[str]) -> None:
    """Feed one target until libFuzzer's options end it."""
    target = TARGETS[name]
    place = Path(tempfile.gettempdir()) / f"coverage-guided-{name}"
    shutil.rmtree(place, ignore_errors=True)  # of the last time: libFuzzer ends the process where it stands
    corpus = place / "corpus"
    corpus.mkdir(parents=True)
    for number, seed in enumerate(target.seeds(place)):
        (corpus / str(number)).write_bytes(seed)

    def one(content: bytes) -> None:
        try:
            target.feed(content, place)
        except InputError as refused:
            json.dumps(str(refused))

    files = [option for option in options if not option.startswith("-")]
    atheris.Setup([sys.argv[0], *OPTIONS, *options, *([] if files else [str(corpus)])], one)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in TARGETS:
        sys.exit(f"name one of {', '.join(TARGETS)}, then libFuzzer's options such as -max_total_time=600")
    main(sys.argv[1], sys.argv[2:])
