"""Who stands in which split: drawn by the protocol's own seed, and checked to be disjoint."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hashrobust.datasets._base import ClassificationDataset, ImageSource, IntArray, RetrievalDataset, Split
from hashrobust.datasets._memory import MemoryImages
from hashrobust.errors import DataError, InputError

PROTOCOL_SEED = 0
SPLITS = ("train", "query", "validation", "database")
CLASSIFICATION_SPLITS = ("train", "validation", "test")
VALIDATION_SHARE = TEST_SHARE = 10  # a tenth of each class
# Train images may stand in the database (the practice of the HashNet lists); queries stand nowhere else.
MUST_DIFFER = (
    ("query", "database"),
    ("query", "train"),
    ("query", "validation"),
    ("validation", "database"),
    ("validation", "train"),
)

Members = Mapping[str, IntArray]


@dataclass(frozen=True)
class Sizes:
    """Images of one class in each split; what is left is the database."""

    train: int
    query: int
    validation: int

    @property
    def total(self) -> int:
        """Images of the class outside the database."""
        return self.train + self.query + self.validation


def draw_order(count: int) -> IntArray:
    """A fixed shuffle of 0 .. count - 1.

    It sorts raw PCG64 output, which NumPy promises never to change; its `permutation` it does not.
    """
    keys = np.random.PCG64(PROTOCOL_SEED).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64)


def unique_content(digests: Sequence[bytes]) -> NDArray[np.bool_]:
    """Which images (N,) have no exact copy among the others."""
    copies = Counter(digests)
    return np.array([copies[digest] == 1 for digest in digests], dtype=bool)


def draw_by_class(
    targets: IntArray, drawable: NDArray[np.bool_], sizes: Callable[[int, int], Sizes]
) -> dict[str, IntArray]:
    """The ids of each split, in a fixed random order.

    Args:
        targets: class of each image (N,).
        drawable: images (N,) that may leave the database.
        sizes: from a class and the number of its drawable images to what is drawn of it.
    """
    order = draw_order(len(targets))
    place = np.full(len(targets), SPLITS.index("database"))
    for target in range(int(targets.max()) + 1):
        mine = order[(targets[order] == target) & drawable[order]]
        wanted = sizes(target, len(mine))
        cuts = np.cumsum([wanted.train, wanted.query, wanted.validation])
        for code, ids in enumerate(np.split(mine, cuts)[:-1]):
            place[ids] = code
    return {split: order[place[order] == code] for code, split in enumerate(SPLITS)}


def _overlap(
    source: ImageSource, digests: list[bytes], members: Members, pairs: Sequence[tuple[str, str]]
) -> tuple[int, str]:
    """How many different images stand in two splits of a pair, and the first case in words."""
    contents = {split: {digests[i]: int(i) for i in ids} for split, ids in members.items()}
    shared: set[bytes] = set()
    first = ""
    for one, other in pairs:
        common = contents[one].keys() & contents[other].keys()
        if common and not first:
            example = min(common, key=lambda digest: contents[one][digest])
            here, there = (source.path(contents[split][example]) for split in (one, other))
            first = f"{one} '{here}' is {other} '{there}'"
        shared |= common
    return len(shared), first


def _fingerprint(
    source: ImageSource,
    classes: Sequence[str],
    labels: NDArray[np.uint8],
    digests: list[bytes],
    members: Members,
    splits: Sequence[str],
) -> str:
    head = json.dumps([list(classes), list(source.image_shape), list(labels.shape)])
    total = hashlib.sha256(head.encode())
    total.update(b"".join(digests))
    total.update(np.ascontiguousarray(labels).tobytes())
    for split in splits:
        total.update(f"{split}:{len(members[split])}".encode())
        total.update(members[split].astype("<i8").tobytes())
    return total.hexdigest()


def assemble(
    name: str,
    source: ImageSource,
    classes: Sequence[str],
    labels: NDArray[np.uint8],
    members: Members,
    *,
    top_k: int | None,
    skipped: Sequence[str] = (),
    allow_overlap: bool = False,
) -> RetrievalDataset:
    """A dataset from its pool (`labels` (N, classes) multi-hot) and the ids that make up each split.

    `top_k` becomes None (the whole database) where the database is not larger.

    Raises:
        InputError: `top_k` below 1.
        DataError: an empty split, or a query or validation image that also stands in another split.
    """
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}: give at least 1, or None for the whole database")
    for split in SPLITS:
        if len(members[split]) == 0:
            raise DataError(f"{name}: no image is left for the {split} split: add images")
    digests = source.digests()
    overlap, example = _overlap(source, digests, members, MUST_DIFFER)
    if overlap and not allow_overlap:
        raise DataError(
            f"{name}: {overlap} query or validation images also stand in another split ({example}), so "
            "scores would count copies as finds: take them out (in Python, allow_overlap=True accepts them)"
        )
    splits = _splits(source, labels, members, SPLITS)
    return RetrievalDataset(
        name=name,
        classes=tuple(classes),
        image_shape=source.image_shape,
        top_k=top_k if top_k is not None and top_k < len(members["database"]) else None,
        multi_label=bool((labels.sum(axis=1) > 1).any()),
        fingerprint=_fingerprint(source, classes, labels, digests, members, SPLITS),
        skipped=tuple(skipped),
        duplicates=int((~unique_content(digests)).sum()),
        overlap=overlap,
        **splits,
    )


def _splits(
    source: ImageSource, labels: NDArray[np.uint8], members: Members, names: Sequence[str]
) -> dict[str, Split]:
    return {
        name: Split(torch.from_numpy(labels[members[name]]), torch.from_numpy(members[name]), source)
        for name in names
    }


def classification(
    name: str,
    source: ImageSource,
    targets: IntArray,
    classes: Sequence[str],
    test: NDArray[np.bool_] | None = None,
    train: NDArray[np.bool_] | None = None,
    *,
    skipped: Sequence[str] = (),
) -> ClassificationDataset:
    """A classification protocol: the official train and test sets, a tenth of each class of train as validation.

    Args:
        name: of the dataset.
        source: the pooled images.
        targets: class of each image (N,).
        classes: their names.
        test: which images (N,) are the official test set; None: a tenth of each class is drawn, by the
            protocol's seed.
        train: which images (N,) may be trained on or validate; None: all others.
        skipped: what was left out already.

    Train images with an exact copy in the test set are left out and named, so that the test set keeps its
    size; copies within train go to train, not to validation.

    Raises:
        DataError: a class has too few images.
    """
    digests = source.digests()
    drawable = unique_content(digests)
    if test is None:
        drawn = draw_by_class(targets, drawable, lambda _, count: Sizes(0, max(1, count // TEST_SHARE), 0))
        test = np.isin(np.arange(len(targets)), drawn["query"])
    tested = {digests[i] for i in np.flatnonzero(test)}
    others = ~test & (True if train is None else train)
    copies = others & np.array([digest in tested for digest in digests], dtype=bool)
    kept = others & ~copies
    drawn = draw_by_class(
        targets, kept & drawable, lambda _, count: Sizes(0, 0, max(1, count // VALIDATION_SHARE))
    )
    validation = np.isin(np.arange(len(targets)), drawn["validation"])
    order = draw_order(len(targets))
    places = {"train": kept & ~validation, "validation": validation, "test": test}
    members = {split: order[place[order]] for split, place in places.items()}
    _check_classes(name, targets, classes, members)
    labels = multi_hot(targets, len(classes))
    reasons = [f"{source.path(int(i))}: it is an exact copy of a test image" for i in np.flatnonzero(copies)]
    return ClassificationDataset(
        name=name,
        classes=tuple(classes),
        image_shape=source.image_shape,
        multi_label=False,
        fingerprint=_fingerprint(source, classes, labels, digests, members, CLASSIFICATION_SPLITS),
        skipped=(*skipped, *reasons),
        duplicates=int((~drawable).sum()),
        **_splits(source, labels, members, CLASSIFICATION_SPLITS),  # type: ignore[arg-type]
    )


def _check_classes(name: str, targets: IntArray, classes: Sequence[str], members: Members) -> None:
    for split, ids in members.items():
        for target, count in enumerate(np.bincount(targets[ids], minlength=len(classes))):
            if count == 0:
                raise DataError(
                    f"{name}: no image of class '{classes[target]}' is left for the {split} split: add images"
                )


def multi_hot(targets: IntArray, num_classes: int) -> NDArray[np.uint8]:
    """Integer classes (N,) as (N, num_classes) zeros and ones."""
    return np.eye(num_classes, dtype=np.uint8)[targets]


def pooled_dataset(
    name: str,
    images: MemoryImages,
    targets: IntArray,
    classes: Sequence[str],
    sizes: Sizes,
    top_k: int | None,
) -> RetrievalDataset:
    """A single-label dataset of which every class gives the same number of images to each split.

    Images that have an exact copy in the pool are never drawn: all copies stay in the database, so that no
    query finds itself and the protocol's sizes hold.

    Raises:
        DataError: a class has too few images.
    """
    digests = images.digests()

    def checked(target: int, available: int) -> Sizes:
        if available <= sizes.total:
            raise DataError(
                f"{name}: class '{classes[target]}' has {available} distinct images, and the protocol draws "
                f"{sizes.total} of each class: get the whole data set"
            )
        return sizes

    members = draw_by_class(targets, unique_content(digests), checked)
    return assemble(name, images, classes, multi_hot(targets, len(classes)), members, top_k=top_k)
