"""A data set looked at anew: are all images there and sound, and does none stand on both sides of a search?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hashrobust.datasets._base import ClassificationDataset, LabelledDataset, Split
from hashrobust.datasets._files import BrokenImagesError, ImageFiles
from hashrobust.datasets._protocol import MUST_DIFFER
from hashrobust.errors import DataError
from hashrobust.progress import Progress

Outcome = Literal["pass", "fail", "note"]
CLASSIFICATION_PAIRS = (("test", "train"), ("test", "validation"), ("validation", "train"))


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it came out, in words, and each case by name."""

    check: str
    outcome: Outcome
    words: str
    cases: tuple[str, ...] = ()


def check_dataset(load: Callable[[], LabelledDataset], progress: Progress) -> list[Finding]:
    """Load a data set, then read every image of it again, whatever is remembered of it.

    Checked are the counts, that every image can be decoded to its end, copies, and leakage: a query or
    validation image that also stands in another split. Files that differ but show the very same pixels
    count as a note, since the protocol goes by the bytes.
    """
    try:
        data = load()
    except BrokenImagesError as error:
        return [Finding("readability", "fail", str(error), error.broken)]
    except DataError as error:
        return [Finding("loading", "fail", str(error))]
    source = data.train.source
    names = [source.path(image) for image in range(len(source))]
    found = [_counts(data)]
    pixels = digests = source.digests()
    if isinstance(source, ImageFiles):
        seen = source.examine(progress)
        broken = tuple(
            f"{name}: {why}" for name, why in zip(names, seen, strict=True) if isinstance(why, str)
        )
        words = (
            f"{len(broken)} of {len(seen)} files cannot be used" if broken else f"{len(seen)} files are sound"
        )
        found.append(Finding("readability", "fail" if broken else "pass", words, broken))
        pixels = [
            why if isinstance(why, bytes) else digest for why, digest in zip(seen, digests, strict=True)
        ]
    else:
        found.append(Finding("readability", "pass", f"{len(source)} images are in whole files"))
    found.append(_copies("copies", digests, names))
    found.append(_leakage(data, digests, "leakage", "fail"))
    if pixels is not digests:
        found.append(_leakage(data, pixels, "leakage by pixels", "note"))
    return found


def splits_of(data: LabelledDataset) -> dict[str, Split]:
    """The splits by name."""
    names = ("train", "query", "validation", "database", "test")
    return {name: getattr(data, name) for name in names if hasattr(data, name)}


def _counts(data: LabelledDataset) -> Finding:
    """Loading has held them against the protocol already."""
    splits = splits_of(data)
    words = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    bare = sum(int((split.labels.sum(dim=1) == 0).sum()) for name, split in splits.items() if name != "train")
    without = f"; {bare:,} images without a label" if bare else ""
    return Finding("counts", "pass", f"{words}; {len(data.classes)} classes{without}")


def _copies(check: str, digests: Sequence[bytes], names: Sequence[str]) -> Finding:
    many = {digest for digest, count in Counter(digests).items() if count > 1}
    groups: dict[bytes, list[str]] = defaultdict(list)
    for digest, name in zip(digests, names, strict=True):
        if digest in many:
            groups[digest].append(name)
    cases = tuple(" = ".join(group) for group in groups.values())
    if not cases:
        return Finding(check, "pass", "no image has an exact copy")
    count = sum(map(len, groups.values()))
    return Finding(
        check, "note", f"{count} images are copies of each other, {len(cases)} different ones", cases
    )


def _leakage(data: LabelledDataset, digests: Sequence[bytes], check: str, outcome: Outcome) -> Finding:
    """Images of one split whose digest another one has; `outcome` if there are any."""
    source, splits = data.train.source, splits_of(data)
    held = {name: {digests[image]: image for image in split.ids.tolist()} for name, split in splits.items()}
    cases = [
        f"{one} {source.path(held[one][digest])} is {other} {source.path(held[other][digest])}"
        for one, other in (CLASSIFICATION_PAIRS if isinstance(data, ClassificationDataset) else MUST_DIFFER)
        for digest in held[one]
        if digest in held[other]
    ]
    if not cases:
        return Finding(check, "pass", "no query, test or validation image stands in another split")
    return Finding(check, outcome, f"{len(cases)} images stand in two splits", tuple(cases))
