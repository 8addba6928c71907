"""What a data set is, whose it is, where it is looked for, and what fetches it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hashrobust.errors import DataError

DATA_VARIABLE = "HASHROBUST_DATA"
DEFAULT_DATA_DIR = "data"


@dataclass(frozen=True)
class DatasetInfo:
    """A data set's passport; `present` is None where that depends on a folder that was not named."""

    name: str
    source: str
    size: str
    protocol: str
    licence: str
    fetch: str
    places: tuple[str, ...]
    present: bool | None


# From the data folder and the path after the colon (None: no colon) to the passport.
InfoBuilder = Callable[[Path, Path | None], DatasetInfo]
INFO: dict[str, InfoBuilder] = {}


def describes(name: str) -> Callable[[InfoBuilder], InfoBuilder]:
    """Function decorator: this function writes the passport of dataset `name`."""

    def add(builder: InfoBuilder) -> InfoBuilder:
        INFO[name] = builder
        return builder

    return add


def written_out(path: str | Path) -> Path:
    """A path whose `~` is the user's folder: no shell writes out the one of `folder:~/photos`."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for users it does not know


def data_folder(data_dir: str | Path | None) -> Path:
    """`data_dir`, else the environment's HASHROBUST_DATA, else ./data."""
    return written_out(
        data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE) or DEFAULT_DATA_DIR
    )


def absent(name: str, places: Sequence[Path], fetch: str) -> DataError:
    """The error for a data set that stands in none of its places."""
    searched = ", ".join(f"'{place}'" for place in places)
    return DataError(f"{name} is not on this machine (searched {searched}): {fetch}")
