"""Encoding a data set over the bare forward pass on tensors in memory: what reading, decoding and packing add.

    python benchmarks/encoding.py [--repetitions 5] [--models lenet:digits resnet18:photographs ...] [--photographs 400]

Small images are digits, which are enlarged, and Fashion-MNIST where it is present; photographs are JPEG files of
500 x 375 pixels that are made here. Bare is the network
alone on the same batches, loaded before. Seconds are by the clock, with one thread for the network, since photographs
are decoded beside it by others; "decode, then encode" does one after the other. Each repetition runs each way in turn,
and ratios are taken within it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _table import print_ratios
from PIL import Image

from hashrobust._arrays import pack
from hashrobust._memory import keep_freed_memory
from hashrobust.datasets import Split, load_dataset
from hashrobust.errors import DataError
from hashrobust.models import HashModel

BITS, CLASSES = 32, 4
MODELS = (
    ("lenet", "digits", 32, 100),
    ("lenet", "fashion-mnist", 28, 100),
    ("resnet20", "digits", 32, 100),
    ("alexnet", "photographs", 224, 20),
    ("resnet18", "photographs", 224, 20),
)
"""Backbone, images, image size, and images a batch."""
NAMES = tuple(f"{backbone}:{images}" for backbone, images, *_ in MODELS)


def make_photographs(folder: Path, count: int) -> None:
    """Smooth noise, which takes JPEG about as many bytes as photographs do."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (75, 100, 3), dtype=np.uint8)
        place = folder / f"class{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{number}.jpg")


def read_split(dataset: str, size: int) -> Split:
    """A split of which no image was read yet, where images are files."""
    return load_dataset(dataset, image_size=size).database


def measure(
    model: HashModel, fresh: Callable[[], Split], batch: int, repetitions: int
) -> dict[str, list[float]]:
    """Seconds of each way, by repetition; a first round that warms up is not counted."""
    batches = [images for images, _ in fresh().batches(batch)]

    def bare(_: Split) -> None:
        with torch.inference_mode():
            for images in batches:
                model(images)

    ways: dict[str, Callable[[Split], object]] = {
        "bare": bare,
        "encode": lambda split: pack(model.encode(split, batch)),
        "decode": lambda split: [None for _ in split.batches(batch)],
        "decode, then encode": lambda split: pack(model.encode(split.images, batch)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repetitions + 1):
        for name, way in ways.items():
            split = fresh()
            start = time.perf_counter()
            way(split)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--photographs", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(Path(folder), arguments.photographs)
        for model_name, (name, dataset, size, batch) in zip(NAMES, MODELS, strict=True):
            if model_name not in arguments.models:
                continue
            photographs = dataset == "photographs"
            fresh = partial(read_split, f"folder:{folder}" if photographs else dataset, size)
            try:
                images = len(fresh())
            except DataError as error:
                print(f"\n{dataset} is left out: {error}")
                continue
            model = HashModel(name, BITS, channels=3 if photographs else 1, image_size=size).eval()
            title = f"{name}, {dataset} at {size} pixels, {images} images"
            print_ratios(title, measure(model, fresh, batch, arguments.repetitions), "bare")


if __name__ == "__main__":
    main()
