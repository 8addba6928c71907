"""MS-COCO: train and validation photographs pooled, labelled with the objects that are marked in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hashrobust.datasets import datasets
from hashrobust.datasets._base import LabelledDataset
from hashrobust.datasets._download import Remote
from hashrobust.datasets._info import DatasetInfo, describes
from hashrobust.datasets._photographs import Photographs, Pool, load_photographs, passport
from hashrobust.errors import DataError
from hashrobust.progress import Progress

IMAGES = 123_287
YEARS = ("2014", "2017")  # the same photographs and objects, parted otherwise
PARTS = ("train", "val")
GIGABYTE = 10**9
CLASSES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
NAMES = tuple(name.strip() for name in CLASSES.replace("\n", " ").split(","))


def _annotations(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"'{file}' cannot be read ({error}): fetch it again") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in lists):
        raise DataError(f"'{file}' lacks lists of {', '.join(lists)}: fetch it again")
    return content


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def read(root: Path) -> Pool:
    """All photographs by their COCO id, which does not depend on the year's parts.

    Raises:
        DataError: a file is damaged, or the photographs or objects are not those of MS-COCO.
    """
    year = next(year for year in YEARS if all((root / _file(part, year)).is_file() for part in PARTS))
    paths: dict[int, str] = {}
    objects: list[tuple[int, int]] = []
    for part in PARTS:
        file = root / _file(part, year)
        content = _annotations(file)
        try:
            column = {_whole(entry["id"]): NAMES.index(entry["name"]) for entry in content["categories"]}
            paths |= {
                _whole(entry["id"]): f"{part}{year}/{entry['file_name']}" for entry in content["images"]
            }
            objects += [
                (_whole(entry["image_id"]), column[_whole(entry["category_id"])])
                for entry in content["annotations"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"'{file}' is not in the format of MS-COCO's instances ({error!r}): fetch it again"
            ) from error
    if len(paths) != IMAGES:
        raise DataError(
            f"'{root / 'annotations'}' names {len(paths)} images and MS-COCO has {IMAGES}: fetch it again"
        )
    return _pool(paths, objects, root)


def _pool(paths: dict[int, str], objects: list[tuple[int, int]], root: Path) -> Pool:
    ids = sorted(paths)
    row = {image: number for number, image in enumerate(ids)}
    labels = np.zeros((len(ids), len(NAMES)), dtype=np.uint8)
    for image, column in objects:
        if image not in row:
            raise DataError(
                f"'{root / 'annotations'}' marks an object in image {image}, which it does not name: fetch it again"
            )
        labels[row[image], column] = 1
    return Pool([paths[image] for image in ids], labels)


def _file(part: str, year: str) -> str:
    return f"annotations/instances_{part}{year}.json"


MSCOCO = Photographs(
    name="mscoco",
    folders=("mscoco", "coco", "COCO"),
    classes=NAMES,
    train=10_000,
    query=5_000,
    validation=5_000,
    top_k=5000,
    holders=(
        "{path}",
        "train2014/{name}",
        "val2014/{name}",
        "train2017/{name}",
        "val2017/{name}",
        "images/{name}",
    ),
    layouts=tuple(tuple(_file(part, year) for part in PARTS) for year in YEARS),
    read=read,
    remotes=(
        Remote(
            ("http://images.cocodataset.org/zips/train2014.zip",),
            "0da8c0bd3d6becc4dcb32757491aca88",
            15 * GIGABYTE,
            ("train2014",),
            unpacked_bytes=16 * GIGABYTE,
        ),
        Remote(
            ("http://images.cocodataset.org/zips/val2014.zip",),
            "a3d79f5ed8d289b7a7554ce06a5782b3",
            8 * GIGABYTE,
            ("val2014",),
            unpacked_bytes=8 * GIGABYTE,
        ),
        Remote(
            ("http://images.cocodataset.org/annotations/annotations_trainval2014.zip",),
            "0a379cfc70b0e71301e0f377548639bd",
            GIGABYTE // 2,
            tuple(_file(part, "2014") for part in PARTS),
            unpacked_bytes=2 * GIGABYTE,
        ),
    ),
    about={
        "source": "COCO Consortium, https://cocodataset.org (Lin et al., arXiv 1405.0312)",
        "size": "123,287 photographs (train and validation pooled), 80 kinds of objects, several an image",
        "licence": "annotations CC BY 4.0; photographs by Flickr's terms, each under its own licence",
        "fetch": "run `hashrobust data mscoco --download` (20 GB; download=True in Python)",
    },
)


@datasets.register("mscoco")
def mscoco(
    *,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    progress: Progress | None = None,
    allow_overlap: bool = False,
) -> LabelledDataset:
    """MS-COCO: 123,287 photographs with several labels of 80 kinds of objects.

    Lin et al., "Microsoft COCO: common objects in context", arXiv 1405.0312.
    """
    return load_photographs(
        MSCOCO,
        data_dir=data_dir,
        image_size=image_size,
        download=download,
        progress=progress,
        allow_overlap=allow_overlap,
    )


@describes("mscoco")
def _info(data_dir: Path, path: Path | None) -> DatasetInfo:
    return passport(MSCOCO, data_dir)
