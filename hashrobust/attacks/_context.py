"""What an attack is given and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hashrobust.errors import InputError

Model = Callable[[Tensor], Tensor]

TASKS = frozenset({"hashing", "classification"})
_LABELS = ("labels", "targets", "train_labels", "database_labels")
_TENSORS = (*_LABELS, "train_codes", "database_codes", "sample_ids", "start_images")


@dataclass(frozen=True)
class AttackContext:
    """What an attacker knows beyond the model; `attack.needs` says what it cannot do without.

    Codes are (N, K) in {-1, +1}; labels are multi-hot (N, C) or integers (N,). `train_images` are the
    images (N, C, H, W) of the training codes, or a function that loads those of given rows (B,), such as
    the `load` of a dataset's split. `targets` (B, C) or (B,) are the labels that a targeted attack is to
    retrieve. `sample_ids` (B,) key all random draws (default: the place in the batch, so give them when a
    set is cut into batches). `before_step` is called with (restart, step) before the forward
    pass of each gradient step, and with (restart, step, draw) before each further one of the same step.
    `start_images` (B, C, H, W) are where an attack by gradient begins instead of its first start, such as
    what it found in a smaller ball. `fitted` is what the attack's `fit` returned for this model; without it
    each call fits anew. `task` is "hashing", or "classification": the outputs are logits (B, C), the labels
    the true classes, one an image. `transfer` says that the images are meant for another model than the
    one that is asked, so that a sample that fools this one is not finished.

    Raises:
        InputError: another task.
    """

    train_codes: Tensor | None = None
    train_labels: Tensor | None = None
    train_images: Tensor | Callable[[Tensor], Tensor] | None = None
    database_codes: Tensor | None = None
    database_labels: Tensor | None = None
    targets: Tensor | None = None
    sample_ids: Tensor | None = None
    before_step: Callable[..., None] | None = None
    fitted: Mapping[str, Tensor] | None = None
    start_images: Tensor | None = None
    task: str = "hashing"
    transfer: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"unknown task '{self.task}': give 'hashing' or 'classification'")

    @property
    def ids(self) -> Tensor:
        """The sample ids of a resolved context."""
        return required(self.sample_ids)


@dataclass(frozen=True)
class AttackResult:
    """Adversarial images and what the attack knows of them; all tensors but `images` have one entry a sample.

    `objective` is that of the returned images on hard codes (the lower the better for the attacker), of a
    classifier 1 where it is still right and 0 elsewhere; `clean_objective` that of the clean ones.
    `zero_gradients` and `nonfinite_gradients` count the steps at which a sample's whole gradient was zero
    (where its objective has nothing left to ask for, that is no loss), or some of it was not a finite number.
    `queries` counts what a search asked the model about the sample, the clean image included; 0 for attacks
    by gradient.
    `bounded` is false if the images were not held to the ball, only to [0, 1].
    """

    images: Tensor
    objective: Tensor
    clean_objective: Tensor
    gradient_evaluations: Tensor
    finished: Tensor
    zero_gradients: Tensor
    nonfinite_gradients: Tensor
    queries: Tensor
    bounded: bool = True

    @classmethod
    def at_once(cls, images: Tensor, objective: Tensor, clean_objective: Tensor) -> AttackResult:
        """That of an attack which neither followed a gradient from these images nor asked about them."""
        none = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return cls(
            images=images,
            objective=objective,
            clean_objective=clean_objective,
            gradient_evaluations=none,
            finished=none.bool(),
            zero_gradients=none.clone(),
            nonfinite_gradients=none.clone(),
            queries=none.clone(),
        )


@dataclass(frozen=True)
class Clean:
    """The clean images (B, C, H, W), their outputs z0 (B, K) and their signs, the hard codes h0 (B, K)."""

    images: Tensor
    outputs: Tensor
    codes: Tensor


def required(tensor: Tensor | None) -> Tensor:
    """A part of the context that `resolve` has checked to be there."""
    assert tensor is not None
    return tensor


def fitted_part(context: AttackContext, name: str) -> Tensor:
    """One tensor of what an attack has fitted.

    Raises:
        InputError: it is not there.
    """
    fitted = context.fitted or {}
    if name not in fitted:
        raise InputError(f"context.fitted holds no '{name}': hand back what fit of the same attack returned")
    return fitted[name]


def training_images(context: AttackContext, rows: Tensor) -> Tensor:
    """The training images of these rows (B,), from a tensor or a loader."""
    source = context.train_images
    assert source is not None
    return source[rows] if isinstance(source, Tensor) else source(rows)


def label_vectors(labels: Tensor) -> Tensor:
    """The distinct rows (L, C) of multi-hot labels (N, C), sorted, without the empty one."""
    distinct = torch.unique(labels, dim=0)
    vectors: Tensor = distinct[(distinct != 0).any(dim=1)]
    return vectors


def check_tensor(tensor: object, name: str) -> None:
    """Raise InputError unless what was given, if anything, is a tensor."""
    if tensor is not None and not isinstance(tensor, Tensor):
        raise InputError(f"{name} is a {type(tensor).__name__}: give a tensor, as torch.as_tensor makes one")


def class_count(*labels: Tensor | None) -> int:
    """The number of classes: the width of multi-hot labels, else the largest integer class + 1."""
    known = [given for given in labels if given is not None]
    widths = {given.shape[1] for given in known if given.ndim == 2}
    if len(widths) > 1:
        raise InputError(f"label vectors have {sorted(widths)} classes: give all with the same number")
    if widths:
        return widths.pop()
    return max((int(given.max()) + 1 for given in known if given.numel()), default=0)


def as_multi_hot(labels: Tensor, classes: int, name: str) -> Tensor:
    """Labels as multi-hot (N, classes) uint8, from multi-hot or from integers (N,).

    Raises:
        InputError: another shape, values of multi-hot labels other than 0 and 1, or a class outside 0 ... classes - 1.
    """
    if labels.ndim == 2:
        hot = (labels != 0).to(torch.uint8)
        if not torch.equal(hot.to(labels.dtype), labels):
            raise InputError(
                f"{name} of shape {tuple(labels.shape)} holds values other than 0 and 1: give multi-hot "
                "(N, classes), or integer classes as (N,)"
            )
        return hot
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"{name} has shape {tuple(labels.shape)} and type {labels.dtype}: give multi-hot (N, classes) "
            "or integer classes (N,)"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"{name} holds a class outside 0 ... {classes - 1}: number the classes from 0")
    return torch.nn.functional.one_hot(labels.long(), classes).to(torch.uint8)


def resolve(
    attack: str, needs: frozenset[str], size: int, labels: Tensor | None, context: AttackContext | None
) -> tuple[Tensor | None, AttackContext]:
    """Check what was given against what the attack needs; labels come back multi-hot, ids filled in.

    Raises:
        InputError: something is missing or does not fit together.
    """
    given = context or AttackContext()
    parts = {**vars(given), "labels": labels}
    for name in _TENSORS:
        check_tensor(parts[name], name)
    wanted = set(needs) | {need.replace("codes", "labels") for need in needs}
    for name in sorted(wanted):
        if parts[name] is None:
            where = "labels=" if name == "labels" else f"context=AttackContext({name}=...)"
            raise InputError(f"attack {attack} needs {name}: pass {where}")
    classes = class_count(*(parts[name] for name in _LABELS))
    hot = {
        name: None if parts[name] is None else as_multi_hot(parts[name], classes, name) for name in _LABELS
    }
    ids = torch.arange(size) if given.sample_ids is None else given.sample_ids
    if ids.ndim != 1 or ids.dtype == torch.bool or ids.is_floating_point():
        raise InputError(f"sample_ids have shape {tuple(ids.shape)} and type {ids.dtype}: give integers (B,)")
    _check_rows(size, {"labels": labels, "targets": given.targets, "sample_ids": ids})
    for side in ("train", "database"):
        _check_codes(side, parts[f"{side}_codes"], hot[f"{side}_labels"])
    _check_train_images(given)
    resolved = replace(
        given,
        train_labels=hot["train_labels"],
        database_labels=hot["database_labels"],
        targets=hot["targets"],
        sample_ids=ids.cpu(),
    )
    return hot["labels"], resolved


def _check_rows(size: int, rows: dict[str, Tensor | None]) -> None:
    for name, tensor in rows.items():
        if tensor is not None and len(tensor) != size:
            raise InputError(f"{name} has {len(tensor)} rows for {size} images: give one a sample")


def _check_codes(side: str, codes: Tensor | None, labels: Tensor | None) -> None:
    if codes is None:
        return
    if codes.ndim != 2 or codes.dtype == torch.bool or not bool((codes.abs() == 1).all()):
        raise InputError(f"{side}_codes must be (N, K) with values -1 and +1: take the sign of the outputs")
    if labels is not None and len(labels) != len(codes):
        raise InputError(f"{side}_labels has {len(labels)} rows for {len(codes)} codes: give one a code")


def _check_train_images(context: AttackContext) -> None:
    images, codes = context.train_images, context.train_codes
    if isinstance(images, Tensor) and codes is not None and len(images) != len(codes):
        raise InputError(f"train_images has {len(images)} rows for {len(codes)} train_codes: give one a code")


def check_bits(context: AttackContext, bits: int) -> None:
    """Raise InputError unless the codes of the context, if any, are of so many bits."""
    for name, codes in (("train_codes", context.train_codes), ("database_codes", context.database_codes)):
        if codes is not None and codes.shape[1] != bits:
            raise InputError(
                f"{name} have {codes.shape[1]} bits and the model {bits} outputs: give codes of the same model"
            )


def check_start_images(start: Tensor | None, images: Tensor) -> None:
    """Raise InputError unless the images to start from, if any, are numbers and shaped like the images."""
    if start is None:
        return
    if start.shape != images.shape:
        raise InputError(
            f"start_images have shape {tuple(start.shape)} for images of shape {tuple(images.shape)}: give "
            "one start an image"
        )
    if not bool(start.isfinite().all()):
        raise InputError("start_images hold values that are not numbers: give images in [0, 1]")


def check_images(images: Tensor) -> None:
    """Raise InputError unless images are a float batch (B, C, H, W) with all values in [0, 1]."""
    check_tensor(images, "images")
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"images have shape {tuple(images.shape)} and type {images.dtype}: give float32 (B, C, H, W)"
        )
    if not len(images):
        raise InputError("there are no images to attack: give a batch of at least one")
    # False for NaN as well.
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise InputError("images hold values outside [0, 1]: normalisation belongs inside the model")
