"""Classes and losses of logits, each per sample; the losses are what an attacker minimises or maximises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hashrobust.errors import InputError

from ._context import as_multi_hot, class_count


def true_classes(labels: Tensor, outputs: int) -> Tensor:
    """The class (B,) of each row of labels, multi-hot (B, classes) or integers (B,), for so many outputs.

    Raises:
        InputError: a row without exactly one class, or a class that the model has no output for.
    """
    if outputs < 2:
        raise InputError("the model gives one output an image: a classifier has two or more, one a class")
    hot = as_multi_hot(labels, class_count(labels), "labels")
    if not bool((hot.sum(dim=1) == 1).all()):
        raise InputError("labels hold a row that has not exactly one class: classifiers know one an image")
    classes = hot.argmax(dim=1)
    if len(classes) and int(classes.max()) >= outputs:
        raise InputError(
            f"labels hold class {int(classes.max())}, the model has outputs for {outputs} classes: number "
            "the classes as the model does"
        )
    return classes


def classes_to_leave(labels: Tensor | None, logits: Tensor) -> Tensor:
    """The true classes (B,), or without labels those that the clean logits (B, C) predict."""
    predicted = logits.argmax(dim=1)
    if labels is None:
        return predicted
    return true_classes(labels, logits.shape[1]).to(predicted.device)


def still_right(logits: Tensor, classes: Tensor) -> Tensor:
    """1 where the largest logit is that of the class, 0 elsewhere, (B,)."""
    return (logits.argmax(dim=1) == classes).to(logits.dtype)


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """z_y - max of the other logits, (B,): below 0 where the class is not the predicted one."""
    return _own(logits, classes) - _others(logits, classes).amax(dim=1)


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """log p_y / (1 - p_y) of the softmax p, (B,): z_y less the logsumexp of the other logits.

    The cross-entropy -log p_y = softplus(-log-odds) rises as they fall, and its gradient is theirs times
    -(1 - p_y): to an attacker who follows signs of gradients the two are the same. But where the model is
    sure 1 - p_y is 0 in float32, and the gradient of the cross-entropy with it.
    """
    return _own(logits, classes) - _others(logits, classes).logsumexp(dim=1)


def logits_ratio(logits: Tensor, classes: Tensor) -> Tensor:
    """(z_y - max of the others) / (z_1 - z_3), z_1 >= z_2 >= z_3 the largest logits, (B,).

    Minus the DLR loss of Croce and Hein, arXiv 2003.01690; it does not depend on shift and scale of z.
    """
    largest = logits.topk(3, dim=1).values
    return margin(logits, classes) / (largest[:, 0] - largest[:, 2] + 1e-12)


def classification_objective(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Logits (B, C) to the log-odds (B,) of each image's class, as the `objective` of `check_gradient`.

    Their gradient is parallel to that of cross-entropy, and does not vanish where the model is sure.
    `labels` are integers or multi-hot, one a row of the logits or more; for the model's own prediction
    give `model(images).argmax(dim=1)`.
    """

    def objective(logits: Tensor) -> Tensor:
        return log_odds(logits, classes_to_leave(labels[: len(logits)], logits))

    return objective


def _own(logits: Tensor, classes: Tensor) -> Tensor:
    """z_y, (B,)."""
    return logits.gather(1, classes[:, None])[:, 0]


def _others(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits (B, C) with z_y out of the way, at minus infinity."""
    return logits.scatter(1, classes[:, None], -torch.inf)
