"""ImageNet100: the hundred classes of ILSVRC 2012 that HashNet's lists name."""

from __future__ import annotations

from pathlib import Path

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._info import DatasetInfo, describes
from hashrobust.datasets._photographs import Photographs, load_photographs, passport
from hashrobust.progress import Progress

KAGGLE = "ILSVRC/Data/CLS-LOC"

IMAGENET100 = Photographs(
    name="imagenet100",
    folders=("imagenet100", "imagenet"),
    classes=tuple(str(number) for number in range(100)),
    train=13_000,
    query=2_500,
    validation=2_500,
    validation_of_test=True,
    top_k=1000,
    holders=(
        *("{path}", "image/{name}", "val_image/{name}", "train/{synset}/{name}", "val/{name}"),
        *(f"{KAGGLE}/train/{{synset}}/{{name}}", f"{KAGGLE}/val/{{name}}"),
    ),
    about={
        "source": "ImageNet (Russakovsky et al., arXiv 1409.0575), lists of HashNet (Cao et al., arXiv 1702.00758)",
        "size": "about 133,500 photographs, 100 classes",
        "licence": "ImageNet's terms of access: research and teaching, not for commerce",
        "fetch": "ask at https://image-net.org for ILSVRC 2012 and put its train and val folders into the first of its "
        "folders, with train.txt, test.txt and database.txt from pytorch/data/imagenet of "
        "https://github.com/thuml/HashNet",
    },
)


@datasets.register("imagenet100")
def imagenet100(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    progress: Progress | None = None,
    allow_overlap: bool = False,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """ImageNet100: a hundred classes of ImageNet, by HashNet's lists.

    Cao et al., "HashNet", arXiv 1702.00758. Of test.txt, the ILSVRC validation images, every second one is
    a query and the others validate. To classify, train.txt and test.txt are taken.
    """
    return load_photographs(
        IMAGENET100,
        data_dir=data_dir,
        image_size=image_size,
        progress=progress,
        allow_overlap=allow_overlap,
        protocol=protocol,
    )


@describes("imagenet100")
def _info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return passport(IMAGENET100, data_dir)
