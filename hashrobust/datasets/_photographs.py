"""Published sets of photographs: where they lie, how their protocol is drawn, or read from HashNet lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hashrobust.datasets._base import IntArray, LabelledDataset
from hashrobust.datasets._download import Remote, download_missing
from hashrobust.datasets._files import ImageFiles, usable_digests
from hashrobust.datasets._info import DatasetInfo, absent, data_folder
from hashrobust.datasets._lists import (
    LISTS,
    ListedImages,
    class_names,
    classify_lists,
    halve_query,
    hold_out,
    read_members,
)
from hashrobust.datasets._protocol import assemble, draw_order, unique_content
from hashrobust.errors import DataError, InputError
from hashrobust.progress import Progress


@dataclass(frozen=True)
class Pool:
    """All photographs of a set in its own order: paths as its files give them, labels (N, classes) multi-hot."""

    paths: Sequence[str]
    labels: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """A published set, and the protocol on it.

    Args:
        name: as registered.
        folders: where it is looked for, below the data folder.
        classes: their names, in the order of the labels.
        train, query, validation: images in these splits; the database is what is left.
        train_in_database: the train images stay in the database.
        validation_of_test: test.txt holds queries and validation images in turn.
        top_k: list length of the protocol's mAP@k.
        holders: where below its folder an image lies, the first that is there: {path} stands for the path
            as the set gives it, {name} for its last part, {synset} for what stands before the first `_` of it.
        layouts: the files that tell that the set is here as published, by any of these.
        read: the set as published, from its folder; None: it comes as lists only.
        remotes: what `download=True` fetches, all of it into the first folder; the last one brings the files of a
            layout, so that the set is not taken for whole before.
        about: source, size, licence and what fetches it, in words.
    """

    name: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    train: int
    query: int
    validation: int
    top_k: int
    holders: tuple[str, ...]
    about: dict[str, str]
    train_in_database: bool = False
    validation_of_test: bool = False
    layouts: tuple[tuple[str, ...], ...] = ()
    read: Callable[[Path], Pool] | None = None
    remotes: tuple[Remote, ...] = field(default=())

    def places(self, data_dir: Path) -> list[Path]:
        """Where it is looked for, in this order."""
        return [data_dir / folder for folder in self.folders]

    def find(self, data_dir: Path) -> Path | None:
        """The first place that holds its lists, or the set as published."""
        layouts = (tuple(LISTS.values()), *self.layouts)
        for place in self.places(data_dir):
            if any(all((place / file).is_file() for file in layout) for layout in layouts):
                return place
        return None


def load_photographs(
    kind: Photographs,
    *,
    data_dir: str | Path | None,
    image_size: int | None,
    download: bool = False,
    progress: Progress | None,
    allow_overlap: bool = False,
    protocol: str = "retrieval",
) -> LabelledDataset:
    """The set by its protocol: from the lists in its folder if there are any, else as published.

    `allow_overlap` accepts lists of which a query or validation image also stands in another split.

    Raises:
        DataError: it is not here, or its files are not what they should be.
        HashRobustError: a download fails.
    """
    folder = data_folder(data_dir)
    root = kind.find(folder)
    if root is None and download:
        download_missing(kind.name, kind.remotes, kind.places(folder)[0], progress)
        root = kind.find(folder)
    if root is None:
        raise absent(kind.name, kind.places(folder), kind.about["fetch"])
    if all((root / file).is_file() for file in LISTS.values()):
        return _from_lists(kind, root, image_size, progress, allow_overlap, protocol)
    if protocol != "retrieval":
        raise InputError(f"dataset '{kind.name}' has no classification protocol: use it for retrieval")
    assert kind.read is not None
    return _from_pool(kind, root, kind.read(root), image_size, progress)


class Locator:
    """Finds images below a folder, whichever of the usual ways they are laid out in."""

    def __init__(self, root: Path, holders: Sequence[str]) -> None:
        self._root = root
        self._holders = list(holders)

    def __call__(self, listed: str) -> str:
        """The path below the folder; where there is no such image, the one that the first way gives."""
        path = PurePosixPath(listed.replace("\\", "/"))
        inside = path.name if path.is_absolute() or ".." in path.parts else str(path)
        names = {"path": inside, "name": path.name, "synset": path.name.partition("_")[0]}
        for place, holder in enumerate(self._holders):
            file = holder.format(**names)
            if (self._root / file).is_file():
                self._holders.insert(0, self._holders.pop(place))  # the next one is likely to lie there too
                return file
        return self._holders[0].format(**names)


def _digests(kind: Photographs, root: Path, files: Sequence[str], progress: Progress | None) -> list[bytes]:
    way_out = f"restore them, or read those that you have from lists of your own by list:{root}"
    return usable_digests(kind.name, root, files, way_out, progress)


def _from_pool(
    kind: Photographs, root: Path, pool: Pool, image_size: int | None, progress: Progress | None
) -> LabelledDataset:
    locate = Locator(root, kind.holders)
    files = [locate(path) for path in pool.paths]
    digests = _digests(kind, root, files, progress)
    members = draw(kind, pool.labels, digests)
    images = ImageFiles(root, files, digests, image_size)
    return assemble(kind.name, images, kind.classes, pool.labels, members, top_k=kind.top_k)


def draw(kind: Photographs, labels: NDArray[np.uint8], digests: Sequence[bytes]) -> dict[str, IntArray]:
    """The ids of each split, by the protocol's seed.

    Drawn are images that have a label and no exact copy; the others can be found in the database, by nobody.

    Raises:
        DataError: there are too few.
    """
    order = draw_order(len(labels))
    drawable = (unique_content(digests) & labels.any(axis=1))[order]
    chosen = order[drawable]
    cuts = np.cumsum([kind.train, kind.query, kind.validation])
    if len(chosen) <= cuts[-1]:
        raise DataError(
            f"{kind.name}: {len(chosen)} different images have a label, and the protocol draws {cuts[-1]}: "
            "get the whole data set"
        )
    train, query, validation = np.split(chosen, cuts)[:-1]
    outside = [query, validation] if kind.train_in_database else [train, query, validation]
    database = order[~np.isin(order, np.concatenate(outside))]
    return {"train": train, "query": query, "validation": validation, "database": database}


def _from_lists(
    kind: Photographs,
    root: Path,
    image_size: int | None,
    progress: Progress | None,
    allow_overlap: bool,
    protocol: str,
) -> LabelledDataset:
    listed = ListedImages(root, Locator(root, kind.holders))
    members = read_members(listed, root)
    _check_lists(kind, root, members, len(listed.labels[0]))
    digests = _digests(kind, root, listed.files, progress)
    images = ImageFiles(root, listed.files, digests, image_size)
    classes = class_names(root, len(kind.classes))
    if protocol == "classification":
        return classify_lists(kind.name, images, listed, members, classes)
    if "validation" not in members and kind.validation_of_test:
        halve_query(members)
    elif "validation" not in members:
        hold_out(kind.name, members, digests, kind.validation)
    labels = np.array(listed.labels, dtype=np.uint8)
    return assemble(
        kind.name,
        images,
        classes,
        labels,
        members,
        top_k=kind.top_k,
        skipped=listed.repeated,
        allow_overlap=allow_overlap,
    )


def _check_lists(kind: Photographs, root: Path, members: dict[str, IntArray], classes: int) -> None:
    halved = kind.validation_of_test and "validation" not in members
    expected = {
        "train": kind.train,
        "query": kind.query + (kind.validation if halved else 0),
        "validation": kind.validation,
    }
    for split, ids in members.items():
        if len(ids) != expected.get(split, len(ids)):
            what = f"the {split} list names {len(ids)} images, not {expected[split]}"
        elif classes != len(kind.classes):
            what = f"the lists have {classes} classes, not {len(kind.classes)}"
        else:
            continue
        raise DataError(
            f"{kind.name}: {what}, so that they are of another protocol: read them by list:{root}"
        )


def passport(kind: Photographs, data_dir: Path) -> DatasetInfo:
    """What the set is, and whether it is here."""
    database = "the rest" + (", with train in it" if kind.train_in_database else "")
    splits = (
        "drawn by the protocol's seed, or from HashNet lists in its folder"
        if kind.read
        else "HashNet's lists"
    )
    return DatasetInfo(
        name=kind.name,
        source=kind.about["source"],
        size=kind.about["size"],
        protocol=f"train {kind.train:,}, query {kind.query:,}, validation {kind.validation:,}, database "
        f"{database}; mAP@{kind.top_k}; {splits}",
        licence=kind.about["licence"],
        fetch=kind.about["fetch"],
        places=tuple(str(place) for place in kind.places(data_dir)),
        present=kind.find(data_dir) is not None,
    )
