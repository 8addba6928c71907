"""Images that stay on the disk and are decoded when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hashrobust.datasets._base import IntArray
from hashrobust.datasets._cache import DecodedImages, KnownFiles, Pixels
from hashrobust.datasets._decode import decode
from hashrobust.datasets._memory import check_image_size, content_digest
from hashrobust.errors import DataError
from hashrobust.progress import Progress, Silent

DEFAULT_IMAGE_SIZE = 224
RESIZE_OVER_CROP = 256 / 224  # ImageNet's evaluation practice: Resize(256), CenterCrop(224)
MAX_THREADS = 8
NAMED = 5
MOST_BYTES = 1 << 29
"""Of a file, which is read whole: those of the largest images that are decoded are half of it, films are more."""


def _cut(image: Image.Image, size: int) -> Pixels:
    """The middle square (size, size, 3) of the image, resized before as for ImageNet."""
    # It takes two seconds to import, and only files of images need it.
    from torchvision.transforms import InterpolationMode, functional

    image = functional.resize(image, [round(size * RESIZE_OVER_CROP)], InterpolationMode.BILINEAR)
    return np.array(functional.center_crop(image, [size, size]), dtype=np.uint8)


def _threads() -> int:
    return min(MAX_THREADS, os.cpu_count() or 1)


def _content(path: Path) -> bytes:
    """The bytes of what may be an image.

    Raises:
        OSError: it cannot be read.
        ValueError: no file can have this name, or it is no file, or larger than images are.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("it is not a regular file")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"it has {size} bytes, more than {MOST_BYTES}")
    return path.read_bytes()


def _inspect(path: Path) -> bytes | str:
    try:
        content = _content(path)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
    try:
        decode(content, coarse=True)
    except UnidentifiedImageError:
        return "it is not an image"
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        return str(error) or type(error).__name__
    return content_digest(content)


def inspect_files(paths: Sequence[Path], progress: Progress | None = None) -> list[bytes | str]:
    """For each file the hash of its bytes, or (a str) the reason why it cannot be used as an image.

    A file that was found sound before and has the same size and times is not read again.
    """
    known = KnownFiles(paths)
    found: list[bytes | str | None] = list(known.digests())
    unknown = [place for place, digest in enumerate(found) if digest is None]
    if not unknown:
        return [digest for digest in found if digest is not None]
    with (
        (progress or Silent()).track("reading", len(paths), "images", len(paths) - len(unknown)) as advance,
        ThreadPoolExecutor(_threads()) as pool,
    ):
        seen = pool.map(_inspect, [paths[place] for place in unknown])
        for place, digest in zip(unknown, seen, strict=True):
            found[place] = digest
            advance(1, "")
    digests = [digest for digest in found if digest is not None]
    known.remember(digests)
    return digests


class BrokenImagesError(DataError):
    """Images that cannot be used; `broken` names all of them, with reasons."""

    def __init__(self, message: str, broken: Sequence[str]) -> None:
        super().__init__(message)
        self.broken = tuple(broken)


def usable_digests(
    name: str, root: Path, files: Sequence[str], way_out: str, progress: Progress | None = None
) -> list[bytes]:
    """Hashes of all files of a dataset, every one of which must be a readable image.

    Raises:
        BrokenImagesError: some are not; `way_out` ends the sentence.
    """
    seen = inspect_files([root / file for file in files], progress)
    broken = [f"{file}: {why}" for file, why in zip(files, seen, strict=True) if isinstance(why, str)]
    if broken:
        raise BrokenImagesError(
            f"{name}: {len(broken)} of {len(files)} images cannot be used ({'; '.join(broken[:NAMED])}"
            f"{'; ...' if len(broken) > NAMED else ''}): {way_out}",
            broken,
        )
    return [digest for digest in seen if isinstance(digest, bytes)]


class ImageFiles:
    """Image files as RGB: short side to round(image_size * 256 / 224), then the centre square.

    Small sets are kept decoded.
    """

    decodes = True

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        digests: Sequence[bytes],
        image_size: int | None = None,
    ) -> None:
        """`files` are paths below `root`; `digests` the hashes of their bytes."""
        self._root = root
        self._files = tuple(files)
        self._digests = list(digests)
        self._size = check_image_size(DEFAULT_IMAGE_SIZE if image_size is None else image_size)
        worth_it = DecodedImages.worth_it(len(files), self._size)
        self._kept = DecodedImages(digests, self._size) if worth_it else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a loaded image."""
        return (3, self._size, self._size)

    def __len__(self) -> int:
        return len(self._files)

    def load(self, ids: IntArray) -> Tensor:
        """Float32 (B, 3, H, W) in [0, 1].

        Raises:
            DataError: a file has vanished or been damaged since the dataset was loaded.
        """
        if len(ids) == 0:
            return torch.zeros(0, *self.image_shape)
        if self._kept is None:
            pixels = np.stack(self._decode(ids))
        else:
            missing = self._kept.missing(ids)
            self._kept.add(missing, self._decode(missing))
            pixels = self._kept.get(ids)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).contiguous()

    def _decode(self, ids: IntArray) -> list[Pixels]:
        """By a small pool of threads: Pillow and torchvision let others work while they decode and resize."""
        with ThreadPoolExecutor(_threads()) as pool:
            return list(pool.map(self._load_one, ids.tolist()))

    def _load_one(self, image_id: int) -> Pixels:
        file = self._root / self._files[image_id]
        try:
            image = decode(_content(file))
        except Exception as error:
            raise DataError(f"image '{file}' can no longer be read ({error}): restore the file") from error
        return _cut(image, self._size)

    def examine(self, progress: Progress) -> list[bytes | str]:
        """Read and decode every file anew: for each the hash of its pixels, or (a str) what is wrong with it."""
        with (
            progress.track("checking", len(self), "images") as advance,
            ThreadPoolExecutor(_threads()) as pool,
        ):
            found = []
            for seen in pool.map(self._examine_one, range(len(self))):
                found.append(seen)
                advance(1, "")
        return found

    def _examine_one(self, image_id: int) -> bytes | str:
        try:
            content = _content(self._root / self._files[image_id])
            if content_digest(content) != self._digests[image_id]:
                return "its content has changed since it was first read"
            image = decode(content)
        except Exception as error:  # readers of damaged files raise whatever they stumble over
            return str(error) or type(error).__name__
        return content_digest(repr(image.size).encode() + image.tobytes())

    def digests(self) -> list[bytes]:
        """A hash of the bytes of every file."""
        return self._digests

    def path(self, image_id: int) -> str:
        """The file, below the root folder."""
        return self._files[image_id]
