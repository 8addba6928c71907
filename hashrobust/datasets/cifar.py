"""CIFAR-10 and CIFAR-100: 60,000 small colour images each, train and test pooled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import IntArray, LabelledDataset
from hashrobust.datasets._cifar_files import Images, read_binary, read_pickle
from hashrobust.datasets._download import Remote, download_missing
from hashrobust.datasets._info import DatasetInfo, absent, data_folder, describes
from hashrobust.datasets._memory import MemoryImages
from hashrobust.datasets._protocol import Sizes, classification, pooled_dataset
from hashrobust.errors import DataError
from hashrobust.progress import Progress

TOP_K = 5000
POOLED = 60_000
MOST_BYTES = 200_000_000  # of an archive, packed or not: it is 170 million, and 186 unpacked
CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class _Set:
    name: str
    classes: tuple[str, ...]
    folders: tuple[str, str]  # of the binary and of the pickled archive
    files: tuple[str, ...]  # pickles; binary ones are named the same with ".bin"
    label_key: bytes
    label_bytes: int
    address: str
    md5: str

    @property
    def fetch(self) -> str:
        """What fetches it, in words."""
        return f"run `hashrobust data {self.name} --download` (170 MB; download=True in Python)"

    @property
    def remotes(self) -> list[Remote]:
        """The archive of pickles."""
        made = tuple(f"{self.folders[1]}/{name}" for name in self.files)
        return [Remote((self.address,), self.md5, MOST_BYTES, made, unpacked_bytes=MOST_BYTES)]

    @property
    def sizes(self) -> Sizes:
        """5,000 train, 1,000 query and 1,000 validation images, the same number of each class."""
        classes = len(self.classes)
        return Sizes(train=5000 // classes, query=1000 // classes, validation=1000 // classes)

    def places(self, data_dir: Path) -> list[Path]:
        """Where its files are looked for, in this order; the binary version needs no pickle."""
        return [data_dir, *(data_dir / folder for folder in self.folders)]

    def find(self, data_dir: Path) -> list[Path] | None:
        """Its files, from the first place that has them all; None: no place has."""
        for place in self.places(data_dir):
            for suffix in (".bin", ""):
                files = [place / f"{name}{suffix}" for name in self.files]
                if all(file.is_file() for file in files):
                    return files
        return None

    def read(self, file: Path) -> tuple[Images, IntArray]:
        """Images and classes of one file of either version."""
        if file.suffix == ".bin":
            return read_binary(file, self.label_bytes, len(self.classes))
        return read_pickle(file, self.label_key, len(self.classes))


CIFAR10 = _Set(
    name="cifar10",
    classes=tuple(CIFAR10_CLASSES.split()),
    folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    files=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
    label_key=b"labels",
    label_bytes=1,
    address="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
)
CIFAR100 = _Set(
    name="cifar100",
    classes=tuple(CIFAR100_CLASSES.split()),
    folders=("cifar-100-binary", "cifar-100-python"),
    files=("train", "test"),
    label_key=b"fine_labels",
    label_bytes=2,
    address="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
)


def _load(
    kind: _Set,
    data_dir: str | Path | None,
    image_size: int | None,
    download: bool,
    progress: Progress | None,
    protocol: str,
) -> LabelledDataset:
    folder = data_folder(data_dir)
    files = kind.find(folder)
    if files is None and download:
        download_missing(kind.name, kind.remotes, folder, progress)
        files = kind.find(folder)
    if files is None:
        raise absent(kind.name, kind.places(folder), kind.fetch)
    parts = [kind.read(file) for file in files]
    pixels = np.concatenate([images for images, _ in parts])
    targets = np.concatenate([labels for _, labels in parts])
    if len(pixels) != POOLED:
        raise DataError(
            f"the files in '{files[0].parent}' hold {len(pixels)} images and {kind.name} has {POOLED}: "
            "fetch them again"
        )
    source = MemoryImages(kind.name, pixels, image_size=image_size)
    if protocol == "classification":
        test = np.repeat([file.stem.startswith("test") for file in files], [len(own) for _, own in parts])
        return classification(kind.name, source, targets, kind.classes, test)
    return pooled_dataset(kind.name, source, targets, kind.classes, kind.sizes, TOP_K)


@datasets.register("cifar10")
def cifar10(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """60,000 pooled colour images, 32x32, ten classes.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    return _load(CIFAR10, data_dir, image_size, download, progress, protocol)


@datasets.register("cifar100")
def cifar100(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """60,000 pooled colour images, 32x32, a hundred (fine) classes.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    return _load(CIFAR100, data_dir, image_size, download, progress, protocol)


def _passport(kind: _Set, data_dir: Path) -> DatasetInfo:
    sizes = kind.sizes
    return DatasetInfo(
        name=kind.name,
        source="Krizhevsky, Nair and Hinton, https://www.cs.toronto.edu/~kriz/cifar.html",
        size=f"60,000 colour images, 32x32, {len(kind.classes)} classes",
        protocol=f"train 5,000, query 1,000, validation 1,000 ({sizes.train}, {sizes.query}, "
        f"{sizes.validation} a class), database 53,000; mAP@5000",
        licence="none stated; cite Krizhevsky 2009",
        fetch=kind.fetch,
        places=tuple(str(place) for place in kind.places(data_dir)),
        present=kind.find(data_dir) is not None,
    )


@describes("cifar10")
def _cifar10_info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return _passport(CIFAR10, data_dir)


@describes("cifar100")
def _cifar100_info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return _passport(CIFAR100, data_dir)
