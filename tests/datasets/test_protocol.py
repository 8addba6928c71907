"""The splits, what describes them, and how images are handed out; on the embedded digits and small pools."""

from __future__ import annotations

import hashlib
from itertools import chain, combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from hashrobust.datasets import DatasetInfo, RetrievalDataset, dataset_info, datasets, load_dataset
from hashrobust.datasets._memory import MemoryImages
from hashrobust.datasets._protocol import SPLITS, Sizes, assemble, pooled_dataset
from hashrobust.errors import DataError, InputError, UnknownNameError


@pytest.fixture(scope="module")
def digits() -> RetrievalDataset:
    return load_dataset("digits")


def ids_of(data: RetrievalDataset) -> dict[str, list[int]]:
    return {split: getattr(data, split).ids.tolist() for split in SPLITS}


def pool(contents: list[int], targets: list[int], sizes: Sizes) -> RetrievalDataset:
    """Images of 1x2 pixels that hold a number each: equal number, equal image."""
    pixels = np.array([[[[c // 256, c % 256]]] for c in contents], dtype=np.uint8)
    classes = [str(number) for number in range(max(targets) + 1)]
    images = MemoryImages("pool", pixels)
    return pooled_dataset("pool", images, np.array(targets), classes, sizes, None)


def test_digits_follow_the_protocol(digits: RetrievalDataset) -> None:
    assert [len(getattr(digits, split)) for split in SPLITS] == [500, 200, 100, 997]
    assert digits.train.labels.sum(dim=0).tolist() == [50] * 10
    assert digits.query.labels.sum(dim=0).tolist() == [20] * 10
    assert digits.validation.labels.sum(dim=0).tolist() == [10] * 10
    assert sorted(chain(*ids_of(digits).values())) == list(range(1797))
    assert (digits.top_k, digits.multi_label, digits.image_shape) == (None, False, (1, 32, 32))
    assert digits.classes == tuple("0123456789")


def test_digits_images_and_labels_are_those_of_scikit_learn(digits: RetrievalDataset) -> None:
    bunch = load_digits()
    ids = digits.query.ids.numpy()
    assert digits.query.labels.dtype == torch.uint8
    np.testing.assert_array_equal(digits.query.labels.argmax(dim=1), bunch.target[ids])
    small = load_dataset("digits", image_size=8)
    np.testing.assert_array_equal(small.query.images[:, 0], bunch.images[ids].astype(np.float32) / 16)
    expected = F.interpolate(small.query.images, size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(digits.query.images, expected, rtol=0, atol=1e-6)
    assert digits.query.images.dtype == torch.float32


def test_splits_and_fingerprint_never_change(digits: RetrievalDataset) -> None:
    """Published numbers rest on these draws: a change here changes every result."""
    again = load_dataset("digits")
    assert ids_of(again) == ids_of(digits)
    assert again.fingerprint == digits.fingerprint
    all_ids = np.concatenate([getattr(digits, split).ids.numpy() for split in SPLITS])
    assert hashlib.sha256(all_ids.astype("<i8").tobytes()).hexdigest() == (
        "4b75ed1c2322ac136cb5af5f769cea5fe7d1594d7342c387bd0c5dbcd6872c1c"
    )


def test_draws_ignore_the_global_seeds(digits: RetrievalDataset) -> None:
    np.random.seed(7)  # noqa: NPY002 - the global state is what must not matter
    torch.manual_seed(7)
    assert ids_of(load_dataset("digits")) == ids_of(digits)


def test_mean_and_std_are_those_of_all_train_pixels(digits: RetrievalDataset) -> None:
    pixels = digits.train.images.double()
    assert digits.mean == pytest.approx((pixels.mean().item(),), abs=1e-9)
    assert digits.std == pytest.approx((pixels.std(correction=0).item(),), abs=1e-9)


def test_std_of_constant_images_can_be_divided_by() -> None:
    pixels = np.zeros((8, 1, 4, 4), dtype=np.uint8)
    members = {split: np.arange(2 * i, 2 * i + 2) for i, split in enumerate(SPLITS)}
    data = assemble(
        "flat",
        MemoryImages("flat", pixels),
        ["a"],
        np.ones((8, 1), np.uint8),
        members,
        top_k=None,
        allow_overlap=True,
    )
    assert data.std[0] > 0


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=12))
def test_similar_share_counts_pairs_of_different_images(rows: list[list[int]]) -> None:
    n = len(rows)
    labels = np.array(rows + [[1, 0, 0]] * 3, dtype=np.uint8)
    pixels = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    members = {"train": np.arange(n)} | {
        split: np.array([n + i]) for i, split in enumerate(("query", "validation", "database"))
    }
    data = assemble("p", MemoryImages("p", pixels), ["a", "b", "c"], labels, members, top_k=None)
    pairs = [any(a and b for a, b in zip(x, y, strict=True)) for x, y in combinations(rows, 2)]
    assert data.similar_share == pytest.approx(sum(pairs) / len(pairs) if pairs else 0.0)
    assert data.multi_label == any(sum(row) > 1 for row in rows)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_copies_of_an_image_stay_in_the_database(data: st.DataObject) -> None:
    """Whatever is duplicated, within a class or across: no query or validation image has a copy elsewhere."""
    targets = [number % 3 for number in range(45)]
    contents = list(range(45))
    for _ in range(data.draw(st.integers(0, 8))):
        copy, original = data.draw(st.integers(0, 44)), data.draw(st.integers(0, 44))
        contents[copy] = contents[original]
    sizes = Sizes(train=2, query=1, validation=1)
    distinct = {t: sum(contents.count(contents[i]) == 1 for i in range(t, 45, 3)) for t in range(3)}
    if min(distinct.values()) <= sizes.total:
        with pytest.raises(DataError, match="distinct images"):
            pool(contents, targets, sizes)
        return
    dataset = pool(contents, targets, sizes)
    ids = ids_of(dataset)
    assert sorted(chain(*ids.values())) == list(range(45))
    values = {split: {contents[i] for i in ids[split]} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not values[one] & values[other]
    assert dataset.duplicates == sum(contents.count(content) > 1 for content in contents)
    assert dataset.train.labels.sum(dim=0).tolist() == [2, 2, 2]


def test_too_small_a_class_is_named() -> None:
    with pytest.raises(DataError, match="class '1' has 3 distinct images"):
        pool(list(range(9)), [0] * 6 + [1] * 3, Sizes(train=1, query=1, validation=1))


def test_overlap_is_refused_named_and_waived() -> None:
    pixels = np.array([1, 2, 3, 4, 1], dtype=np.uint8).reshape(-1, 1, 1, 1)
    members = {
        "train": np.array([1]),
        "query": np.array([0]),
        "validation": np.array([2]),
        "database": np.array([1, 3, 4]),
    }

    def build(allow: bool) -> RetrievalDataset:
        images = MemoryImages("p", pixels)
        return assemble(
            "p", images, ["a"], np.ones((5, 1), np.uint8), members, top_k=None, allow_overlap=allow
        )

    with pytest.raises(
        DataError, match=r"1 query or validation .*query 'p/0' is database 'p/4'.*allow_overlap"
    ):
        build(allow=False)
    assert build(allow=True).overlap == 1
    pixels[4] = 9  # train may stand in the database
    assert build(allow=False).overlap == 0


@pytest.mark.parametrize("change", ["pixel", "label", "split"])
def test_fingerprint_tells_content_labels_and_split_apart(change: str) -> None:
    pixels = np.arange(8, dtype=np.uint8).reshape(-1, 1, 1, 1)
    labels = np.eye(2, dtype=np.uint8)[[0, 1] * 4]
    members = {split: np.arange(2 * i, 2 * i + 2) for i, split in enumerate(SPLITS)}

    def fingerprint() -> str:
        return assemble("p", MemoryImages("p", pixels), ["a", "b"], labels, members, top_k=None).fingerprint

    before = fingerprint()
    if change == "pixel":
        pixels[3] = 200
    elif change == "label":
        labels[3] = [1, 0]
    else:
        members["query"], members["train"] = members["train"], members["query"]
    assert fingerprint() != before


def test_batches_give_the_split_in_order(digits: RetrievalDataset) -> None:
    batches = list(digits.validation.batches(32))
    assert [len(images) for images, _ in batches] == [32, 32, 32, 4]
    torch.testing.assert_close(
        torch.cat([images for images, _ in batches]), digits.validation.images, rtol=0, atol=1e-6
    )
    assert torch.equal(torch.cat([labels for _, labels in batches]), digits.validation.labels)


def test_load_takes_positions_in_any_form(digits: RetrievalDataset) -> None:
    expected = digits.query.images[[5, 0, 5]]
    read_only = np.array([5, 0, 5])
    read_only.flags.writeable = False
    forms = (
        *([5, 0, 5], (5, 0, 5), torch.tensor([5, 0, 5]), torch.tensor([5, 0, 5], dtype=torch.uint8)),
        *(read_only, np.array([5, 0, 5], dtype=np.uint64), np.array([5, 9, 0, 9, 5])[::-1][::2]),
    )
    for indices in forms:
        torch.testing.assert_close(digits.query.load(indices), expected, rtol=0, atol=1e-6)
    assert digits.query.load([]).shape == (0, 1, 32, 32)
    assert digits.query.path(5) == f"digits/{int(digits.query.ids[5])}"


def test_a_dataset_is_shown_in_a_few_lines(digits: RetrievalDataset) -> None:
    assert "query=Split(200 images)" in repr(digits)
    assert len(repr(digits)) < 600


@pytest.mark.parametrize("indices", [[-1], [200], [0.5], [True, False], [[0, 1]], 3, "abc", None, slice(3)])
def test_load_refuses_other_positions(digits: RetrievalDataset, indices: object) -> None:
    with pytest.raises(InputError, match="indices"):
        digits.query.load(indices)


@pytest.mark.parametrize("size", [1, 3, 7, 20, 32])
def test_resized_images_stay_in_the_unit_interval(size: int) -> None:
    """White and black stay so exactly: the weights of the interpolation alone reach 1.0000002 at 7 to 3."""
    pixels = np.stack([np.full((2, 7, 7), value, dtype=np.uint8) for value in (0, 255)])
    images = MemoryImages("p", pixels, image_size=size).load(np.arange(2))
    assert images.shape == (2, 2, size, size)
    assert images[0].max() == 0
    assert images.max() <= 1 and images[1].min() > 0.999999


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: load_dataset("digit"), UnknownNameError, "digits"),
        (lambda: load_dataset("folder"), InputError, "folder:FOLDER"),
        (lambda: load_dataset("list:"), InputError, "list:FOLDER"),
        (lambda: load_dataset("digits:here"), InputError, "takes no folder"),
        (lambda: load_dataset("digits", colour=True), InputError, "colour"),
        (lambda: load_dataset("digits", protocol="classify"), InputError, "give retrieval or classification"),
        (lambda: load_dataset("digits", image_size=0), InputError, "image_size"),
        (lambda: load_dataset("digits", image_size=2.5), InputError, "image_size"),
        (lambda: dataset_info("imagenet"), UnknownNameError, "imagenet"),
        (lambda: next(load_dataset("digits").query.batches(0)), InputError, "batch_size"),
    ],
)
def test_wrong_requests_are_explained(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call()


def test_every_dataset_has_a_complete_passport() -> None:
    for name in datasets:
        info = dataset_info(name)
        assert isinstance(info, DatasetInfo)
        assert all([info.name, info.source, info.size, info.protocol, info.licence, info.fetch])
        assert datasets.describe(name).endswith((".", "`."))
    assert dataset_info("digits").present is True
    assert dataset_info("folder").present is None
    assert dataset_info("list:nowhere").present is False


def test_data_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASHROBUST_DATA", "elsewhere")
    assert dataset_info("mnist").places[0] == "elsewhere"
    assert dataset_info("mnist", data_dir="here").places[0] == "here"
    monkeypatch.delenv("HASHROBUST_DATA")
    assert dataset_info("mnist").places[0] == "data"
