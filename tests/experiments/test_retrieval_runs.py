from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hashrobust.datasets import load_dataset
from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.retrieval_runs import (
    encode_run,
    evaluate_run,
    index_run,
    read_image,
    search_run,
    to_pixels,
)
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import load_run, load_run_data
from hashrobust.metrics import average_precision, chance


def begun(tmp_path: Path, small: Any) -> Folder:
    """A run whose fine-tuning never ended."""
    folder = Folder.create(tmp_path / "run", {"task": "finetune", **small.finetune().to_dict()})
    fingerprint = load_dataset("digits", image_size=16).fingerprint
    folder.write_json("environment.json", {"data_fingerprint": fingerprint})
    return folder


def test_codes_are_those_of_the_model(made: Folder) -> None:
    codes, data, model = encode_run(made), load_run_data(made), load_run(made)
    for name in ("train", "query", "validation", "database"):
        split, stored = getattr(data, name), codes[name]
        assert np.array_equal(stored.codes, model.encode(split).numpy())
        assert np.array_equal(stored.labels, split.labels.numpy())
        assert np.array_equal(stored.ids, split.ids.numpy())


def test_metrics_are_those_of_the_codes(made: Folder) -> None:
    codes, metrics = encode_run(made), evaluate_run(made)
    query, database = codes["query"], codes["database"]
    scores = average_precision(query.codes, database.codes, query.labels, database.labels)
    assert metrics["map"] == pytest.approx(scores.mean(), abs=1e-12)
    assert metrics["chance_map"] == pytest.approx(chance(query.labels, database.labels), abs=1e-12)
    assert metrics == made.read_json("metrics.json", made_by="evaluate")


def test_evaluating_needs_no_index(run: Folder) -> None:
    wanted = evaluate_run(run)
    for name in ("index.faiss", "codes.npz", "metrics.json"):
        (run.path / name).unlink()
    assert evaluate_run(run) == wanted
    assert not run.has("index.faiss") and run.has("codes.npz")


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw", "hash"])
def test_every_kind_of_index(run: Folder, kind: str) -> None:
    index = index_run(run, kind=kind, overwrite=True)
    assert (index.kind, len(index), index.bits) == (kind, 997, 12)
    assert index_run(run, kind=kind).kind == kind and run.damaged() == []
    data = load_run_data(run)
    image = data.database.load([17])[0]
    hits = search_run(run, image, k=5, data=data)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5] and hits[0].distance == 0
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)


def test_another_kind_of_index_asks_for_overwrite(run: Folder) -> None:
    with pytest.raises(InputError, match="has a flat index: pass --overwrite to make it hnsw"):
        index_run(run, kind="hnsw")
    with pytest.raises(InputError, match="unknown index kind 'flatt': did you mean 'flat'"):
        index_run(run, kind="flatt", overwrite=True)
    assert index_run(run).kind == "flat"


def test_search_finds_the_nearest_codes(made: Folder) -> None:
    data, codes = load_run_data(made), encode_run(made)
    hits = search_run(made, data.query.load([3])[0], k=2000, data=data)
    distances = (codes["query"].codes[3] != codes["database"].codes).sum(axis=1)
    order = np.argsort(distances, kind="stable")
    assert [hit.position for hit in hits] == order.tolist()
    assert [hit.distance for hit in hits] == distances[order].tolist()
    classes = data.database.labels.argmax(dim=1)
    assert [hit.classes for hit in hits] == [(str(int(classes[place])),) for place in order]
    assert hits[0].name == data.database.path(hits[0].position)


def test_searching_what_is_not_there(run: Folder) -> None:
    data = load_run_data(run)
    with pytest.raises(InputError, match="k is 0"):
        search_run(run, data.query.load([0])[0], k=0, data=data)
    with pytest.raises(InputError, match=r"takes float images \(N, 1, H, W\)"):
        search_run(run, torch.zeros(3, 16, 16), data=data)
    (run.path / "index.faiss").unlink()
    with pytest.raises(StoreError, match=r"has no index\.faiss yet: run `hashrobust index .*` first"):
        search_run(run, data.query.load([0])[0], data=data)


@pytest.mark.parametrize("action", [encode_run, index_run, evaluate_run])
def test_unfinished_runs_say_what_to_do(action: Callable[[Folder], Any], tmp_path: Path, small: Any) -> None:
    with pytest.raises(StoreError, match=r"has no model\.safetensors yet: run `hashrobust finetune` first"):
        action(begun(tmp_path, small))


@pytest.mark.parametrize(
    ("name", "action", "mend"),
    [
        ("codes.npz", encode_run, lambda run: index_run(run, overwrite=True)),
        ("index.faiss", index_run, lambda run: index_run(run, overwrite=True)),
        ("metrics.json", evaluate_run, lambda run: evaluate_run(run, overwrite=True)),
    ],
)
def test_changed_files_are_refused_and_the_way_out_works(
    run: Folder, name: str, action: Callable[[Folder], Any], mend: Callable[[Folder], Any]
) -> None:
    before = (run.path / name).read_bytes()
    (run.path / name).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(StoreError, match=rf"{name}' does not match its checksum.*--overwrite`"):
        action(run)
    mend(run)
    action(run)
    assert (run.path / name).read_bytes() == before and run.damaged() == []


def test_a_run_in_use_can_be_read_but_not_changed(run: Folder) -> None:
    with run.lock():
        evaluate_run(run)
        index_run(run)
        with pytest.raises(StoreError, match="in use by another process"):
            evaluate_run(run, overwrite=True)
        with pytest.raises(StoreError, match="in use by another process"):
            index_run(run, overwrite=True)


# ---- images from files


def test_images_are_read_in_the_shape_of_the_data(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    grey = read_image(tmp_path / "grey.png", (1, 16, 16))
    assert grey.dtype == torch.float32 and torch.equal(grey, torch.from_numpy(pixels / 255).float()[None])
    assert np.array_equal(to_pixels(grey[None])[0, :, :, 0], pixels)
    colour = np.zeros((20, 40, 3), dtype=np.uint8)
    colour[:, 10:30] = (255, 0, 51)
    Image.fromarray(colour).save(tmp_path / "wide.png")
    middle = read_image(tmp_path / "wide.png", (3, 20, 20))
    assert torch.equal(middle, torch.tensor([1.0, 0.0, 0.2])[:, None, None].expand(3, 20, 20))
    assert read_image(tmp_path / "wide.png", (3, 31, 31)).shape == (3, 31, 31)
    assert read_image(tmp_path / "wide.png", (1, 8, 8)).shape == (1, 8, 8)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        tmp_path / "whole.png"
    )
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    for name, message in {
        "none.png": "does not exist",
        "cut.png": "is no image that can be read",
        "empty.png": "is no image that can be read",
        "text.png": "is no image that can be read",
        ".": "is a folder, no image",
    }.items():
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name, (1, 16, 16))
    with pytest.raises(InputError, match="2 channels"):
        read_image(tmp_path / "whole.png", (2, 16, 16))
