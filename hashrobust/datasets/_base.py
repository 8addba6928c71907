"""What every dataset hands out: splits of labelled images, and the facts that describe them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashrobust.errors import InputError

IntArray: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = Tensor | IntArray | Sequence[int] | range

BATCH = 256
SMALLEST_STD = 1 / 255  # one grey level, so that dividing by it is safe even for constant images


class ImageSource(Protocol):
    """The images of a whole pooled data set, addressed by id 0 .. len - 1."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a loaded image."""

    def __len__(self) -> int: ...

    def load(self, ids: IntArray) -> Tensor:
        """The images with these ids: float32 (B, C, H, W) in [0, 1]."""

    def digests(self) -> list[bytes]:
        """One content hash per image: equal content, equal hash."""

    def path(self, image_id: int) -> str:
        """A name for tables: the file, or `<dataset>/<id>`."""


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Part of a dataset: `labels` (N, classes) multi-hot uint8, `ids` (N,) int64 into the pooled data set."""

    labels: Tensor
    ids: Tensor
    source: ImageSource

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Split({len(self)} images)"

    def load(self, indices: Indices) -> Tensor:
        """The images at these positions of the split: float32 (B, C, H, W) in [0, 1].

        Raises:
            InputError: no list of whole numbers, or a position below 0 or beyond the end.
            DataError: an image file that has changed or vanished since the dataset was loaded.
        """
        positions = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices)
        if positions.ndim != 1:
            raise InputError(f"indices have {positions.ndim} dimensions: give a list of positions")
        if len(positions) and positions.dtype.kind not in "iu":
            raise InputError(f"indices are {positions.dtype}: give whole numbers, the positions in the split")
        if len(positions) and (positions.min() < 0 or positions.max() >= len(self)):
            raise InputError(f"indices reach outside the split: give positions from 0 to {len(self) - 1}")
        return self.source.load(self.ids.numpy()[positions.astype(np.int64)])

    @property
    def images(self) -> Tensor:
        """All images of the split at once; `batches` needs less memory."""
        return self.load(range(len(self)))

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, C, H, W) and labels (B, classes) in the order of the split, the last batch may be short.

        Raises:
            InputError: `batch_size` below 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: give at least 1")
        places = [
            range(start, min(start + batch_size, len(self))) for start in range(0, len(self), batch_size)
        ]
        for chosen, images in zip(places, self.load_each(places), strict=True):
            yield images, self.labels[chosen.start : chosen.stop]

    def load_each(self, selections: Iterable[Indices]) -> Iterator[Tensor]:
        """The images at each selection of positions; image files are decoded one selection ahead.

        Raises: as `load` does, when the selection is due.
        """
        if not getattr(self.source, "decodes", False):
            yield from map(self.load, selections)
            return
        with ThreadPoolExecutor(1) as pool:
            coming: Future[Tensor] | None = None
            for chosen in selections:
                due, coming = coming, pool.submit(self.load, chosen)
                if due is not None:
                    yield due.result()
            if coming is not None:
                yield coming.result()

    def path(self, index: int) -> str:
        """The file of the image at position `index`, or `<dataset>/<id>` where it has none."""
        return self.source.path(int(self.ids[index]))


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledDataset(ABC):
    """What every protocol hands out.

    `fingerprint` hashes the content of the images, their labels and the split. `skipped` names what was
    left out, and why. `duplicates` counts pooled images with an exact copy; `overlap` the images of the
    splits that are asked about that also stand in another split (0 unless that was waived).
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    multi_label: bool
    fingerprint: str
    train: Split
    validation: Split
    skipped: tuple[str, ...] = ()
    duplicates: int = 0
    overlap: int = 0

    @property
    @abstractmethod
    def asked(self) -> Split:
        """The images that scores are about, and that attacks change."""

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        channels, height, width = self.image_shape
        total, squares = torch.zeros(2, channels, dtype=torch.float64)
        for images, _ in self.train.batches(BATCH):
            wide = images.double()
            total += wide.sum(dim=(0, 2, 3))
            squares += wide.square().sum(dim=(0, 2, 3))
        pixels = len(self.train) * height * width
        mean = total / pixels
        std = (squares / pixels - mean.square()).clamp(min=0).sqrt().clamp(min=SMALLEST_STD)
        return tuple(mean.tolist()), tuple(std.tolist())

    def skipped_lines(self, named: int = 5) -> list[str]:
        """What was left out, in lines for a reader: how many, and the first `named` with their reasons."""
        if not self.skipped:
            return []
        more = len(self.skipped) - named
        tail = [f"  and {more} more: `hashrobust data {self.name} --json` names all"] if more > 0 else []
        head = f"{self.name}: {len(self.skipped)} files are left out"
        return [head, *(f"  {reason}" for reason in self.skipped[:named]), *tail]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean pixel of each channel over the train split, in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over all pixels of the train split; at least 1/255."""
        return self._moments[1]


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalDataset(LabelledDataset):
    """A retrieval protocol: who is trained on, who asks, who decides between epochs, who is searched.

    `top_k` is the list length of the protocol's mAP@k (None: the whole database).
    """

    top_k: int | None
    query: Split
    database: Split

    @property
    def asked(self) -> Split:
        """The queries."""
        return self.query

    @cached_property
    def similar_share(self) -> float:
        """Share of similar pairs (a common label) among all pairs of two different train images."""
        labels = self.train.labels.float()
        count = len(labels)
        if count < 2:
            return 0.0
        with_self = 0
        for start in range(0, count, BATCH):
            with_self += int((labels[start : start + BATCH] @ labels.T > 0).sum())
        self_pairs = int((labels.sum(dim=1) > 0).sum())
        return (with_self - self_pairs) / (count * (count - 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassificationDataset(LabelledDataset):
    """A classification protocol: the official train and test sets, a tenth of train as validation."""

    test: Split

    @property
    def asked(self) -> Split:
        """The test images."""
        return self.test
