"""Fashion-MNIST and MNIST: 70,000 grey images each, in the same four idx files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._download import Remote, download_missing
from hashrobust.datasets._idx import read_idx
from hashrobust.datasets._info import DatasetInfo, absent, data_folder, describes
from hashrobust.datasets._memory import MemoryImages
from hashrobust.datasets._protocol import Sizes, classification, pooled_dataset
from hashrobust.errors import DataError
from hashrobust.progress import Progress

SIZES = Sizes(train=500, query=100, validation=100)
TOP_K = 5000
PARTS = ("train", "t10k")
KINDS = ("images-idx3", "labels-idx1")
MOST_BYTES = 30_000_000  # of one of the files
IMAGE_SHAPE = (28, 28)


@dataclass(frozen=True)
class _Set:
    name: str
    torchvision: str
    classes: tuple[str, ...]
    class_sizes: tuple[int, ...]  # they tell the two sets apart, whose files carry the same names
    debian: Path | None
    mirrors: tuple[str, ...]
    checksums: tuple[str, ...]  # MD5 of train images and labels, test images and labels
    fetch: str

    @property
    def remotes(self) -> list[Remote]:
        """Its four files."""
        names = [f"{part}-{kind}-ubyte.gz" for part in PARTS for kind in KINDS]
        return [
            Remote(
                tuple(f"{mirror}/{name}" for mirror in self.mirrors),
                md5,
                MOST_BYTES,
                (f"{self.name}/{name}",),
                into=self.name,
            )
            for name, md5 in zip(names, self.checksums, strict=True)
        ]

    def places(self, data_dir: Path) -> list[Path]:
        """Where its files are looked for, in this order."""
        here = [data_dir, data_dir / self.name, data_dir / self.torchvision / "raw"]
        return here if self.debian is None else [*here, self.debian]

    def find(self, data_dir: Path) -> dict[str, Path] | None:
        """Its four files, from the first place that has all of them; None: no place has."""
        for place in self.places(data_dir):
            files = {}
            for part in PARTS:
                for kind in KINDS:
                    stem = place / f"{part}-{kind}-ubyte"
                    found = [file for file in (stem, stem.with_name(f"{stem.name}.gz")) if file.is_file()]
                    files.update({f"{part}-{kind}": file for file in found[:1]})
            if len(files) == 2 * len(PARTS):
                return files
        return None


FASHION = _Set(
    name="fashion-mnist",
    torchvision="FashionMNIST",
    classes=(
        "t-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    class_sizes=(7000,) * 10,
    debian=Path("/usr/share/datasets/fashion-mnist"),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
    checksums=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    fetch="run `hashrobust data fashion-mnist --download` (31 MB; download=True in Python), or on "
    "Debian: apt install dataset-fashion-mnist",
)
MNIST = _Set(
    name="mnist",
    torchvision="MNIST",
    classes=tuple(str(digit) for digit in range(10)),
    class_sizes=(6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958),
    debian=None,
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist"),
    checksums=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    fetch="run `hashrobust data mnist --download` (12 MB; download=True in Python)",
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
    images, labels = [], []
    for part in PARTS:
        images.append(read_idx(files[f"{part}-images-idx3"], ndim=3))
        labels.append(read_idx(files[f"{part}-labels-idx1"], ndim=1))
        if images[-1].shape != (len(labels[-1]), *IMAGE_SHAPE):
            raise DataError(
                f"'{files[f'{part}-images-idx3']}' holds {images[-1].shape} pixels and its labels are "
                f"{len(labels[-1])}, not one for each image of 28x28: fetch both files again"
            )
    targets = np.concatenate(labels).astype(np.int64)
    found = tuple(np.bincount(targets, minlength=len(kind.classes)).tolist())
    if found != kind.class_sizes:
        raise DataError(
            f"the files in '{files['train-labels-idx1'].parent}' are not {kind.name}'s (images a class: "
            f"{found}, not {kind.class_sizes}): put each data set in a folder of its own name"
        )
    source = MemoryImages(kind.name, np.concatenate(images)[:, None], image_size=image_size)
    if protocol == "classification":
        test = np.repeat([False, True], [len(part) for part in labels])
        return classification(kind.name, source, targets, kind.classes, test)
    return pooled_dataset(kind.name, source, targets, kind.classes, SIZES, TOP_K)


@datasets.register("fashion-mnist")
def fashion_mnist(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """70,000 pooled grey images of clothing, 28x28, ten classes.

    Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747.
    """
    return _load(FASHION, data_dir, image_size, download, progress, protocol)


@datasets.register("mnist")
def mnist(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """70,000 pooled grey images of handwritten digits, 28x28, ten classes.

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    return _load(MNIST, data_dir, image_size, download, progress, protocol)


def _passport(kind: _Set, data_dir: Path, source: str, licence: str) -> DatasetInfo:
    return DatasetInfo(
        name=kind.name,
        source=source,
        size="70,000 grey images, 28x28, 10 classes",
        protocol="train 5,000, query 1,000, validation 1,000 (500, 100, 100 a class), database 63,000; "
        "mAP@5000",
        licence=licence,
        fetch=kind.fetch,
        places=tuple(str(place) for place in kind.places(data_dir)),
        present=kind.find(data_dir) is not None,
    )


@describes("fashion-mnist")
def _fashion_info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return _passport(FASHION, data_dir, "Zalando Research (Xiao et al., arXiv 1708.07747)", "MIT")


@describes("mnist")
def _mnist_info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return _passport(MNIST, data_dir, "LeCun, Cortes and Burges", "CC BY-SA 3.0")
